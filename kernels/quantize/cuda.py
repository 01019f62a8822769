"""Conversions between float32 and small integers in CUDA.

Elements are taken over three axes with any strides. Where x and the result have contiguous rows at multiples of the
accesses, a thread takes four neighbours of a row (float32: 128 bits, bytes: a word; a warp asks for whole sectors of
both), else one element. Scale and zero point have the strides of their axis, 0 where one stands for all; one number
from the host comes along as an argument.

dynamic_quantize_linear is two launches: each block finds the range of a part; then, that of all, and converts.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.on_device import is_on_device
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.ptx import elementwise, warp
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, int64, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel, scratch, specialise
from tilewright.kernels.ptx.maps import THREADS, thread_number
from tilewright.kernels.ptx.warp import larger

from .cuda_elements import LOAD, STORE, dequantized, load_four, quantized, scale_at, store_four, zero_at
from .spec import INTEGERS

DEQUANTIZED = (*INTEGERS, "int32")
LANES = (1, 4)  # elements of a thread
MOST_BLOCKS = 512  # that find a range: two for each thread that takes their results together
SIGNATURE = ("u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, i64 s0, i64 s1, i64 s2, i64 z0, i64 z1, i64 z2, "
             "i64 y0, i64 y1, i64 y2")


@inline
def located(i, rows, columns, lanes):
    """Plane, row and first column of what thread i takes, and how many columns there are from there."""
    groups = uint32(uint32(columns + uint32(lanes - 1)) // uint32(lanes))
    across = uint32(i // groups)
    column = uint32(uint32(i % groups) * uint32(lanes))
    return int64(uint32(across // rows)), int64(uint32(across % rows)), int64(column), uint32(columns - column)


@inline
def offset(plane, row, column, step0, step1, step2):
    """Bytes from the first element to this one."""
    return uint64(plane * step0 + row * step1 + column * step2)


def _convert(one: Any, four: Any, lanes: int) -> Any:
    """What one thread does: one(x, y, scale, zero, low, high) to each element, or four(…) to four at once."""
    if lanes == 1:
        @inline
        def single(x, y, scales, zeros, left, s2, z2, x2, y2, scale, zero, low, high):
            one(x, y, scale_at(scales, uint64(0), scale), zero_at(zeros, uint64(0), zero), low, high)
        return single

    @inline
    def several(x, y, scales, zeros, left, s2, z2, x2, y2, scale, zero, low, high):
        a, b = uint64(s2), uint64(z2)
        if left >= uint32(4):
            s = (scale_at(scales, uint64(0), scale), scale_at(scales, a, scale),
                 scale_at(scales, uint64(a * uint64(2)), scale), scale_at(scales, uint64(a * uint64(3)), scale))
            z = (zero_at(zeros, uint64(0), zero), zero_at(zeros, b, zero), zero_at(zeros, uint64(b * uint64(2)), zero),
                 zero_at(zeros, uint64(b * uint64(3)), zero))
            four(x, y, s, z, low, high)
        else:
            one(x, y, scale_at(scales, uint64(0), scale), zero_at(zeros, uint64(0), zero), low, high)
            for i in range(1, 3):
                if uint32(i) < left:
                    at = uint64(i)
                    one(x + at * uint64(x2), y + at * uint64(y2), scale_at(scales, at * a, scale),
                        zero_at(zeros, at * b, zero), low, high)
    return several


def _elementwise(one: Any, four: Any, lanes: int):
    convert = _convert(one, four, lanes)

    @kernel(f"r x, r scales, r zeros, w y, f32 scale, i32 zero, i32 low, i32 high, {SIGNATURE}", threads=THREADS)
    def linear(x, scales, zeros, y, scale, zero, low, high, n, rows, columns, x0, x1, x2, s0, s1, s2, z0, z1, z2, y0,
               y1, y2):
        i = thread_number()
        if i < n:
            plane, row, column, left = located(i, rows, columns, lanes)
            convert(x + offset(plane, row, column, x0, x1, x2), y + offset(plane, row, column, y0, y1, y2),
                    scales + offset(plane, row, column, s0, s1, s2), zeros + offset(plane, row, column, z0, z1, z2),
                    left, s2, z2, x2, y2, scale, zero, low, high)
    return linear


@specialise(*((dtype, lanes) for dtype in INTEGERS for lanes in LANES))
def quantize(dtype: str, lanes: int):
    store, size = STORE[np.dtype(dtype).itemsize], np.dtype(dtype).itemsize
    put = store_four(8 * size)

    @inline
    def one(x, y, scale, zero, low, high):
        store(y, uint32(quantized(ptx.ldg_f32(x), scale, zero, low, high)))

    @inline
    def four(x, y, s, z, low, high):
        a, b, c, d = ptx.ldg_f32x4(x)
        put(y, quantized(a, s[0], z[0], low, high), quantized(b, s[1], z[1], low, high),
            quantized(c, s[2], z[2], low, high), quantized(d, s[3], z[3], low, high))
    return _elementwise(one, four, lanes)


@specialise(*((dtype, lanes) for dtype in DEQUANTIZED for lanes in LANES))
def dequantize(dtype: str, lanes: int):
    load, get = LOAD[dtype], load_four(dtype)

    @inline
    def one(x, y, scale, zero, low, high):
        ptx.stg_f32(y, dequantized(int32(load(x)), scale, zero))

    @inline
    def four(x, y, s, z, low, high):
        a, b, c, d = get(x)
        ptx.stg_f32x4(y, dequantized(a, s[0], z[0]), dequantized(b, s[1], z[1]), dequantized(c, s[2], z[2]),
                      dequantized(d, s[3], z[3]))
    return _elementwise(one, four, lanes)


# ---- the range of x

@specialise(*((lanes,) for lanes in LANES))
def extent(lanes: int):
    """max(0, x) and max(0, -x) of each block, NaN where x has one."""
    if lanes == 1:
        @inline
        def add(x, left, x2, high, low):
            v = ptx.ldg_f32(x)
            return larger(v, high), larger(-v, low)
    else:
        @inline
        def add(x, left, x2, high, low):
            if left >= uint32(4):
                a, b, c, d = ptx.ldg_f32x4(x)
                return (larger(d, larger(c, larger(b, larger(a, high)))),
                        larger(-d, larger(-c, larger(-b, larger(-a, low)))))
            for i in range(3):  # of fewer the last again
                v = ptx.ldg_f32(x + uint64(min(uint32(i), uint32(left - uint32(1)))) * uint64(4))
                high, low = larger(v, high), larger(-v, low)
            return high, low

    @kernel("r x, w ends, u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2", threads=THREADS)
    def extent(x, ends, n, rows, columns, x0, x1, x2):
        part, other = cuda.shared.array(32, float32), cuda.shared.array(32, float32)
        high, low = float32(0), float32(0)
        i = thread_number()
        while i < n:
            plane, row, column, left = located(i, rows, columns, lanes)
            high, low = add(x + offset(plane, row, column, x0, x1, x2), left, x2, high, low)
            i = uint32(i + uint32(uint32(cuda.gridDim.x) * uint32(THREADS)))
        high, low = warp.block_max(high, part, float32(0)), warp.block_max(low, other, float32(0))
        if uint32(cuda.threadIdx.x) == uint32(0):
            ptx.stg_f32x2(ends + uint64(uint32(cuda.blockIdx.x)) * uint64(8), high, low)
    return extent


@specialise(*((lanes,) for lanes in LANES))
def dynamic(lanes: int):
    """x as uint8 over the range that `count` ends make up, which is the same in every block."""
    put = store_four(8)

    @inline
    def converted(x, scale, zero):
        return quantized(x, scale, zero, int32(0), int32(255)) if scale == scale else int32(0)

    @inline
    def one(x, y, scale, zero, low, high):
        ptx.stg_u8(y, uint32(converted(ptx.ldg_f32(x), scale, zero)))

    @inline
    def four(x, y, s, z, low, high):
        a, b, c, d = ptx.ldg_f32x4(x)
        put(y, converted(a, s[0], z[0]), converted(b, s[0], z[0]), converted(c, s[0], z[0]), converted(d, s[0], z[0]))
    convert = _convert(one, four, lanes)

    @kernel("r x, r ends, w y, w y_scale, w y_zero, u32 count, u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, "
            "i64 y0, i64 y1, i64 y2", threads=THREADS)
    def dynamic(x, ends, y, y_scale, y_zero, count, n, rows, columns, x0, x1, x2, y0, y1, y2):
        part, other = cuda.shared.array(32, float32), cuda.shared.array(32, float32)
        high, low = float32(0), float32(0)
        j = uint32(cuda.threadIdx.x)
        while j < count:
            a, b = ptx.ldg_f32x2(ends + uint64(j) * uint64(8))
            high, low = larger(a, high), larger(b, low)
            j = uint32(j + uint32(THREADS))
        high, low = warp.block_max(high, part, float32(0)), warp.block_max(low, other, float32(0))
        scale = ptx.div_rn(ptx.add_rn(high, low), float32(255))
        scale = scale if scale != float32(0) else float32(1)
        good = scale < float32(np.inf)
        scale = scale if good else float32(np.nan)
        z = ptx.div_rn(low, scale)
        zero = int32(ptx.rint_f32(z if z < float32(255) else float32(255))) if good else int32(0)
        i = thread_number()
        if i == uint32(0):
            ptx.stg_f32(y_scale, scale)
            ptx.stg_u8(y_zero, uint32(zero))
        if i < n:
            plane, row, column, left = located(i, rows, columns, lanes)
            convert(x + offset(plane, row, column, x0, x1, x2), y + offset(plane, row, column, y0, y1, y2),
                    uint64(0), uint64(0), left, int64(0), int64(0), x2, y2, scale, zero, int32(0), int32(255))
    return dynamic


# ---- from Python

def _lanes(*given: tuple[np.ndarray, tuple[int, ...]]) -> int:
    """Four where rows of these arrays, each with its steps along three axes, can be read four elements at a time."""
    for x, steps in given:
        size = x.itemsize
        whole = all(at % (4 * size) == 0 for at in (arrays.address(x), *steps[:2]))
        if steps[2] != size or not whole:
            return 1
    return 4


def _of_three(g: elementwise.Strided) -> list[tuple[int, ...]]:
    return [g.steps[i:i + 3] for i in range(0, len(g.steps), 3)]


def _threads(g: elementwise.Strided, lanes: int) -> int:
    return g.sizes[0] * g.sizes[1] * blocks(g.sizes[2], lanes)


def lean(p: np.ndarray) -> tuple[np.ndarray | None, Any]:
    """A scale or a zero point without its repetitions, for a launch; one number of the host by itself."""
    once = p[(*(slice(0, 1) if step == 0 else slice(None) for step in p.strides), ...)]  # ... or () would read a number
    if once.size == 1 and not is_on_device(once):
        return None, once.reshape(())[()]
    return once, 0


def _linear(make: Any, dtype: np.dtype, call: Call, y: np.ndarray) -> None:
    if y.size == 0:
        return
    low, high = call.attrs.get("low", 0), call.attrs.get("high", 0)
    for g in elementwise.strided(*call.inputs, y):
        (x, scale, zero, out), steps = g.arrays, _of_three(g)
        lanes = _lanes((x, steps[0]), (out, steps[3]))
        (scales, one_scale), (zeros, one_zero) = lean(scale), lean(zero)
        n = _threads(g, lanes)
        make(arrays.name_of(dtype), lanes).launch(
            blocks(n, THREADS), x, scales, zeros, out, one_scale, one_zero, low, high, n, *g.sizes[1:], *g.steps)


def _quantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    _linear(quantize, outs[0].dtype, call, outs[0])


def _dequantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    _linear(dequantize, call.inputs[0].dtype, call, outs[0])


def _dynamic(call: Call, outs: Sequence[np.ndarray]) -> None:
    y, y_scale, y_zero = outs
    parts = list(elementwise.strided(call.inputs[0], y)) if y.size else [
        elementwise.Strided((y, y), 0, (1, 1, 1), (0,) * 6)]
    each = max(1, MOST_BLOCKS // len(parts))
    found = []  # of each part: lanes, threads
    for g in parts:
        (x, out), (at_x, at_y) = g.arrays, _of_three(g)
        lanes = _lanes((x, at_x), (out, at_y))
        found.append((lanes, _threads(g, lanes) if g.elements else 0))
    grids = [min(each, max(1, blocks(n, THREADS))) for _, n in found]
    ends = scratch((sum(grids), 2), np.float32)
    for at, g, (lanes, n), grid in zip(np.cumsum([0, *grids]), parts, found, grids, strict=False):
        extent(lanes).launch(grid, g.arrays[0], ends[int(at):], n, *g.sizes[1:], *g.steps[:3])
    for g, (lanes, n) in zip(parts, found, strict=True):
        dynamic(lanes).launch(max(1, blocks(n, THREADS)), g.arrays[0], ends, g.arrays[1], y_scale, y_zero, sum(grids),
                              n, *g.sizes[1:], *g.steps)


def _describe(call: Call) -> str:
    x = call.inputs[0]
    return "128 bits of float32 a thread" if elementwise.flat(x) else "an element a thread, or four where rows allow"


KERNELS = [
    Kernel("quantize_linear", "cuda", _quantize, dtypes=INTEGERS, describe=_describe),
    Kernel("dequantize_linear", "cuda", _dequantize, dtypes=DEQUANTIZED, describe=_describe),
    Kernel("dynamic_quantize_linear", "cuda", _dynamic, dtypes=("float32",), describe=_describe),
]
