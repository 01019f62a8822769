"""The product of cuda_tile.py on tensor cores: float16, bfloat16, float32 that was rounded to tf32; sums are float32.

    block         256 threads, a tile of 128 x 128 sums, 64 bytes of k at a time; 8 warps, 64 x 32 sums each
    warp          32 bytes of k: 4 pieces of 16 rows, 4 of 8 columns, 16 products m16n8; 64 + 24 registers of operands
    shared        stages of 16 KB, both operands (cuda_operand.py): three, of which one is read while two are on their
                  way by cp.async; on sm_75, which has none, two, filled from registers that were loaded meanwhile

Every access to the operands is of 16 bytes: see `mode` in cuda.py for what that asks of them. Those of tf32 are always
packed (cuda_pack.py), where they are rounded once instead of in every block that reads them.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.bars import Bars
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, int64, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, kernel, specialise

from .cuda_numbers import numbers
from .cuda_operand import BYTES, SIDE, columns_of_b, operand, rows_of_a
from .cuda_result import result
from .cuda_tile import ARGUMENTS, lesser, place_of_tile

STAGE = 2 * BYTES
LINE = (SIDE + 8) * 4  # bytes of a row of sums, of which 4 by 4 threads write 8 bytes each to different banks


@inline
def _mma_f16_sm75(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """m16n8k16 as two halves of k."""
    c0, c1, c2, c3 = ptx.mma_f16_k8(a0, a1, b0, c0, c1, c2, c3)
    return ptx.mma_f16_k8(a2, a3, b1, c0, c1, c2, c3)


class Kind(NamedTuple):
    """What operands are: the instruction, the dtype of the result, bytes of a number, the least compute capability."""

    mma: Any
    dtype: str
    size: int
    needs: tuple[int, int]


KINDS = {"float16": Kind(ptx.mma_f16, "float16", 2, (8, 0)), "bfloat16": Kind(ptx.mma_bf16, "bfloat16", 2, (8, 0)),
         "tf32": Kind(ptx.mma_tf32, "float32", 4, (8, 0)), "float16_sm75": Kind(_mma_f16_sm75, "float16", 2, (7, 5))}


def _by_copies(a: Any, b: Any, sum_stage: Any, each: int) -> Any:
    copy_a, copy_b = a.copy, b.copy

    @inline
    def sum_all(acc, s, to_a, to_b, pa, pb, further_a, further_b, forth_a, forth_b, left, ak, bk, from_a, from_b):
        to_come = left  # of k, from the next stage on
        write, read, stop = s, s, uint32(s + uint32(3 * STAGE))
        for _ in range(2):
            copy_a(uint32(write + to_a), pa, further_a, int32(to_come - ak))
            copy_b(uint32(write + to_b), pb, further_b, int32(to_come - bk))
            ptx.cp_async_commit()
            pa += forth_a
            pb += forth_b
            to_come = int32(to_come - int32(each))
            write = uint32(write + uint32(STAGE))
        while left > int32(0):
            ptx.cp_async_wait_1()
            cuda.syncthreads()
            copy_a(uint32(write + to_a), pa, further_a, int32(to_come - ak))
            copy_b(uint32(write + to_b), pb, further_b, int32(to_come - bk))
            ptx.cp_async_commit()
            pa += forth_a
            pb += forth_b
            sum_stage(acc, uint32(read + from_a), uint32(read + from_b))
            read = uint32(read + uint32(STAGE))
            read = s if read == stop else read
            write = uint32(write + uint32(STAGE))
            write = s if write == stop else write
            left = int32(left - int32(each))
            to_come = int32(to_come - int32(each))
        ptx.cp_async_wait_0()
    return sum_all


def _by_registers(a: Any, b: Any, sum_stage: Any, each: int) -> Any:
    fetch_a, fetch_b, put_a, put_b = a.fetch, b.fetch, a.put, b.put

    @inline
    def sum_all(acc, s, to_a, to_b, pa, pb, further_a, further_b, forth_a, forth_b, left, ak, bk, from_a, from_b):
        va, vb = cuda.local.array(8, uint32), cuda.local.array(8, uint32)
        fetch_a(va, pa, further_a, int32(left - ak))
        fetch_b(vb, pb, further_b, int32(left - bk))
        at = s
        while left > int32(0):
            put_a(uint32(at + to_a), va)
            put_b(uint32(at + to_b), vb)
            cuda.syncthreads()
            pa += forth_a
            pb += forth_b
            left = int32(left - int32(each))
            fetch_a(va, pa, further_a, int32(left - ak))
            fetch_b(vb, pb, further_b, int32(left - bk))
            sum_stage(acc, uint32(at + from_a), uint32(at + from_b))
            at = uint32(at ^ uint32(STAGE))
    return sum_all


# Names of mutants are first lines of statements, see tests/mutants.py.
_SUM = "sum_all(acc, s, to_a, to_b, pa, pb, further_a, further_b, uint64(int64(each) * a_k), uint64(int64(each) * b_k),"
_RESULTS = "results(acc, to, s, t, row, column, c, bias, out, alpha, beta, flags, m, n, c_r, c_c, bias_c, o_r, o_c)"
NOTHING = {f"guard: {_SUM}": "before the loop, whose first turn where k is 0 sums stages that were filled with zeros"}
ALWAYS = {f"guard 13: {_RESULTS}": "part is 1 where it is below 2 and not 0",
          f"guard 16: {_RESULTS}": "part is 3 where it is above 1 and not 2, there being four",
          f"guard 17: {_RESULTS}": "before the loop over 32 rows, which begins at a warp's number, below 8"}


@specialise(*((a, b, kind) for kind in KINDS for a, b in ("kk", "kr", "rk", "rr") if kind != "tf32" or a + b == "kk"))
def tensor(a_mode: str, b_mode: str, kind: str) -> Kernel:
    mma, dtype, size, needs = KINDS[kind]
    a_side, b_side, each = operand(a_mode, size), operand(b_mode, size), 64 // size
    (start_a, load_a), (start_b, load_b) = rows_of_a(a_mode), columns_of_b(b_mode)
    place_a, last_a, second_a, offset_a = a_side.place, a_side.last, a_side.second, a_side.offset
    place_b, last_b, second_b, offset_b = b_side.place, b_side.last, b_side.second, b_side.offset

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

    @inline
    def sum_stage(acc, pa, pb):
        ra, rb = cuda.local.array(16, uint32), cuda.local.array(8, uint32)
        half_stage(acc, ra, rb, pa, pb, 0)
        half_stage(acc, ra, rb, pa, pb, 1)

    @inline
    def put_part(acc, to, i):
        """Rows i·16 … of both halves of the tile."""
        for j in range(4):
            o, p = (i * 4 + j) * 4, uint32(to + uint32(32 * j))
            ptx.sts_f32x2(p, acc[o], acc[o + 1])
            ptx.sts_f32x2(uint32(p + uint32(8 * LINE)), acc[o + 2], acc[o + 3])

    results = result(numbers(dtype), put_part, 4, 16, 64, 1, LINE)
    by, stages, together = (_by_copies, 3, 2) if needs >= (8, 0) else (_by_registers, 2, 1)
    sum_all, room_size = by(a_side, b_side, sum_stage, each), stages * STAGE // 4

    @kernel(ARGUMENTS.format("f32"), threads=256, blocks_per_sm=together, needs=needs,
            bars=Bars(per_matrix=4, conflicts=1.0), harmless=ALWAYS | NOTHING if stages == 3 else ALWAYS)
    def tensor(a, b, c, bias, out, alpha, beta, flags, m, n, k, chunk, a_r, a_k, a_z, b_r, b_k, b_z, c_r, c_c, bias_c,
               o_r, o_c, o_y, o_z):
        room = cuda.shared.array(room_size, uint32, alignment=1024)
        acc = cuda.local.array(64, float32)
        for i in range(64):
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
        to_a, to_b = offset_a(ar, ak), uint32(offset_b(br, bk) + uint32(BYTES))
        further_a = second_a(uint32(row + ar), m, a_r, a_k)
        further_b = second_b(uint32(column + br), n, b_r, b_k)
        ar, br = lesser(uint32(row + ar), last_a(m)), lesser(uint32(column + br), last_b(n))
        pa = a + uint64(int64(ar) * a_r + int64(uint32(begin + ak)) * a_k)
        pb = b + uint64(int64(br) * b_r + int64(uint32(begin + bk)) * b_k)
        warp, lane = uint32(t >> uint32(5)), uint32(t & uint32(31))
        wm, wn = uint32(uint32(warp >> uint32(2)) * uint32(64)), uint32(uint32(warp & uint32(3)) * uint32(32))
        sum_all(acc, s, to_a, to_b, pa, pb, further_a, further_b, uint64(int64(each) * a_k), uint64(int64(each) * b_k),
                int32(int32(end) - int32(begin)), int32(ak), int32(bk), start_a(lane, wm),
                uint32(start_b(lane, wn) + uint32(BYTES)))

        to = uint32(uint32(s + uint32(uint32(uint32(uint32(warp >> uint32(2)) * uint32(16))
                                             + uint32(lane >> uint32(2))) * uint32(LINE)))
                    + uint32(uint32(wn + uint32(uint32(lane & uint32(3)) * uint32(2))) * uint32(4)))
        results(acc, to, s, t, row, column, c, bias, out, alpha, beta, flags, m, n, c_r, c_c, bias_c, o_r, o_c)
    return tensor
