"""layer_norm and rms_norm in Numba, over a range of rows of n contiguous elements.

    layer_norm_range(x, weight, bias, eps, out, n, lo, hi)
    rms_norm_range(x, weight, eps, out, n, lo, hi)
    norm_backward_range(dy, x, weight, eps, centre, dx, dweight_parts, dbias_parts, n, rows, lo, hi)

Contiguous 1-D arrays of one dtype, float32 or float64. Serial, without the GIL, callable from other compiled code.
The deviation is taken in a second pass over the row, from the mean: exact where the mean is far above it.

Backward, lo and hi count blocks of BLOCK rows, each with a row of its own in dweight_parts and dbias_parts, whose
column sums are dweight and dbias: one pass over memory, and sums that no number of threads changes. centre:
layer_norm (else rms_norm, mean = 0).
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.vector import rows as r
from tilewright.kernels.vector.door import mapped
from tilewright.kernels.vector.host import inner, njit
from tilewright.kernels.vector.memory import filled, first_lanes, lanes, load_n, reduce_add, store_n
from tilewright.kernels.vector.ranges import GRAIN, Flat, compiled, flat, note_copies, run_rows, width
from tilewright.kernels.vector.simd import fma, select

BLOCK = 32  # rows in one partial sum


@inner
def moments(x, at, n, eps, centre):
    """(mean, 1 / sqrt(variance + eps)) of one row; the mean is 0 unless centre."""
    mean = r.row_sum(r.first, x, x, at, n, 0) / x.dtype.type(n) if centre else x.dtype.type(0)
    variance = r.row_sum(r.squared_deviation, x, x, at, n, mean) / x.dtype.type(n)
    return mean, x.dtype.type(1) / math.sqrt(variance + eps)


@njit
def layer_norm_range(x, weight, bias, eps, out, n, lo, hi):
    for row in range(lo, hi):
        at = row * n
        mean, scale = moments(x, at, n, eps, True)
        for j in range(0, n, lanes(x)):
            k = min(lanes(x), n - j)
            y = (load_n(x, at + j, k) - mean) * scale
            store_n(out, at + j, fma(y, load_n(weight, j, k), load_n(bias, j, k)), k)


@njit
def rms_norm_range(x, weight, eps, out, n, lo, hi):
    for row in range(lo, hi):
        at = row * n
        _, scale = moments(x, at, n, eps, False)
        for j in range(0, n, lanes(x)):
            k = min(lanes(x), n - j)
            store_n(out, at + j, load_n(x, at + j, k) * scale * load_n(weight, j, k), k)


@njit
def norm_backward_range(dy, x, weight, eps, centre, dx, dweight_parts, dbias_parts, n, rows, lo, hi):
    """dx = scale * (g - mean(g) - y * mean(g * y)), g = dy * weight, y = (x - mean) * scale; mean(g) only if centre."""
    w = lanes(x)
    dweight_parts[lo * n:hi * n] = 0
    dbias_parts[lo * n:hi * n] = 0
    for row in range(lo * BLOCK, min(hi * BLOCK, rows)):
        at, part = row * n, row // BLOCK * n
        mean, scale = moments(x, at, n, eps, centre != 0)
        sum_g, sum_gy = filled(x, 0.0), filled(x, 0.0)
        for j in range(0, n, w):
            k = min(w, n - j)
            d = load_n(dy, at + j, k)
            y = select(first_lanes(d, k), (load_n(x, at + j, k) - mean) * scale, 0.0)
            store_n(dweight_parts, part + j, fma(d, y, load_n(dweight_parts, part + j, k)), k)
            store_n(dbias_parts, part + j, d + load_n(dbias_parts, part + j, k), k)
            g = d * load_n(weight, j, k)
            sum_g, sum_gy = sum_g + g, fma(g, y, sum_gy)
        mean_g = reduce_add(sum_g) / x.dtype.type(n) if centre != 0 else x.dtype.type(0)
        mean_gy = reduce_add(sum_gy) / x.dtype.type(n)
        for j in range(0, n, w):
            k = min(w, n - j)
            y = (load_n(x, at + j, k) - mean) * scale
            g = load_n(dy, at + j, k) * load_n(weight, j, k)
            store_n(dx, at + j, (g - mean_g - y * mean_gy) * scale, k)


def _parameter(x: np.ndarray | None, n: int, value: float, dtype: np.dtype) -> np.ndarray:
    return np.full(n, value, dtype) if x is None else x


def _layer_norm(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, weight, bias = call.inputs
    n = x.shape[-1]
    inputs = (x, _parameter(weight, n, 1, x.dtype), _parameter(bias, n, 0, x.dtype), call.attrs["eps"])
    run_rows(layer_norm_range, "xxxfyiii", x.dtype, inputs, outs, x.shape)


def _rms_norm(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, weight = call.inputs
    inputs = (x, _parameter(weight, x.shape[-1], 1, x.dtype), call.attrs["eps"])
    run_rows(rms_norm_range, "xxfyiii", x.dtype, inputs, outs, x.shape)


def _backward(centre: bool) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        dy, x, weight = call.inputs
        n, rows = x.shape[-1], math.prod(x.shape[:-1])
        blocks = -(-rows // BLOCK)
        parts = [np.empty(blocks * n, x.dtype) for _ in range(2)]
        results = Flat(*outs)
        function = compiled(norm_backward_range, "xxxfiyyyiiii", x.dtype)
        arguments = (flat(dy), flat(x), flat(_parameter(weight, n, 1, x.dtype)), call.attrs["eps"], int(centre),
                     results.arrays[0], *parts, n, rows)
        run_ranges(lambda lo, hi: function(*arguments, lo, hi), blocks, max(1, GRAIN // (BLOCK * max(n, 1))))
        sums = compiled(r.column_sums_range, "xiiyii", x.dtype)
        for part, out in zip(parts, results.arrays[1:], strict=False):
            sums(part, blocks, n, out, 0, n)
        results.finish()
    return run


def _describe(call: Call) -> str:
    note_copies(call, ("dy", "x", "weight") if call.op.endswith("backward") else ("x", "weight", "bias"))
    return width(call.dtype)


KERNELS = [Kernel(op, "numba", run, describe=_describe) for op, run in (
    ("layer_norm", _layer_norm), ("rms_norm", _rms_norm),
    ("layer_norm_backward", _backward(True)), ("rms_norm_backward", _backward(False)))]

# The gradients take the long way: their partial sums want memory.
DOORS = {"layer_norm": mapped(layer_norm_range, "xxxfyiii", 0.2), "rms_norm": mapped(rms_norm_range, "xxfyiii", 0.13)}
