"""softmax and log_softmax in CUDA, and their gradients: one pass over memory where a row fits into registers.

How a row is taken stands in kernels/ptx/rows.py. `first` counts through the pieces of a row: one, unless it is long.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.ptx import launch, rows, vmath
from tilewright.kernels.ptx.cuda import cuda, uint32
from tilewright.kernels.ptx.launch import Specialised, kernel, specialise

from .cuda_rows import row_functions


def _forward(log: bool, dtype: str, layout: str, size: str) -> launch.Kernel:
    """y = e^(x - max) / sum, or for log_softmax y = x - max - log sum"""
    t, maximum, exponentials = row_functions(dtype, layout, size, keep=log)
    m, low = vmath.functions(rows.REAL[dtype]), rows.REAL[dtype](-np.inf)
    exp, of_sum = m.exp, m.log_from_one if log else m.recip
    items, held, piece, read, write, end = t.items, t.held, t.piece, t.read, t.write, t.end
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real

    @kernel(f"r x, w y, {rows.COUNTS}, {rows.steps('x', 'y')}", threads=rows.threads_of(size))
    def forward(x, y, count, rows, n, x0, x1, x2, y0, y1, y2):
        row, lane = number(), lane_of()
        part, other = cuda.shared.array(32, number_type), cuda.shared.array(32, number_type)
        v = cuda.local.array(items, number_type)
        if inside(row, count):
            x += place(row, rows, x0, x1)
            y += place(row, rows, y0, y1)
            top = maximum(v, x, lane, n, x2, part)
            last = of_sum(exponentials(v, x, lane, n, x2, top, other))
            first = uint32(0)
            while True:
                if not held:
                    read(v, x, first, lane, n, x2, low)
                for k in range(items):
                    v[k] = v[k] - top - last if log else (v[k] if held else exp(v[k] - top)) * last
                write(v, y, first, lane, n, y2)
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
    return forward


@specialise(*rows.EXAMPLES)
def softmax(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _forward(False, dtype, layout, size)


@specialise(*rows.EXAMPLES)
def log_softmax(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _forward(True, dtype, layout, size)


def _backward(log: bool, dtype: str, layout: str, size: str) -> launch.Kernel:
    """dx = y (dy - sum dy y), or for log_softmax dx = dy - e^y sum dy"""
    real = rows.REAL[dtype]
    t, exp, zero = rows.team(real, layout, size), vmath.functions(real).exp, real(0)
    items, held, piece, read, write, end, team_sum = t.items, t.held, t.piece, t.read, t.write, t.end, t.sum
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real

    @kernel(f"r dy, r y, w dx, {rows.COUNTS}, {rows.steps('d', 'y', 'x')}", threads=rows.threads_of(size))
    def backward(dy, y, dx, count, rows, n, d0, d1, d2, y0, y1, y2, x0, x1, x2):
        row, lane = number(), lane_of()
        part = cuda.shared.array(32, number_type)
        v, w = cuda.local.array(items, number_type), cuda.local.array(items, number_type)
        if inside(row, count):
            dy += place(row, rows, d0, d1)
            y += place(row, rows, y0, y1)
            dx += place(row, rows, x0, x1)
            total, first = zero, uint32(0)
            while True:
                read(v, dy, first, lane, n, d2, zero)
                if held or not log:
                    read(w, y, first, lane, n, y2, zero)
                for k in range(items):
                    total += v[k] if log else v[k] * w[k]
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
            total = team_sum(total, part)
            first = uint32(0)
            while True:
                if not held:
                    read(v, dy, first, lane, n, d2, zero)
                    read(w, y, first, lane, n, y2, zero)
                for k in range(items):
                    v[k] = v[k] - exp(w[k]) * total if log else w[k] * (v[k] - total)
                write(v, dx, first, lane, n, x2)
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
    return backward


@specialise(*rows.EXAMPLES)
def softmax_backward(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _backward(False, dtype, layout, size)


@specialise(*rows.EXAMPLES)
def log_softmax_backward(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _backward(True, dtype, layout, size)


def _run(kernel: Specialised) -> Callable[[Call, Sequence[np.ndarray]], None]:
    return lambda call, outs: rows.run(kernel, *call.inputs, *outs)


KERNELS = [Kernel(op, "cuda", _run(kernel), describe=lambda call: rows.describe(*call.inputs)) for op, kernel in (
    ("softmax", softmax), ("log_softmax", log_softmax),
    ("softmax_backward", softmax_backward), ("log_softmax_backward", log_softmax_backward))]
