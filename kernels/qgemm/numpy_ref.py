"""The reference products: sums by BLAS in float64, exact below 2^53, which K · 255² does not reach for K < 10^11."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import BYTES, Call, Kernel
from tilewright.kernels.gemm.spec import activate

from .definitions import centred, qlinear_result, quantize_rows, requantized, weights_of, wrapped


def _sums(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray | None, b_zero: np.ndarray | None) -> np.ndarray:
    return wrapped(np.matmul(centred(a, a_zero, 0, np.float64), centred(b, b_zero, 1, np.float64)))


def _matmul_integer(call: Call, outs: Sequence[np.ndarray]) -> None:
    outs[0][...] = _sums(*call.inputs)


def _qlinear_matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, _, a_zero, b, _, b_zero, _, _ = call.inputs
    outs[0][...] = requantized(_sums(a, b, a_zero, b_zero), call)


def _quantized_linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, values, bias, residual = call.inputs
    w, zeros = weights_of(call)
    with np.errstate(all="ignore"):
        if w.method == "dynamic":
            q, scale, zero = quantize_rows(x)
            z = _sums(q, values.T, zero, zeros).astype(np.float32) * (scale[:, None] * w.scales[:, 0])
        else:
            z = np.matmul(x, w.dequantize().T)
        y = activate(call.attrs["activation"], z if bias is None else z + bias)
        outs[0][...] = y if residual is None else y + residual


def _qlinear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, _, _, values, *_ = call.inputs
    zero = np.broadcast_to(np.int32(call.attrs["x_zero"]), x.shape[:1])
    f = qlinear_result(_sums(x, values.T, zero, weights_of(call)[1]), call)
    outs[0][...] = activate(call.attrs["activation"], f) if f.dtype == np.float32 else f


def _how(call: Call) -> str:
    floats = call.packed is not None and isinstance(w := call.packed[0], QuantizedMatrix) and w.method == "weight-only"
    return "NumPy's BLAS" + (", of the weights brought back to floats" if floats else " in float64")


KERNELS = [
    Kernel("matmul_integer", "numpy", _matmul_integer, dtypes=BYTES, describe=_how),
    Kernel("qlinear_matmul", "numpy", _qlinear_matmul, dtypes=BYTES, describe=_how),
    Kernel("quantized_linear", "numpy", _quantized_linear, dtypes=("float32",), describe=_how),
    Kernel("qlinear", "numpy", _qlinear, dtypes=BYTES, describe=_how),
]
