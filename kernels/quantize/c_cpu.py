"""Quantization in C: one pass, strides and threads as for the activations; see csrc/quantize/maps.h."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import describe, door

from .spec import INTEGERS


def _quantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("quantize", *call.inputs, call.attrs["low"], call.attrs["high"], outs[0])


def _dequantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("dequantize", *call.inputs, outs[0])


def _dynamic(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("dynamic_quantize_linear", call.inputs[0], *outs)


KERNELS = [
    Kernel("quantize_linear", "c", _quantize, dtypes=INTEGERS, describe=describe),
    Kernel("dequantize_linear", "c", _dequantize, dtypes=(*INTEGERS, "int32"), describe=describe),
    Kernel("dynamic_quantize_linear", "c", _dynamic, dtypes=("float32",), describe=describe),
]
