"""The reference conversions: the definitions of the spec as NumPy computes them."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel

from .spec import INTEGERS, dynamic, quantize


def _quantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, scale, zero = call.inputs
    outs[0][...] = quantize(x, scale, zero, call.attrs["low"], call.attrs["high"])


def _dequantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, scale, zero = call.inputs
    with np.errstate(all="ignore"):
        np.multiply((x.astype(np.int32) - zero).astype(np.float32), scale, out=outs[0])


def _dynamic(call: Call, outs: Sequence[np.ndarray]) -> None:
    for out, value in zip(outs, dynamic(call.inputs[0]), strict=True):
        out[...] = value


def _how(call: Call) -> str:
    return "NumPy"


KERNELS = [
    Kernel("quantize_linear", "numpy", _quantize, dtypes=INTEGERS, describe=_how),
    Kernel("dequantize_linear", "numpy", _dequantize, dtypes=(*INTEGERS, "int32"), describe=_how),
    Kernel("dynamic_quantize_linear", "numpy", _dynamic, dtypes=("float32",), describe=_how),
]
