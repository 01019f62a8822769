"""matmul_maddubs in CUDA: a thread for each element of y, any strides; each warp adds what it clipped to one counter.

Integers may be added in any order. Not a fast kernel: what it computes is there to be looked at.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, int32, int64, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel
from tilewright.kernels.ptx.warp import warp_sum
from tilewright.kernels.qgemm.cuda_sides import by_batch

WIDE, TALL = 32, 8  # columns, which are those of a warp, and rows of a block
LOW, HIGH = -32768, 32767


@kernel("w count", threads=1)
def clear(count):
    ptx.stg_u64(count, uint64(0))


@kernel("r a, r b, w y, rw count, u32 m, u32 n, u32 k, i64 a_z, i64 a_r, i64 a_k, i64 b_z, i64 b_k, i64 b_c, "
        "i64 y_z, i64 y_r, i64 y_c", threads=(WIDE, TALL))
def multiply(a, b, y, count, m, n, k, a_z, a_r, a_k, b_z, b_k, b_c, y_z, y_r, y_c):
    column = uint32(uint32(cuda.blockIdx.x) * uint32(WIDE) + uint32(cuda.threadIdx.x))
    row = uint32(uint32(cuda.blockIdx.y) * uint32(TALL) + uint32(cuda.threadIdx.y))
    plane = int64(cuda.blockIdx.z)
    clipped = int32(0)
    if row < m and column < n:
        a += uint64(plane * a_z + int64(row) * a_r)
        b += uint64(plane * b_z + int64(column) * b_c)
        total = int32(0)
        p = uint32(0)
        while p < k:
            pair = int32(int32(ptx.ldg_nc_u8(a)) * ptx.ldg_nc_s8(b))
            if uint32(p + 1) < k:
                pair = int32(pair + int32(int32(ptx.ldg_nc_u8(a + uint64(a_k))) * ptx.ldg_nc_s8(b + uint64(b_k))))
            kept = int32(min(max(pair, int32(LOW)), int32(HIGH)))
            clipped += int32(kept != pair)
            total = int32(total + kept)
            a += uint64(2 * a_k)
            b += uint64(2 * b_k)
            p = uint32(p + uint32(2))
        ptx.stg_u32(y + uint64(plane * y_z + int64(row) * y_r + int64(column) * y_c), uint32(total))
    clipped = warp_sum(clipped)
    if uint32(cuda.threadIdx.x) == 0:
        ptx.atom_add_u64(count, uint64(clipped))


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    y, count = outs
    clear.launch(1, count)
    if y.size == 0:
        return
    for a, b, to in by_batch(y.shape[:-2], *call.inputs, y):
        m, n = to.shape[-2:]
        multiply.launch((blocks(n, WIDE), blocks(m, TALL), len(to)), a, b, to, count, m, n, a.shape[-1],
                        *a.strides, *b.strides, *to.strides)


KERNELS = [Kernel("matmul_maddubs", "cuda", _run, dtypes=("uint8",), describe=lambda call: "a thread for each element")]
