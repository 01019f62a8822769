"""What stands before and after the integer products of quantized layers, row by row; serial, without the GIL.

    quantize_rows(x, q, scale, zero, lo, hi)              rows lo ... hi - 1 of x, each over its own range, to q
    scale_sums(y, row_scale, column_scale, bias)          y holds int32 sums, and becomes float32 in their place
    requantize(sums, row_scale, column_scale, bias, relu, y_scale, y_zero, y, low, high)

2-D arrays with contiguous columns: x and y float32, q uint8, sums int32; the y of requantize int8 or uint8. For each
row or column a scale, a bias or a zero point, those of columns contiguous. Every operation rounds once, in the order of
the spec, so that integers are the same on every backend.
"""
from __future__ import annotations

import numpy as np

from tilewright.kernels.quantize.vectors import as_float, extremes, integers_at, put_integers, quantized, rounded
from tilewright.kernels.vector.host import inner, njit
from tilewright.kernels.vector.memory import address, filled, lanes, load_at, store_at
from tilewright.kernels.vector.simd import bits_of, select, vmax, vmin

LEAST_SCALE = np.float32(2.0 ** -100)
TOP = np.float32(255)
ONE = np.float32(1)
MAGIC = np.float32(1.5 * 2.0 ** 23)  # adding it rounds to an integer


@njit
def quantize_rows(x, q, scale, zero, lo, hi):
    """See the head of this file; zero is int32."""
    n = x.shape[1]
    for i in range(lo, hi):
        low, high = extremes(x, address(x) + i * x.strides[0], n)
        s = high / TOP - low / TOP
        s = LEAST_SCALE if s < LEAST_SCALE else s
        inverse = ONE / s
        z = -low * inverse + MAGIC - MAGIC
        z = z if z > 0 else 0 * ONE  # not a number: 0
        z = z if z < TOP else TOP
        scale[i], zero[i] = s, np.int32(z)
        for j in range(0, n, lanes(x)):
            count = min(lanes(x), n - j)
            v = load_at(x, address(x) + i * x.strides[0] + 4 * j, count)
            v = vmin(vmax(filled(x, 0.0), (v * inverse + MAGIC - MAGIC) + z), 255.0)
            put_integers(q, address(q) + i * q.strides[0] + j, rounded(v), count)


@inner
def scaled(sums, row_scale, column_scale, bias, i, j, n):
    """n results of row i, from column j: float32(sum) * (row_scale * column_scale) + bias."""
    s = filled(column_scale, row_scale[i]) * load_at(column_scale, address(column_scale) + 4 * j, n)
    return as_float(sums) * s + load_at(bias, address(bias) + 4 * j, n)


@njit
def scale_sums(y, row_scale, column_scale, bias):
    """See the head of this file."""
    for i in range(y.shape[0]):
        for j in range(0, y.shape[1], lanes(y)):
            n, at = min(lanes(y), y.shape[1] - j), address(y) + i * y.strides[0] + 4 * j
            store_at(y, at, scaled(bits_of(load_at(y, at, n)), row_scale, column_scale, bias, i, j, n), n)


@njit
def requantize(sums, row_scale, column_scale, bias, relu, y_scale, y_zero, y, low, high):
    """See the head of this file; relu: whether what is negative becomes 0 before it is quantized."""
    for i in range(y.shape[0]):
        scale, zero = filled(y_scale, y_scale[i]), filled(y_zero, y_zero[i])
        for j in range(0, y.shape[1], lanes(sums)):
            n = min(lanes(sums), y.shape[1] - j)
            total = integers_at(sums, address(sums) + i * sums.strides[0] + 4 * j, n)
            f = scaled(total, row_scale, column_scale, bias, i, j, n)
            f = select(f < 0.0, 0.0, f) if relu else f
            put_integers(y, address(y) + i * y.strides[0] + j, quantized(f, scale, zero, low, high), n)
