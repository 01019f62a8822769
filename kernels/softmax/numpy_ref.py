"""The reference: the definitions of the spec, in float64 or wider, rounded once."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.softmax.spec import log_softmax, softmax


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def _row(f: Callable[..., np.ndarray]) -> Callable:
    def run(call: Call, outs: tuple) -> None:
        with np.errstate(all="ignore"):
            outs[0][...] = f(*map(_wide, call.inputs))
    return run


def _softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y * (dy - (dy * y).sum(-1, keepdims=True))


def _log_softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return dy - np.exp(y) * dy.sum(-1, keepdims=True)


KERNELS = [Kernel(op, "numpy", _row(f), describe=lambda call: "NumPy, in a wider type") for op, f in (
    ("softmax", softmax), ("log_softmax", log_softmax),
    ("softmax_backward", _softmax_backward), ("log_softmax_backward", _log_softmax_backward))]
