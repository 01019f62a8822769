"""Rows of arrays: a team of threads takes one, and holds its numbers in registers where they fit.

    t = team(np.float32, "vector", "warp")     t.number(), t.inside(number, count), t.lane(), t.read, t.write, t.add,
                                               t.sum, t.max: device functions
    run(softmax, x, out)                       host side: the specialisation for these arrays, and its launch

    size     threads of a row      numbers of a thread, float32 / float64      rows up to
    warp     32, of a block of 128    8 / 4                                     256 / 128
    block    128                      8 / 4                                    1024 / 512
    wide     256                     16 / 8                                    4096 / 2048
    long     256                     16 / 8 at a time                          any: what is needed again is read again

    layout   numbers of an access      number v[k] of thread t in a piece of the row
    vector   4 / 2, 128 bits           (k / lanes * threads + t) * lanes + k % lanes
    scalar   1, any step               k * threads + t

A kernel is one source for all sizes: it goes over the pieces of a row, one unless the row is long and never none,
and reads a piece again only where `t.held` is False. Sums add a thread's numbers in order, then the team's by shuffles.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

from tilewright.core import arrays as host

from . import elementwise, launch, warp
from . import intrinsics as ptx
from .cuda import cuda, float32, float64, inline, int64, uint32, uint64
from .launch import Specialised, blocks
from .maps import LOAD, STORE

REAL: dict[str, Any] = {"float32": np.float32, "float64": np.float64}
NUMBA = {np.float32: float32, np.float64: float64}
LEAST = 128  # threads of a block
SIZES = {"warp": (32, 32), "block": (128, 32), "wide": (256, 64), "long": (256, 64)}  # threads, bytes of a thread
LAYOUTS = ("vector", "scalar")
EXAMPLES = list(product(REAL, LAYOUTS, SIZES))
# of every kernel of rows: how many, how many of a plane, how long, and the steps of each array
COUNTS = "u32 count, u32 rows, u32 n"


def steps(*names: str) -> str:
    """The arguments of a signature for arrays: steps from plane to plane, from row to row, along a row."""
    return ", ".join(f"i64 {name}{i}" for name in names for i in range(3))


def lanes_of(real: Any, layout: str) -> int:
    """Numbers of one access."""
    return 16 // np.dtype(real).itemsize if layout == "vector" else 1


def threads_of(size: str) -> int:
    """Threads of a block."""
    return max(SIZES[size][0], LEAST)


@inline
def place(number, rows, plane_step, row_step):
    """Bytes from the first row to row `number`."""
    plane = number // rows
    row = uint32(number - uint32(plane * rows))
    return uint64(int64(plane) * plane_step + int64(row) * row_step)


@cache
def team(real: Any, layout: str, size: str) -> SimpleNamespace:
    """The device functions for one size and layout; `items` numbers a thread, `piece` numbers of a row at a time."""
    threads, numbers = SIZES[size]
    itemsize = np.dtype(real).itemsize
    items, lanes = numbers // itemsize, lanes_of(real, layout)
    held, piece, ahead = size != "long", threads * items, threads * lanes
    sure = _longest(size) // itemsize // ahead if held else 0
    read, write, add = (_vectors if layout == "vector" else _scalars)(real, items, ahead, sure)

    @inline
    def end(n):
        """Where the pieces end"""
        return uint32(piece) if held else n

    @inline
    def index(first, lane, k):
        """Where in the row number k of a piece lies"""
        i = uint32(uint32(first + uint32(lane * uint32(lanes))) + uint32(uint32(k // lanes) * uint32(ahead)))
        return uint32(i + uint32(k % lanes))

    if size == "warp":
        def lane():
            return uint32(uint32(cuda.threadIdx.x) & uint32(31))

        def number():
            return uint32(uint32(uint32(cuda.blockIdx.x) * uint32(LEAST // 32)) + uint32(cuda.threadIdx.x >> uint32(5)))

        def total(x, part):
            return warp.warp_sum(x)

        def inside(row, count):
            return row < count

        def largest(x, part):
            return warp.warp_max(x)
    else:
        zero, low = real(0), real(-np.inf)

        def lane():
            return uint32(cuda.threadIdx.x)

        def number():
            return uint32(cuda.blockIdx.x)

        def total(x, part):
            return warp.block_sum(x, part, zero)

        def inside(row, count):
            return True

        def largest(x, part):
            return warp.block_max(x, part, low)

    return SimpleNamespace(real=NUMBA[real], items=items, piece=piece, held=held, end=end, index=index,
                           read=read, write=write, add=add, lane=inline(lane), number=inline(number),
                           inside=inline(inside), sum=inline(total), max=inline(largest))


def _longest(size: str) -> int:
    """Bytes that the next smaller size holds: rows of this one are longer."""
    order = list(SIZES)
    threads, numbers = SIZES[order[order.index(size) - 1]] if size != order[0] else (0, 0)
    return threads * numbers


def _scalars(real: Any, items: int, ahead: int, sure: int) -> tuple[Any, Any, Any]:
    """read, write and add for any step; the first `sure` accesses of a thread are within every row"""
    load, store = LOAD[real], STORE[real]

    @inline
    def read(v, x, first, lane, n, step, fill):
        """A piece of the row at x into v; beyond the row, fill"""
        for k in range(items):
            i = uint32(uint32(first + lane) + uint32(uint32(k) * uint32(ahead)))
            v[k] = load(x + uint64(int64(i) * step)) if k < sure or i < n else fill

    @inline
    def write(v, y, first, lane, n, step):
        """A piece of the row at y from v"""
        for k in range(items):
            i = uint32(uint32(first + lane) + uint32(uint32(k) * uint32(ahead)))
            if k < sure or i < n:
                store(y + uint64(int64(i) * step), v[k])

    @inline
    def add(v, y, first, lane, n, step, begun):
        """write v, and what is there if that has begun"""
        for k in range(items):
            i = uint32(uint32(first + lane) + uint32(uint32(k) * uint32(ahead)))
            if k < sure or i < n:
                at = y + uint64(int64(i) * step)
                if begun != uint32(0):
                    v[k] += load(at)
                store(at, v[k])
    return read, write, add


def _vectors(real: Any, items: int, ahead: int, sure: int) -> tuple[Any, Any, Any]:
    """read, write and add for rows at multiples of 16 bytes, whose lengths are too"""
    get, put = (get_f32, put_f32) if real is np.float32 else (get_f64, put_f64)
    lanes, number = lanes_of(real, "vector"), NUMBA[real]
    size = np.dtype(real).itemsize

    @inline
    def read(v, x, first, lane, n, step, fill):
        for j in range(items // lanes):
            i = uint32(uint32(first + uint32(lane * uint32(lanes))) + uint32(uint32(j) * uint32(ahead)))
            if j < sure or i < n:
                get(v, j * lanes, x + uint64(i) * uint64(size))
            else:
                for k in range(lanes):
                    v[j * lanes + k] = fill

    @inline
    def write(v, y, first, lane, n, step):
        for j in range(items // lanes):
            i = uint32(uint32(first + uint32(lane * uint32(lanes))) + uint32(uint32(j) * uint32(ahead)))
            if j < sure or i < n:
                put(v, j * lanes, y + uint64(i) * uint64(size))

    @inline
    def add(v, y, first, lane, n, step, begun):
        old = cuda.local.array(items, number)
        for j in range(items // lanes):
            i = uint32(uint32(first + uint32(lane * uint32(lanes))) + uint32(uint32(j) * uint32(ahead)))
            if j < sure or i < n:
                at = y + uint64(i) * uint64(size)
                if begun != uint32(0):
                    get(old, j * lanes, at)
                    for k in range(lanes):
                        v[j * lanes + k] += old[j * lanes + k]
                put(v, j * lanes, at)
    return read, write, add


@inline
def get_f32(v, k, x):
    v[k], v[k + 1], v[k + 2], v[k + 3] = ptx.ldg_f32x4(x)


@inline
def put_f32(v, k, y):
    ptx.stg_f32x4(y, v[k], v[k + 1], v[k + 2], v[k + 3])


@inline
def get_f64(v, k, x):
    v[k], v[k + 1] = ptx.ldg_f64x2(x)


@inline
def put_f64(v, k, y):
    ptx.stg_f64x2(y, v[k], v[k + 1])


# ---- host side

def size_for(n: int, itemsize: int) -> str:
    """The smallest size that holds a row of n numbers."""
    return next((size for size, (threads, numbers) in SIZES.items() if n * itemsize <= threads * numbers), "long")


def per_block(size: str) -> int:
    """Rows of a block."""
    return threads_of(size) // SIZES[size][0]


def describe(*arrays: np.ndarray) -> str:
    """How rows of these arrays would be taken, in a few words."""
    x = arrays[0]
    parts = list(elementwise.rows(*arrays)) if x.size else []
    access = "128-bit accesses" if all(p.vectors(16 // x.itemsize) for p in parts) else "any strides"
    return f"{size_for(x.shape[-1], x.itemsize)} rows, {access}"


def chosen(kernel: Specialised, part: elementwise.Rows, along: Sequence[np.ndarray | None] = ()) -> launch.Kernel:
    """The specialisation (dtype, layout, size) that rows want, by the last array; along: what is as long as a row."""
    x = part.arrays[-1]
    vectors = part.vectors(16 // x.itemsize) and all(
        v is None or (v.strides[0] == x.itemsize and host.address(v) % elementwise.ALIGNMENT == 0) for v in along)
    return kernel(host.name_of(x.dtype), "vector" if vectors else "scalar", size_for(x.shape[-1], x.itemsize))


def run(kernel: Specialised, *arrays: np.ndarray, others: Sequence[Any] = (),
        along: Sequence[np.ndarray | None] = ()) -> None:
    """Launch a kernel of rows on arrays (..., n).

    Its arguments are the arrays, those along a row, their steps, others as they are, COUNTS and `steps`.
    """
    x = arrays[-1]
    if x.size == 0:
        return
    n = x.shape[-1]
    for part in elementwise.rows(*arrays):
        chosen(kernel, part, along).launch(
            blocks(part.total, per_block(size_for(n, x.itemsize))), *part.arrays, *along, *steps_along(along), *others,
            part.total, part.rows, n, *part.steps)


def steps_along(along: Sequence[np.ndarray | None]) -> tuple[int, ...]:
    """The steps of what has the length of a row, or is None."""
    return tuple(0 if v is None else v.strides[0] for v in along)
