"""The first steps of the ladder to the product of cuda_tile.py, for float32 and any strides: y = a @ b.

    naive    a thread an element: 2 loads from memory for each multiplication
    tiled    a block of 16 x 16 threads shares tiles of 16 x 16: 1/8 of a load from memory, 2 from shared memory

What comes after them keeps sums of several rows and columns in registers: 1/4 of a load from shared memory.
"""
from __future__ import annotations

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, int64, uint32, uint64
from tilewright.kernels.ptx.launch import kernel

SIDE = 16
SIGNATURE = ("r a, r b, w y, u32 m, u32 n, u32 k, i64 a_z, i64 a_r, i64 a_k, i64 b_z, i64 b_k, i64 b_c, "
             "i64 y_z, i64 y_r, i64 y_c")


@kernel(SIGNATURE, threads=(SIDE, SIDE))
def naive(a, b, y, m, n, k, a_z, a_r, a_k, b_z, b_k, b_c, y_z, y_r, y_c):
    column = uint32(uint32(cuda.blockIdx.x) * uint32(SIDE) + uint32(cuda.threadIdx.x))
    row = uint32(uint32(cuda.blockIdx.y) * uint32(SIDE) + uint32(cuda.threadIdx.y))
    if row < m and column < n:
        plane = int64(cuda.blockIdx.z)
        a += uint64(plane * a_z + int64(row) * a_r)
        b += uint64(plane * b_z + int64(column) * b_c)
        total = float32(0)
        for _ in range(k):
            total += ptx.ldg_nc_f32(a) * ptx.ldg_nc_f32(b)
            a += uint64(a_k)
            b += uint64(b_k)
        ptx.stg_f32(y + uint64(plane * y_z + int64(row) * y_r + int64(column) * y_c), total)


@kernel(SIGNATURE, threads=(SIDE, SIDE), harmless={
    "guard: while begin < k:": "where k is 0 a turn loads nothing, loads having guards of their own: it adds zeros"})
def tiled(a, b, y, m, n, k, a_z, a_r, a_k, b_z, b_k, b_c, y_z, y_r, y_c):
    left = cuda.shared.array((SIDE, SIDE), float32)
    right = cuda.shared.array((SIDE, SIDE), float32)
    tx, ty = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y)
    column = uint32(uint32(cuda.blockIdx.x) * uint32(SIDE) + tx)
    row = uint32(uint32(cuda.blockIdx.y) * uint32(SIDE) + ty)
    plane = int64(cuda.blockIdx.z)
    a += uint64(plane * a_z + int64(row) * a_r + int64(tx) * a_k)
    b += uint64(plane * b_z + int64(column) * b_c + int64(ty) * b_k)
    total = float32(0)
    begin = uint32(0)
    while begin < k:
        left[ty, tx] = ptx.ldg_nc_f32(a) if row < m and uint32(begin + tx) < k else float32(0)
        right[ty, tx] = ptx.ldg_nc_f32(b) if column < n and uint32(begin + ty) < k else float32(0)
        cuda.syncthreads()
        for i in range(SIDE):
            total += left[ty, uint32(i)] * right[uint32(i), tx]
        cuda.syncthreads()
        a += uint64(int64(SIDE) * a_k)
        b += uint64(int64(SIDE) * b_k)
        begin = uint32(begin + uint32(SIDE))
    if row < m and column < n:
        ptx.stg_f32(y + uint64(plane * y_z + int64(row) * y_r + int64(column) * y_c), total)
