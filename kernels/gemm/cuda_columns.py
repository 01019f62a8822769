"""Sums of a matrix's columns in CUDA, in one fixed order: y = x.sum(0) + beta · y.

    block     32 columns; 8 warps, each of which sums every eighth row; then warp 0 adds the eight in their order
    rows      many of them are cut into parts, whose sums are rows of a matrix in scratch memory, summed likewise
"""
from __future__ import annotations

import numpy as np

from tilewright.core import arrays
from tilewright.kernels.ptx.cuda import cuda, int64, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, blocks, kernel, scratch, specialise

from .cuda_numbers import numbers

WARPS = 8
PART = 512  # rows


@specialise(("float32",), ("float64",))
def columns(dtype: str) -> Kernel:
    n = numbers(dtype)
    real, zero, load, store = n.type, n.real(0), n.load, n.store

    @kernel(f"r x, rw y, {n.number} beta, u32 rows, u32 columns, i64 x_r, i64 x_c, i64 y_r, i64 y_c",
            threads=(32, WARPS))
    def columns(x, y, beta, rows, columns, x_r, x_c, y_r, y_c):
        parts = cuda.shared.array((WARPS, 32), real)
        lane, warp = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y)
        column = uint32(uint32(cuda.blockIdx.x) * uint32(32) + lane)
        row = uint32(uint32(cuda.blockIdx.y) * uint32(PART) + warp)
        end = uint32(uint32(cuda.blockIdx.y) * uint32(PART) + uint32(PART))
        end = end if end < rows else rows
        total = zero
        if column < columns:
            x += uint64(int64(row) * x_r + int64(column) * x_c)
            while row < end:
                total += load(x)
                x += uint64(int64(WARPS) * x_r)
                row = uint32(row + uint32(WARPS))
        parts[warp, lane] = total
        cuda.syncthreads()
        if warp == uint32(0) and column < columns:
            for i in range(1, WARPS):
                total += parts[uint32(i), lane]
            y += uint64(int64(cuda.blockIdx.y) * y_r + int64(column) * y_c)
            if beta != zero:
                total += beta * load(y)
            store(y, total)
    return columns


def column_sums(x: np.ndarray, y: np.ndarray, beta: float) -> None:
    """y = x.sum(0) + beta · y; where beta is 0 y is not read."""
    if y.size == 0:
        return
    kernel = columns(arrays.name_of(y.dtype))
    while (parts := blocks(x.shape[0], PART)) > 1:
        sums = scratch((parts, x.shape[1]), y.dtype)
        kernel.launch((blocks(y.size, 32), parts), x, sums, 0.0, *x.shape, *x.strides, *sums.strides)
        x = sums
    kernel.launch(blocks(y.size, 32), x, y, beta, *x.shape, *x.strides, 0, y.strides[0])
