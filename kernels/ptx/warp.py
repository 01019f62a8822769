"""Sums and maxima of the 32 threads of a warp, and of a block: every thread gets the same bits, in one fixed order.

    total = warp_sum(x)                              all 32 lanes must call
    total = block_sum(x, part, float32(0))           all threads must call, whole warps; part: a shared array of 32

A block's part may be used again only behind another barrier: two sums in a row take two parts, the third the first.
"""
from __future__ import annotations

from typing import Any

from .cuda import cuda, inline, uint32

ALL = 0xFFFFFFFF


@inline
def add(x, y):
    return x + y


@inline
def larger(x, y):
    """max(x, y); NaN if one of them is NaN"""
    return x if x > y or x != x else y


def _warp(combine: Any) -> Any:
    @inline
    def warp(x):
        x = combine(x, cuda.shfl_xor_sync(ALL, x, 16))
        x = combine(x, cuda.shfl_xor_sync(ALL, x, 8))
        x = combine(x, cuda.shfl_xor_sync(ALL, x, 4))
        x = combine(x, cuda.shfl_xor_sync(ALL, x, 2))
        return combine(x, cuda.shfl_xor_sync(ALL, x, 1))
    return warp


def _block(warp: Any) -> Any:
    @inline
    def block(x, part, neutral):
        lane, number = uint32(cuda.threadIdx.x & uint32(31)), uint32(cuda.threadIdx.x >> uint32(5))
        x = warp(x)
        if lane == 0:
            part[number] = x
        cuda.syncthreads()
        return warp(part[lane] if lane < uint32(uint32(cuda.blockDim.x) >> uint32(5)) else neutral)
    return block


warp_sum, warp_max = _warp(add), _warp(larger)
block_sum, block_max = _block(warp_sum), _block(warp_max)
