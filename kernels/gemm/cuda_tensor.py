"""The product of cuda_tile.py for float16 and bfloat16 on tensor cores, from sm_80 on: mma.sync, sums in float32.

    block         256 threads, a tile of 128 x 128 sums, 32 of k at a time; 8 warps, 64 x 32 sums each
    warp          16 of k: 4 pieces of 16 rows, 4 of 8 columns, 16 instructions m16n8k16; 64 + 24 registers of operands
    shared        three stages of both operands, 48 KB: one is read, two are on their way (cp.async)
    operand "k"   [128 rows][32 of k]: 16 bytes number i of row r lie at place i ^ (r / 2 % 4) of the row
            "r"   [32 of k][128 rows]: 16 bytes number i of step j lie at place i ^ (j % 8), and are turned by ldmatrix
                  so that the 8 rows of 16 bytes that ldmatrix reads at once lie in different banks
    k             what lies beyond the end is filled with 0; rows beyond the last are read from the last

Every access to the operands is of 16 bytes: see `mode` in cuda.py for what that asks of them.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, int64, uint16, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, kernel, specialise

from .cuda_numbers import numbers
from .cuda_result import result
from .cuda_tile import ARGUMENTS, lesser, place_of_tile

SIDE, BK, STAGES = 128, 32, 3
OPERAND = SIDE * BK * 2  # bytes of a stage
STAGE = 2 * OPERAND
LINE = (SIDE + 8) * 4  # bytes of a row of sums, of which 4 by 4 threads write 8 bytes each to different banks


def _operand(mode: str) -> tuple[Any, ...]:
    """How a stage is filled.

    place      a thread's first row and step of k       last       the last row to read
    second     bytes from its first 16 to its second    offset     its place in a stage       copy     both copies
    """
    if mode == "k":
        @inline
        def place(t):
            return uint32(t >> uint32(2)), uint32(uint32(t & uint32(3)) * uint32(8))

        @inline
        def last(rows):
            return uint32(rows - uint32(1))

        @inline
        def second(row, rows, step, k_step):
            """Bytes from a thread's first 16 bytes to its second: 64 rows further on."""
            other = lesser(uint32(row + uint32(64)), uint32(rows - uint32(1)))
            return uint64(int64(int32(other) - int32(lesser(row, uint32(rows - uint32(1))))) * step)

        @inline
        def offset(row, k):
            i = uint32(uint32(k >> uint32(3)) ^ uint32(uint32(row >> uint32(1)) & uint32(3)))
            return uint32(uint32(row * uint32(64)) + uint32(i << uint32(4)))

        @inline
        def copy(to, p, further, left):
            """left: how many of k, from the thread's first on"""
            count = uint32(min(max(left, int32(0)), int32(8)) * int32(2))
            ptx.cp_async_16_first(to, p, count)
            ptx.cp_async_16_first(uint32(to + uint32(4096)), p + further, count)
    else:
        @inline
        def place(t):
            return uint32(uint32(t & uint32(15)) * uint32(8)), uint32(t >> uint32(4))

        @inline
        def last(rows):
            return uint32(rows - uint32(8))

        @inline
        def second(row, rows, step, k_step):
            """16 of k further on."""
            return uint64(int64(16) * k_step)

        @inline
        def offset(row, k):
            i = uint32(uint32(row >> uint32(3)) ^ uint32(k & uint32(7)))
            return uint32(uint32(k * uint32(256)) + uint32(i << uint32(4)))

        @inline
        def copy(to, p, further, left):
            ptx.cp_async_16_first(to, p, uint32(16) if left > int32(0) else uint32(0))
            ptx.cp_async_16_first(uint32(to + uint32(4096)), p + further,
                                  uint32(16) if left > int32(16) else uint32(0))
    return place, last, second, offset, copy


def _rows_of_a(mode: str) -> tuple[Any, Any]:
    """(start, load): where a lane begins to read a's pieces of a stage; the four of 16 of k into a local array."""
    if mode == "k":
        @inline
        def start(lane, first):
            row = uint32(first + uint32(lane & uint32(15)))
            i = uint32(uint32(lane >> uint32(4)) ^ uint32(uint32(row >> uint32(1)) & uint32(3)))
            return uint32(uint32(row * uint32(64)) + uint32(i << uint32(4)))

        @inline
        def load(r, p, half):
            for i in range(4):
                r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3] = ptx.ldmatrix_x4(
                    uint32(uint32(p ^ uint32(32 * half)) + uint32(1024 * i)))
    else:
        @inline
        def start(lane, first):
            k = uint32(uint32(uint32(lane >> uint32(4)) << uint32(3)) + uint32(lane & uint32(7)))
            i = uint32(uint32(first >> uint32(3)) + uint32(uint32(lane >> uint32(3)) & uint32(1)))
            return uint32(uint32(k * uint32(256)) + uint32(uint32(i ^ uint32(lane & uint32(7))) << uint32(4)))

        @inline
        def load(r, p, half):
            for i in range(4):
                r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3] = ptx.ldmatrix_x4_trans(
                    uint32(uint32(p ^ uint32(32 * i)) + uint32(4096 * half)))
    return start, load


def _columns_of_b(mode: str) -> tuple[Any, Any]:
    """The same of b's pieces, two of 16 columns."""
    if mode == "k":
        @inline
        def start(lane, first):
            row = uint32(uint32(first + uint32(lane & uint32(7))) + uint32(uint32(lane >> uint32(4)) << uint32(3)))
            i = uint32(uint32(uint32(lane >> uint32(3)) & uint32(1)) ^ uint32(uint32(row >> uint32(1)) & uint32(3)))
            return uint32(uint32(row * uint32(64)) + uint32(i << uint32(4)))

        @inline
        def load(r, p, half):
            for j in range(2):
                r[4 * j], r[4 * j + 1], r[4 * j + 2], r[4 * j + 3] = ptx.ldmatrix_x4(
                    uint32(uint32(p ^ uint32(32 * half)) + uint32(1024 * j)))
    else:
        @inline
        def start(lane, first):
            k = uint32(uint32(uint32(uint32(lane >> uint32(3)) & uint32(1)) << uint32(3)) + uint32(lane & uint32(7)))
            i = uint32(uint32(first >> uint32(3)) + uint32(lane >> uint32(4)))
            return uint32(uint32(k * uint32(256)) + uint32(uint32(i ^ uint32(lane & uint32(7))) << uint32(4)))

        @inline
        def load(r, p, half):
            for j in range(2):
                r[4 * j], r[4 * j + 1], r[4 * j + 2], r[4 * j + 3] = ptx.ldmatrix_x4_trans(
                    uint32(uint32(p ^ uint32(32 * j)) + uint32(4096 * half)))
    return start, load


@specialise(*((a, b, dtype) for dtype in ("float16", "bfloat16") for a, b in ("kk", "kr", "rk", "rr")))
def tensor(a_mode: str, b_mode: str, dtype: str) -> Kernel:
    mma, shared_numbers, sums = ptx.mma_f16 if dtype == "float16" else ptx.mma_bf16, STAGES * STAGE // 2, 64
    place_a, last_a, second_a, offset_a, copy_a = _operand(a_mode)
    place_b, last_b, second_b, offset_b, copy_b = _operand(b_mode)
    (start_a, load_a), (start_b, load_b) = _rows_of_a(a_mode), _columns_of_b(b_mode)
    columns_of, rows_of = result(numbers(dtype), SIDE, 64, 1, LINE)

    @inline
    def multiply(acc, o, ra, i, rb, j):
        acc[o], acc[o + 1], acc[o + 2], acc[o + 3] = mma(
            ra[4 * i], ra[4 * i + 1], ra[4 * i + 2], ra[4 * i + 3], rb[2 * j], rb[2 * j + 1],
            acc[o], acc[o + 1], acc[o + 2], acc[o + 3])

    @inline
    def half_stage(acc, ra, rb, pa, pb, half):
        load_a(ra, pa, half)
        load_b(rb, pb, half)
        for i in range(4):
            for j in range(4):
                multiply(acc, (i * 4 + j) * 4, ra, i, rb, j)

    @kernel(ARGUMENTS.format("f32"), threads=256, blocks_per_sm=2, needs=(8, 0))
    def tensor(a, b, c, bias, out, alpha, beta, flags, m, n, k, chunk, a_r, a_k, a_z, b_r, b_k, b_z, c_r, c_c, bias_c,
               o_r, o_c, o_y, o_z):
        room = cuda.shared.array(shared_numbers, uint16, alignment=1024)
        acc, biases = cuda.local.array(sums, float32), cuda.local.array(4, float32)
        ra, rb = cuda.local.array(16, uint32), cuda.local.array(8, uint32)
        for i in range(sums):
            acc[i] = float32(0)
        t = uint32(cuda.threadIdx.x)
        tm, tn = place_of_tile(uint32(cuda.blockIdx.x), uint32(uint32(m + uint32(SIDE - 1)) // uint32(SIDE)),
                               uint32(uint32(n + uint32(SIDE - 1)) // uint32(SIDE)))
        row, column = uint32(tm * uint32(SIDE)), uint32(tn * uint32(SIDE))
        begin = uint32(uint32(cuda.blockIdx.y) * chunk)
        end = lesser(k, uint32(begin + chunk))
        a += uint64(int64(cuda.blockIdx.z) * a_z)
        b += uint64(int64(cuda.blockIdx.z) * b_z)
        out += uint64(int64(cuda.blockIdx.z) * o_z + int64(cuda.blockIdx.y) * o_y)

        s = ptx.smem_addr(room)
        ar, ak = place_a(t)
        br, bk = place_b(t)
        write_a, write_b = offset_a(ar, ak), uint32(offset_b(br, bk) + uint32(OPERAND))
        further_a = second_a(uint32(row + ar), m, a_r, a_k)
        further_b = second_b(uint32(column + br), n, b_r, b_k)
        ar, br = lesser(uint32(row + ar), last_a(m)), lesser(uint32(column + br), last_b(n))
        pa = a + uint64(int64(ar) * a_r + int64(uint32(begin + ak)) * a_k)
        pb = b + uint64(int64(br) * b_r + int64(uint32(begin + bk)) * b_k)
        forth_a, forth_b = uint64(int64(BK) * a_k), uint64(int64(BK) * b_k)
        left = int32(end) - int32(begin)
        to_come = left  # of k, from the next stage on; a thread's own numbers begin ak, bk later
        write = s
        for _ in range(STAGES - 1):
            if to_come > int32(0):
                copy_a(uint32(write + write_a), pa, further_a, int32(to_come - int32(ak)))
                copy_b(uint32(write + write_b), pb, further_b, int32(to_come - int32(bk)))
            ptx.cp_async_commit()
            pa += forth_a
            pb += forth_b
            to_come = int32(to_come - int32(BK))
            write = uint32(write + uint32(STAGE))

        warp, lane = uint32(t >> uint32(5)), uint32(t & uint32(31))
        wm, wn = uint32(uint32(warp >> uint32(2)) * uint32(64)), uint32(uint32(warp & uint32(3)) * uint32(32))
        read_a, read_b = start_a(lane, wm), uint32(start_b(lane, wn) + uint32(OPERAND))
        read, stop = s, uint32(s + uint32(STAGES * STAGE))
        while left > int32(0):
            ptx.cp_async_wait_1()
            cuda.syncthreads()
            if to_come > int32(0):
                copy_a(uint32(write + write_a), pa, further_a, int32(to_come - int32(ak)))
                copy_b(uint32(write + write_b), pb, further_b, int32(to_come - int32(bk)))
                pa += forth_a
                pb += forth_b
            ptx.cp_async_commit()
            half_stage(acc, ra, rb, uint32(read + read_a), uint32(read + read_b), 0)
            half_stage(acc, ra, rb, uint32(read + read_a), uint32(read + read_b), 1)
            read = uint32(read + uint32(STAGE))
            read = s if read == stop else read
            write = uint32(write + uint32(STAGE))
            write = s if write == stop else write
            left = int32(left - int32(BK))
            to_come = int32(to_come - int32(BK))
        ptx.cp_async_wait_0()

        # piece `part` of each warp's four: rows part·16 … of both halves of the tile
        line = uint32(uint32(s + uint32(uint32(uint32(uint32(warp >> uint32(2)) * uint32(16))
                                               + uint32(lane >> uint32(2))) * uint32(LINE)))
                      + uint32(uint32(wn + uint32(uint32(lane & uint32(3)) * uint32(2))) * uint32(4)))
        columns_of(biases, t, column, n, bias, bias_c, flags)
        part = uint32(0)
        while part < uint32(4):
            cuda.syncthreads()
            for i in range(4):
                if part == uint32(i):
                    for j in range(4):
                        o = (i * 4 + j) * 4
                        p = uint32(line + uint32(32 * j))
                        ptx.sts_f32x2(p, acc[o], acc[o + 1])
                        ptx.sts_f32x2(uint32(p + uint32(8 * LINE)), acc[o + 2], acc[o + 3])
            cuda.syncthreads()
            rows_of(s, t, uint32(row + uint32(part * uint32(16))), column, biases, c, out, alpha, beta, flags, m, n,
                    c_r, c_c, o_r, o_c)
            part = uint32(part + uint32(1))
    return tensor
