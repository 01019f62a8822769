"""Operands of products copied so that cuda_tile.py and cuda_tensor.py can load 16 bytes at a time.

    y         (planes, rows, k), neighbours along k; rows begin at multiples of 16 bytes and are filled up with zeros
    block     a tile of 32 rows by 32 of k, through shared memory: read along that axis of x which is the nearer one
    "tf32"    float32 rounded to the 11 bits that tensor cores read; bfloat16 can become float32, where there are none
"""
from __future__ import annotations

import numpy as np

from tilewright.core import arrays
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, inline, int64, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, blocks, kernel, scratch, specialise

from .cuda_numbers import numbers
from .cuda_tile import lesser

SIDE, LINE = 32, 33  # a row of the tile more than the banks, so that columns lie in different ones

EITHER_WAY = "the compiler makes two loops of it, for x along k and across; both bring the whole tile, in another order"


@inline
def _to_tf32(x):
    return ptx.bits_f32(ptx.tf32(x))


@inline
def _same(x):
    return x


@specialise(("float32", "float32"), ("float64", "float64"), ("float16", "float16"), ("bfloat16", "bfloat16"),
            ("bfloat16", "float32"), ("float32", "tf32"))
def pack(dtype: str, kept: str) -> Kernel:
    n, to = numbers(dtype), numbers("float32" if kept == "tf32" else kept)
    real, zero, size, lanes = n.type, n.real(0), to.size, to.lanes
    load, store_wide, rounded = n.load_nc, to.store_wide, _to_tf32 if kept == "tf32" else _same

    @kernel("r x, w y, u32 rows, u32 k, u32 padded, i64 x_z, i64 x_r, i64 x_k, i64 y_z, i64 y_r", threads=256,
            needs=(8, 0) if kept == "tf32" else (7, 5), harmless={
                "guard: for j in range(4):": EITHER_WAY, "guard 2: for j in range(4):": EITHER_WAY})
    def pack(x, y, rows, k, padded, x_z, x_r, x_k, y_z, y_r):
        room = cuda.shared.array((SIDE, LINE), real)
        v = cuda.local.array(lanes, real)
        t, tiles = uint32(cuda.threadIdx.x), uint32(uint32(padded + uint32(SIDE - 1)) // uint32(SIDE))
        row = uint32(uint32(uint32(cuda.blockIdx.x) // tiles) * uint32(SIDE))
        at = uint32(uint32(uint32(cuda.blockIdx.x) % tiles) * uint32(SIDE))
        x += uint64(int64(cuda.blockIdx.z) * x_z + int64(row) * x_r + int64(at) * x_k)
        y += uint64(int64(cuda.blockIdx.z) * y_z + int64(row) * y_r + int64(at) * int64(size))
        last_r, last_c = uint32(rows - uint32(row + uint32(1))), uint32(k - uint32(at + uint32(1)))
        along = abs(x_k) <= abs(x_r)
        for j in range(4):
            lane, i = uint32(t & uint32(31)), uint32(uint32(t >> uint32(5)) + uint32(8 * j))
            r = i if along else lane
            c = lane if along else i
            number = load(x + uint64(int64(lesser(r, last_r)) * x_r + int64(lesser(c, last_c)) * x_k))
            room[r, c] = number if c <= last_c else zero
        cuda.syncthreads()
        r = uint32(t >> uint32(3))
        for j in range(4 // lanes):
            c = uint32(uint32(uint32(t & uint32(7)) + uint32(8 * j)) * uint32(lanes))
            if uint32(row + r) < rows and uint32(at + c) < padded:
                for i in range(lanes):
                    v[i] = rounded(room[r, uint32(c + uint32(i))])
                store_wide(y + uint64(int64(r) * y_r + int64(c) * int64(size)), v, 0, uint32(0))
    return pack


def packed(x: np.ndarray, kept: str) -> np.ndarray:
    """x (planes, rows, k) as numbers of another kind, in scratch memory; one plane where x has the same one for all."""
    x = x[:1] if x.strides[0] == 0 else x
    name, (planes, rows, k) = arrays.name_of(x.dtype), x.shape
    dtype = x.dtype if name == kept else np.dtype(np.float32)
    lanes = 16 // dtype.itemsize
    padded = blocks(k, lanes) * lanes
    y = scratch((planes, rows, padded), dtype)
    pack(name, kept).launch(
        (blocks(rows, SIDE) * blocks(padded, SIDE), 1, planes), x, y, rows, k, padded, *x.strides, *y.strides[:2])
    return y
