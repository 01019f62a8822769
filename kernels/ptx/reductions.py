"""Sums and largest elements along axes of arrays on a device, in one fixed order.

    over("sum", x, (0, 2), out)            x summed over these axes; "max" likewise, NaN where one is NaN

Rows, whose numbers are next to each other, are taken by teams (rows.py): a thread's numbers in order, then the team's
by shuffles. Where the neighbours lie in other axes (the sum of a matrix over its rows) a thread takes one line down:

    thread i      x[0, i] + x[1, i] + … + x[n - 1, i]      the threads of a warp read what lies side by side

Of what is longer than one of them takes, pieces come first and then their sums: no thread adds more than LINE numbers.
"""
from __future__ import annotations

import numpy as np

from tilewright.core import arrays

from . import elementwise, launch, maps, rows, warp
from .cuda import cuda, uint32, uint64
from .launch import blocks, kernel, specialise
from .maps import offset, thread_number

LINE = 128  # numbers of a thread that goes down a line
COMBINE = {"sum": warp.add, "max": warp.larger}
NOT_EMPTY = {"guard: for _ in range(n):": "n is at least 1: what has no elements is not launched"}
NEUTRAL = {"sum": 0.0, "max": -np.inf}


@specialise(("sum", "float32", "vector", "wide"), ("max", "float32", "scalar", "warp"),
            ("sum", "float64", "scalar", "block"))
def row_reduction(name: str, dtype: str, layout: str, size: str) -> launch.Kernel:
    """y[i] = the sum of row i"""
    real = rows.REAL[dtype]
    t, combine, neutral, store = rows.team(real, layout, size), COMBINE[name], real(NEUTRAL[name]), maps.STORE[real]
    items, read, all_of, number_type = t.items, t.read, t.sum if name == "sum" else t.max, t.real
    number, inside, lane_of, place = t.number, t.inside, t.lane, rows.place

    @kernel(f"r x, w y, {rows.COUNTS}, {rows.steps('x', 'y')}", threads=rows.threads_of(size))
    def row_reduction(x, y, count, rows, n, x0, x1, x2, y0, y1, y2):
        row, lane = number(), lane_of()
        part, v = cuda.shared.array(32, number_type), cuda.local.array(items, number_type)
        if inside(row, count):
            read(v, x + place(row, rows, x0, x1), uint32(0), lane, n, x2, neutral)
            total = neutral
            for k in range(items):
                total = combine(total, v[k])
            total = all_of(total, part)
            if lane == 0:
                store(y + place(row, rows, y0, y1), total)
    return row_reduction


@specialise(("sum", "float32"), ("max", "float64"))
def line_reduction(name: str, dtype: str) -> launch.Kernel:
    """y = x[0] + x[step] + … over n, for every element of y; step in bytes"""
    real = rows.REAL[dtype]
    combine, neutral, load, store = COMBINE[name], real(NEUTRAL[name]), maps.LOAD[real], maps.STORE[real]

    @kernel("r x, w y, u32 n, i64 step, u32 count, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, "
            "i64 y0, i64 y1, i64 y2", threads=maps.THREADS, harmless=NOT_EMPTY)
    def line_reduction(x, y, n, step, count, rows, columns, x0, x1, x2, y0, y1, y2):
        i = thread_number()
        if i < count:
            x += offset(i, rows, columns, x0, x1, x2)
            total = neutral
            for _ in range(n):
                total = combine(total, load(x))
                x += uint64(step)
            store(y + offset(i, rows, columns, y0, y1, y2), total)
    return line_reduction


def over(name: str, x: np.ndarray, axes: tuple[int, ...], out: np.ndarray) -> None:
    """out = x reduced over these axes, of which there is one at least; x has elements, out no gaps."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    x = x.transpose(*kept, *axes)
    if x.flags.c_contiguous:
        x = x.reshape(*out.shape, -1)
    while x.ndim > out.ndim + 1:
        partial = launch.scratch(x.shape[:-1], x.dtype)
        along(name, x, partial)
        x = partial
    along(name, x, out)


def along(name: str, x: np.ndarray, out: np.ndarray) -> None:
    """out (…) = x (…, n) reduced along its last axis."""
    n, dtype = x.shape[-1], arrays.name_of(x.dtype)
    down = any(size > 1 and abs(step) < abs(x.strides[-1])
               for size, step in zip(x.shape[:-1], x.strides[:-1], strict=True))
    piece = LINE if down else rows.SIZES["wide"][0] * rows.SIZES["wide"][1] // x.itemsize
    if n > piece:
        whole = n // piece
        partial = launch.scratch((*out.shape, blocks(n, piece)), x.dtype)
        along(name, x[..., :whole * piece].reshape(*out.shape, whole, piece), partial[..., :whole])
        if n % piece:
            along(name, x[..., whole * piece:], partial[..., whole])
        along(name, partial, out)
    elif down:
        _lines(name, dtype, x, out)
    else:
        _rows(name, dtype, x, out)


def _lines(name: str, dtype: str, x: np.ndarray, out: np.ndarray) -> None:
    for g in elementwise.strided(x[..., 0], out):
        line_reduction(name, dtype).launch(blocks(g.elements, maps.THREADS), *g.arrays, x.shape[-1], x.strides[-1],
                                           g.elements, *g.sizes[1:], *g.steps, reach=[(x, "r")])


def _rows(name: str, dtype: str, x: np.ndarray, out: np.ndarray) -> None:
    n = x.shape[-1]
    size = rows.size_for(n, x.itemsize)
    for part in elementwise.rows(x, out[..., None]):
        of_x = part._replace(arrays=part.arrays[:1], steps=part.steps[:3])
        layout = "vector" if of_x.vectors(16 // x.itemsize) else "scalar"
        row_reduction(name, dtype, layout, size).launch(
            blocks(part.total, rows.per_block(size)), *part.arrays, part.total, part.rows, n, *part.steps)
