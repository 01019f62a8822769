"""Kernels that apply a device function to the elements of one or two arrays: y = f(x, p), z = f(x, y, p).

Flat kernels, for vectors without gaps at multiples of 16 bytes; n numbers, lanes of them to 16 bytes:

    thread i      0        1        2      …        the last one
    elements      0…3      4…7      8…11   …        the 0 to 3 that are left (float64: pairs, and 0 or 1)

One 128-bit access an operand and thread: a multiprocessor full of such threads has more bytes under way than memory
needs to be busy, so that several a thread gain nothing. Strided kernels take all else, an element a thread, over three
axes with any strides. Results may lie where an operand lies: each element is read, then written, by one thread.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import elementwise
from . import intrinsics as ptx
from .bars import Bars
from .cuda import cuda, inline, int64, uint32, uint64
from .launch import Kernel, blocks, kernel

THREADS = 256
FLAT = Bars(widest=128, sectors=1.0)
TAIL = {"guard 2: for _ in range(n - whole * uint32(lanes)):":
        "the compiler takes turns of the loop in fours and skips the rest where there is none; here there is some, the "
        "loop being of one to three turns"}
NUMBER = {np.float32: "f32", np.float64: "f64"}
LOAD = {np.float32: ptx.ldg_f32, np.float64: ptx.ldg_f64}
STORE = {np.float32: ptx.stg_f32, np.float64: ptx.stg_f64}


@inline
def thread_number():
    """Of this thread in the grid, blocks having THREADS."""
    return uint32(uint32(cuda.blockIdx.x) * uint32(THREADS) + uint32(cuda.threadIdx.x))


@inline
def offset(i, rows, columns, planes_step, rows_step, columns_step):
    """Bytes from the first element to element i of an array over planes, rows and columns."""
    across, column = i // columns, i % columns
    plane, row = across // rows, across % rows
    return uint64(int64(plane) * planes_step + int64(row) * rows_step + int64(column) * columns_step)


def flat_unary(f: Any, real: Any) -> Kernel:
    """y = f(x, p) for n numbers."""
    load, store, lanes, size = LOAD[real], STORE[real], 16 // real().itemsize, real().itemsize
    wide = (_wide_unary_f32 if real is np.float32 else _wide_unary_f64)(f)

    @kernel(f"r x, w y, {NUMBER[real]} p, u32 n", threads=THREADS, bars=FLAT, harmless=TAIL)
    def flat_unary(x, y, p, n):
        i = thread_number()
        whole = n // uint32(lanes)
        at = uint64(i) * uint64(16)
        if i < whole:
            wide(x + at, y + at, p)
        elif i == whole:
            for _ in range(n - whole * uint32(lanes)):
                store(y + at, f(load(x + at), p))
                at += uint64(size)
    return flat_unary


def flat_binary(f: Any, real: Any) -> Kernel:
    """z = f(x, y, p) for n numbers."""
    load, store, lanes, size = LOAD[real], STORE[real], 16 // real().itemsize, real().itemsize
    wide = (_wide_binary_f32 if real is np.float32 else _wide_binary_f64)(f)

    @kernel(f"r x, r y, w z, {NUMBER[real]} p, u32 n", threads=THREADS, bars=FLAT, harmless=TAIL)
    def flat_binary(x, y, z, p, n):
        i = thread_number()
        whole = n // uint32(lanes)
        at = uint64(i) * uint64(16)
        if i < whole:
            wide(x + at, y + at, z + at, p)
        elif i == whole:
            for _ in range(n - whole * uint32(lanes)):
                store(z + at, f(load(x + at), load(y + at), p))
                at += uint64(size)
    return flat_binary


def strided_unary(f: Any, real: Any) -> Kernel:
    """y = f(x, p) over three axes; of each array the steps along them in bytes."""
    load, store = LOAD[real], STORE[real]

    @kernel(f"r x, w y, {NUMBER[real]} p, u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, i64 y0, i64 y1, i64 y2",
            threads=THREADS)
    def strided_unary(x, y, p, n, rows, columns, x0, x1, x2, y0, y1, y2):
        i = thread_number()
        if i < n:
            store(y + offset(i, rows, columns, y0, y1, y2), f(load(x + offset(i, rows, columns, x0, x1, x2)), p))
    return strided_unary


def strided_binary(f: Any, real: Any) -> Kernel:
    """z = f(x, y, p) over three axes; of each array the steps along them in bytes."""
    load, store = LOAD[real], STORE[real]

    @kernel(f"r x, r y, w z, {NUMBER[real]} p, u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, "
            "i64 y0, i64 y1, i64 y2, i64 z0, i64 z1, i64 z2", threads=THREADS)
    def strided_binary(x, y, z, p, n, rows, columns, x0, x1, x2, y0, y1, y2, z0, z1, z2):
        i = thread_number()
        if i < n:
            left = load(x + offset(i, rows, columns, x0, x1, x2))
            right = load(y + offset(i, rows, columns, y0, y1, y2))
            store(z + offset(i, rows, columns, z0, z1, z2), f(left, right, p))
    return strided_binary


def run(flat: Callable[[], Kernel], strided: Callable[[], Kernel], arrays: tuple[np.ndarray, ...], p: float) -> None:
    """Apply one of two kernels to arrays of one shape, the result last."""
    if arrays[-1].size == 0:
        return
    if vectors := elementwise.flat(*arrays):
        each = THREADS * (elementwise.ALIGNMENT // arrays[-1].itemsize)
        for part in vectors:
            flat().launch(blocks(part[-1].size, each), *part, p, part[-1].size)
        return
    for g in elementwise.strided(*arrays):
        strided().launch(blocks(g.elements, THREADS), *g.arrays, p, g.elements, *g.sizes[1:], *g.steps)


def _wide_unary_f32(f: Any) -> Any:
    @inline
    def wide(x, y, p):
        a, b, c, d = ptx.ldg_f32x4(x)
        ptx.stg_f32x4(y, f(a, p), f(b, p), f(c, p), f(d, p))
    return wide


def _wide_unary_f64(f: Any) -> Any:
    @inline
    def wide(x, y, p):
        a, b = ptx.ldg_f64x2(x)
        ptx.stg_f64x2(y, f(a, p), f(b, p))
    return wide


def _wide_binary_f32(f: Any) -> Any:
    @inline
    def wide(x, y, z, p):
        a, b, c, d = ptx.ldg_f32x4(x)
        e, g, h, i = ptx.ldg_f32x4(y)
        ptx.stg_f32x4(z, f(a, e, p), f(b, g, p), f(c, h, p), f(d, i, p))
    return wide


def _wide_binary_f64(f: Any) -> Any:
    @inline
    def wide(x, y, z, p):
        a, b = ptx.ldg_f64x2(x)
        c, d = ptx.ldg_f64x2(y)
        ptx.stg_f64x2(z, f(a, c, p), f(b, d, p))
    return wide
