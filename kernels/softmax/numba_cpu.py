"""softmax and log_softmax in Numba, over a range of rows.

    softmax_range(x, out, n, lo, hi)                 rows lo ... hi - 1 of n elements each
    softmax_backward_range(dy, y, out, n, lo, hi)    y: what the forward pass gave;  the same two for log_softmax

Contiguous 1-D arrays of one dtype, float32 or float64. Serial, without the GIL, callable from other compiled code.
A row is read three times (maximum, exponentials and their sum, scale) and stays in the cache between.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.vector import rows, vmath
from tilewright.kernels.vector.door import mapped
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.memory import filled, first_lanes, lanes, load, load_n, reduce_add, store, store_n
from tilewright.kernels.vector.ranges import note_copies, run_rows, width
from tilewright.kernels.vector.simd import select


@njit
def softmax_range(x, out, n, lo, hi):
    w = lanes(x)
    for row in range(lo, hi):
        at, end = row * n, (row + 1) * n
        top = rows.row_max(x, at, n)
        total = filled(x, 0.0)
        i = at
        while end - i >= w:
            e = vmath.exp(load(x, i) - top)
            store(out, i, e)
            total = total + e
            i += w
        if i < end:
            e = vmath.exp(load_n(x, i, end - i) - top)
            store_n(out, i, e, end - i)
            total = total + select(first_lanes(e, end - i), e, 0.0)
        scale = 1 / reduce_add(total)
        for i in range(at, end, w):
            k = min(w, end - i)
            store_n(out, i, load_n(out, i, k) * scale, k)


@njit
def log_softmax_range(x, out, n, lo, hi):
    w = lanes(x)
    for row in range(lo, hi):
        at, end = row * n, (row + 1) * n
        top = rows.row_max(x, at, n)
        log_sum = math.log(rows.row_sum(rows.shifted_exp, x, x, at, n, top))
        for i in range(at, end, w):
            k = min(w, end - i)
            store_n(out, i, load_n(x, i, k) - top - log_sum, k)


@njit
def softmax_backward_range(dy, y, out, n, lo, hi):
    w = lanes(y)
    for row in range(lo, hi):
        at, end = row * n, (row + 1) * n
        mean = rows.row_sum(rows.product, dy, y, at, n, 0)
        for i in range(at, end, w):
            k = min(w, end - i)
            store_n(out, i, load_n(y, i, k) * (load_n(dy, i, k) - mean), k)


@njit
def log_softmax_backward_range(dy, y, out, n, lo, hi):
    w = lanes(y)
    for row in range(lo, hi):
        at, end = row * n, (row + 1) * n
        total = rows.row_sum(rows.first, dy, dy, at, n, 0)
        for i in range(at, end, w):
            k = min(w, end - i)
            store_n(out, i, load_n(dy, i, k) - vmath.exp(load_n(y, i, k)) * total, k)


def _runner(kernel: Any, letters: str) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        run_rows(kernel, letters, call.dtype, call.inputs, outs, call.inputs[0].shape)
    return run


def _describe(call: Call) -> str:
    note_copies(call, ("x",) if len(call.inputs) == 1 else ("dy", "y"))
    return width(call.dtype)


# name, kernel, letters, about what one float32 takes in nanoseconds
TABLE = (("softmax", softmax_range, "xyiii", 0.25), ("log_softmax", log_softmax_range, "xyiii", 0.25),
         ("softmax_backward", softmax_backward_range, "xxyiii", 0.15),
         ("log_softmax_backward", log_softmax_backward_range, "xxyiii", 0.25))
KERNELS = [Kernel(op, "numba", _runner(kernel, letters), describe=_describe) for op, kernel, letters, _ in TABLE]
DOORS = {op: mapped(kernel, letters, ns) for op, kernel, letters, ns in TABLE}
