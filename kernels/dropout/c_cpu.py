"""Dropout in C: Philox in vectors, the mask never stored; see csrc/dropout/map.h."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import describe, door


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("dropout", call.inputs[0], call.attrs["p"], call.attrs["seed"], outs[0])


KERNELS = [Kernel(op, "c", _run, describe=describe) for op in ("dropout", "dropout_backward")]
