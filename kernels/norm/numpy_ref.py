"""The reference: the definitions of the spec, in float64 or wider, rounded once."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.norm.spec import backward, forward


def _wide(x: np.ndarray | None) -> Any:
    return None if x is None else x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def _forward(centre: bool) -> Callable:
    def run(call: Call, outs: tuple) -> None:
        x, weight, bias = (*map(_wide, call.inputs), None)[:3]
        with np.errstate(all="ignore"):
            outs[0][...] = forward(x, weight, bias, call.attrs["eps"], centre)
    return run


def _backward(centre: bool) -> Callable:
    def run(call: Call, outs: tuple) -> None:
        with np.errstate(all="ignore"):
            for out, result in zip(outs, backward(call.attrs["eps"], centre, *map(_wide, call.inputs)), strict=True):
                out[...] = result
    return run


KERNELS = [Kernel(op, "numpy", run, describe=lambda call: "NumPy, in a wider type") for op, run in (
    ("layer_norm", _forward(True)), ("rms_norm", _forward(False)),
    ("layer_norm_backward", _backward(True)), ("rms_norm_backward", _backward(False)))]
