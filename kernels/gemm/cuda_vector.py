"""Products with a vector in CUDA, and sums of products that were cut along k.

    dot       neighbours along k: a warp a row, its lanes go along k, by 16 bytes where that can be
    across    neighbours along the rows: a lane a row, 8 warps of a block take k in turn, added in their order
    parts     out = activation(alpha · sums + bias) + beta · c, the sums over the parts in their order

Each block of dot and across takes `chunk` of k, number blockIdx.y; with more than one, `out` is scratch memory
(parts, planes, rows), and parts makes the result of it. No order of blocks shows in a result.
"""
from __future__ import annotations

import numpy as np

from tilewright.kernels.ptx.cuda import cuda, int64, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, kernel, specialise
from tilewright.kernels.ptx.warp import warp_sum

from .cuda_numbers import WIDE, numbers

ROWS, ACROSS, WARPS = 8, 32, 8
EXAMPLES = [(dtype,) for dtype in ("float32", "float64", "float16", "bfloat16")]
ARGUMENTS = ("r a, r x, r c, r bias, w out, {0} alpha, {0} beta, u32 flags, u32 rows, u32 k, u32 chunk, i64 a_r, "
             "i64 a_k, i64 a_z, i64 x_k, i64 x_z, i64 c_r, i64 bias_r, i64 o_r, i64 o_y, i64 o_z")


@specialise(*EXAMPLES)
def dot(dtype: str) -> Kernel:
    n = numbers(dtype)
    real, zero, size, per = n.type, n.real(0), n.size, n.chunk
    load, load_chunk, optional, put, finish = n.load_nc, n.load_chunk, n.optional, n.put, n.finish

    @kernel(ARGUMENTS.format(n.number), threads=(32, ROWS))
    def dot(a, x, c, bias, out, alpha, beta, flags, rows, k, chunk, a_r, a_k, a_z, x_k, x_z, c_r, bias_r, o_r, o_y,
            o_z):
        va, vx = cuda.local.array(per, real), cuda.local.array(per, real)
        sums = cuda.local.array(per, real)
        for j in range(per):
            sums[j] = zero
        lane, z = uint32(cuda.threadIdx.x), int64(cuda.blockIdx.z)
        row = uint32(uint32(cuda.blockIdx.x) * uint32(ROWS) + uint32(cuda.threadIdx.y))
        if row >= rows:
            return
        at = uint32(uint32(cuda.blockIdx.y) * chunk)
        end = uint32(at + chunk) if uint32(at + chunk) < k else k
        a += uint64(z * a_z + int64(row) * a_r)
        x += uint64(z * x_z)
        if flags & uint32(WIDE):
            rest = uint32(uint32(uint32(end - at) // uint32(per)) * uint32(per) + at)
            at = uint32(at + uint32(lane * uint32(per)))
            while at < rest:
                load_chunk(va, a + uint64(at) * uint64(size))
                load_chunk(vx, x + uint64(at) * uint64(size))
                for j in range(per):
                    sums[j] += va[j] * vx[j]
                at = uint32(at + uint32(32 * per))
            at = rest
        at = uint32(at + lane)
        while at < end:
            sums[0] += load(a + uint64(int64(at) * a_k)) * load(x + uint64(int64(at) * x_k))
            at = uint32(at + uint32(32))
        for j in range(1, per):
            sums[0] += sums[j]
        total = warp_sum(sums[0])
        if lane == uint32(0):
            b, old = optional(bias, uint64(int64(row) * bias_r)), optional(c, uint64(int64(row) * c_r))
            put(out + uint64(z * o_z + int64(cuda.blockIdx.y) * o_y + int64(row) * o_r),
                finish(total, b, old, alpha, beta, flags), flags)
    return dot


@specialise(*EXAMPLES)
def across(dtype: str) -> Kernel:
    n = numbers(dtype)
    real, zero, load, optional, put, finish = n.type, n.real(0), n.load_nc, n.optional, n.put, n.finish

    @kernel(ARGUMENTS.format(n.number), threads=(ACROSS, WARPS))
    def across(a, x, c, bias, out, alpha, beta, flags, rows, k, chunk, a_r, a_k, a_z, x_k, x_z, c_r, bias_r, o_r, o_y,
               o_z):
        parts = cuda.shared.array((WARPS, ACROSS), real)
        lane, warp, z = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y), int64(cuda.blockIdx.z)
        row = uint32(uint32(cuda.blockIdx.x) * uint32(ACROSS) + lane)
        at = uint32(uint32(cuda.blockIdx.y) * chunk)
        end = uint32(at + chunk) if uint32(at + chunk) < k else k
        at = uint32(at + warp)
        total = zero
        if row < rows:
            a += uint64(z * a_z + int64(row) * a_r + int64(at) * a_k)
            x += uint64(z * x_z + int64(at) * x_k)
            forth_a, forth_x = uint64(int64(WARPS) * a_k), uint64(int64(WARPS) * x_k)
            while uint32(at + uint32(3 * WARPS)) < end:  # four loads on their way at once
                v0, v1 = load(a), load(a + forth_a)
                v2, v3 = load(a + uint64(2) * forth_a), load(a + uint64(3) * forth_a)
                total += v0 * load(x)
                total += v1 * load(x + forth_x)
                total += v2 * load(x + uint64(2) * forth_x)
                total += v3 * load(x + uint64(3) * forth_x)
                a += uint64(4) * forth_a
                x += uint64(4) * forth_x
                at = uint32(at + uint32(4 * WARPS))
            while at < end:
                total += load(a) * load(x)
                a += forth_a
                x += forth_x
                at = uint32(at + uint32(WARPS))
        parts[warp, lane] = total
        cuda.syncthreads()
        if warp == uint32(0) and row < rows:
            for i in range(1, WARPS):
                total += parts[uint32(i), lane]
            b, old = optional(bias, uint64(int64(row) * bias_r)), optional(c, uint64(int64(row) * c_r))
            put(out + uint64(z * o_z + int64(cuda.blockIdx.y) * o_y + int64(row) * o_r),
                finish(total, b, old, alpha, beta, flags), flags)
    return across


@specialise(*EXAMPLES)
def parts(dtype: str) -> Kernel:
    n = numbers(dtype)
    zero, load = n.real(0), numbers("float64" if n.real is np.float64 else "float32").load
    real_size, optional, store, finish = n.real().itemsize, n.optional, n.store, n.finish

    @kernel(f"r sums, r c, r bias, w out, {n.number} alpha, {n.number} beta, u32 flags, u32 m, u32 n, u32 count, "
            "i64 s_p, i64 s_z, i64 s_r, i64 c_r, i64 c_c, i64 bias_c, i64 o_z, i64 o_r, i64 o_c", threads=256)
    def parts(sums, c, bias, out, alpha, beta, flags, m, n, count, s_p, s_z, s_r, c_r, c_c, bias_c, o_z, o_r, o_c):
        i = uint64(cuda.blockIdx.x) * uint64(256) + uint64(cuda.threadIdx.x)
        if i < uint64(m) * uint64(n):
            plane, row, column = int64(cuda.blockIdx.z), int64(i // uint64(n)), int64(i % uint64(n))
            sums += uint64(plane * s_z + row * s_r + column * int64(real_size))
            total, part = zero, uint32(0)
            while True:
                total += load(sums)
                sums += uint64(s_p)
                part = uint32(part + uint32(1))
                if part >= count:
                    break
            b, old = optional(bias, uint64(column * bias_c)), optional(c, uint64(row * c_r + column * c_c))
            store(out + uint64(plane * o_z + row * o_r + column * o_c), finish(total, b, old, alpha, beta, flags))
    return parts
