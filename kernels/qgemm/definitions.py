"""The arithmetic of the integer products, step by step: what the oracles use, and what NumPy's kernels run."""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import Call
from tilewright.kernels.quantize.spec import quantize, range_of

MANY = 1 << 24  # products of elements


def wrapped(x: np.ndarray) -> np.ndarray:
    """Integers modulo 2^32, as int32."""
    return x.astype(np.int64).astype(np.uint32).view(np.int32)


def centred(x: np.ndarray, zero: np.ndarray | None, axis: int, dtype: Any = np.int64) -> np.ndarray:
    """x - zero, one a row (axis 0) or a column (1)."""
    wide = x.astype(dtype)
    if zero is not None:
        wide -= zero[..., None] if axis == 0 else zero[..., None, :]
    return wide


def sums(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray | None, b_zero: np.ndarray | None) -> np.ndarray:
    """matmul_integer by integers of 64 bits; large ones by float64's BLAS, as exact below 2^53, 50 times as fast."""
    dtype = np.int64 if a.size * b.shape[-1] <= MANY else np.float64
    return wrapped(np.matmul(centred(a, a_zero, 0, dtype), centred(b, b_zero, 1, dtype)))


def requantized(total: np.ndarray, call: Call) -> np.ndarray:
    """The result of qlinear_matmul, in int32, from its sums."""
    _, a_scale, _, _, b_scale, _, y_scale, y_zero = call.inputs
    with np.errstate(all="ignore"):
        f = total.astype(np.float32) * (a_scale[..., None] * b_scale[..., None, :])
    return quantize(f, y_scale[..., None], y_zero[..., None], *range_of(call.outputs[0][1]))


def quantize_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row of x (R, K) as uint8 over its own range: q, scale (R,) (NaN: x is not finite), zero point (R,) int32."""
    low, high = x.min(axis=1, initial=0), x.max(axis=1, initial=0)
    with np.errstate(all="ignore"):
        top = np.float32(255)
        scale = np.maximum(high / top - low / top, np.float32(2.0 ** -100))
        bad = ~np.isfinite(scale)
        inverse = np.float32(1) / scale
        zero = np.where(bad, 0, np.clip(np.rint(-low * inverse), 0, 255)).astype(np.int32)
        q = np.clip(np.rint(x * inverse[:, None]) + zero[:, None].astype(np.float32), 0, 255)
        q = np.where(bad[:, None], 0, q).astype(np.uint8)
    return q, np.where(bad, np.float32(np.nan), scale), zero


def weights_of(call: Call) -> tuple[QuantizedMatrix, np.ndarray | None]:
    """The matrix of a layer, and its zero points (N,) as int32, where it has no groups."""
    assert call.packed is not None
    w = call.packed[0]
    return w, None if w.zero_points is None or w.group_size is not None else w.zero_points[:, 0].astype(np.int32)


def qlinear_result(total: np.ndarray, call: Call) -> np.ndarray:
    """The result of qlinear, in int32 or float32, from its sums."""
    w, _ = weights_of(call)
    bias, attrs = call.inputs[4], call.attrs
    with np.errstate(all="ignore"):
        f = total.astype(np.float32) * (attrs["x_scale"] * w.scales[:, 0])
        f = f if bias is None else f + bias
        if attrs["y_scale"] is None:
            return f
        f = np.where(f < 0, np.float32(0), f) if attrs["activation"] == "relu" else f
    return quantize(f, attrs["y_scale"], np.int32(attrs["y_zero"]), *range_of(call.outputs[0][1]))
