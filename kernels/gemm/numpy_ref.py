"""The reference products, by NumPy's matmul and so by its BLAS."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import FLOATS, HALVES, Call, Kernel
from tilewright.kernels.gemm.spec import activate, compute_dtype


def _matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b = call.inputs
    with np.errstate(all="ignore"):
        if compute_dtype(call.dtype) == call.dtype:
            np.matmul(a, b, out=outs[0])
        else:
            outs[0][...] = np.matmul(a.astype(np.float32), b.astype(np.float32))


def _gemm(call: Call, outs: tuple) -> None:
    a, b, c = call.inputs
    alpha, beta = (a.dtype.type(call.attrs[name]) for name in ("alpha", "beta"))
    with np.errstate(all="ignore"):
        y = alpha * np.matmul(a, b) if alpha else np.zeros(call.outputs[0][0], a.dtype)
        outs[0][...] = y if c is None or not beta else y + beta * c


def _linear(call: Call, outs: tuple) -> None:
    x, w = (v.astype(compute_dtype(call.dtype), copy=False) for v in call.inputs[:2])
    bias, residual = call.inputs[2:]
    with np.errstate(all="ignore"):
        z = np.matmul(x, w.T)
        y = activate(call.attrs["activation"], z if bias is None else z + bias)
        outs[0][...] = y if residual is None else y + residual


def _linear_backward(call: Call, outs: tuple) -> None:
    dy, x, w = call.inputs
    dx, dw, dbias = outs
    with np.errstate(all="ignore"):
        np.matmul(dy, w, out=dx)
        np.matmul(dy.T, x, out=dw)
        dbias[...] = np.matmul(np.ones((1, dy.shape[0]), dy.dtype), dy)[0]


def _linear_backward_weights(call: Call, outs: tuple) -> None:
    dy, x, dw, dbias = call.inputs
    beta = dw.dtype.type(call.attrs["beta"])
    with np.errstate(all="ignore"):
        for old, new in (dw, np.matmul(dy.T, x)), (dbias, np.matmul(np.ones((1, dy.shape[0]), dy.dtype), dy)[0]):
            if old is not None:
                old[...] = new + beta * old if beta else new


def _how(call: Call) -> str:
    return "NumPy's BLAS"


KERNELS = [
    Kernel("matmul", "numpy", _matmul, dtypes=FLOATS + HALVES, describe=_how),
    Kernel("gemm", "numpy", _gemm, describe=_how),
    Kernel("linear", "numpy", _linear, dtypes=FLOATS + HALVES, describe=_how),
    Kernel("linear_backward", "numpy", _linear_backward, describe=_how),
    Kernel("linear_backward_weights", "numpy", _linear_backward_weights, describe=_how),
]
