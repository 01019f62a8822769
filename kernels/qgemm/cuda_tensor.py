"""Products of integers on tensor cores (sm_80 on), over the same operands and with the same bits as cuda_products.py.

    block     128 x 128 results, 8 warps of 64 x 32; a step takes 64 bytes of k
    stages    3 of 16 KB in shared memory; cp.async fills the one that the step before has left
    warp      rows 0 ... 15 of each 32, or 16 ... 31: 4 x 4 tiles of m16n8k32, twice a step: 32 mma and 12 ldmatrix

The stages of both operands lie as those of floats do that are neighbours along k (kernels/gemm/cuda_operand.py).
Beyond the end of k are zeros; beyond the last row is that again. At the end the same memory takes the sums, 64 rows at
a time, and a thread makes results of four columns.
"""
from __future__ import annotations

from typing import Any

from tilewright.core.registry import BYTES
from tilewright.kernels.gemm.cuda_operand import line, operand
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.bars import Bars
from tilewright.kernels.ptx.cuda import cuda, inline, int32, uint32, uint64
from tilewright.kernels.ptx.launch import kernel, specialise

from .cuda_finish import finish_tile
from .cuda_operands import CHUNK
from .cuda_products import ARGUMENTS, THREADS, TILES

NEEDS = (8, 0)
TILE = 128
STEP = 4  # chunks of k
ROW = STEP * CHUNK  # bytes
STAGES = 3
STAGE = 2 * TILE * ROW  # bytes: rows of a, then columns of b
SUMS_PITCH = 136  # words of a row: the four rows of half a warp lie in different banks
WORDS = STAGES * STAGE // 4
fetch = operand("k", 1).copy  # one chunk of two rows, 64 apart; left: chunks from this one on
MMA = {(True, True): ptx.mma_s8, (False, False): ptx.mma_u8, (False, True): ptx.mma_u8s8, (True, False): ptx.mma_s8u8}


@inline
def rows_to_copy(first, row, count, step):
    """Bytes to row `row` of a tile, and from there to the row 64 further on; the last one for those beyond it"""
    last = uint32(count - uint32(1))
    near, far = min(uint32(first + row), last), min(uint32(uint32(first + row) + uint32(TILE // 2)), last)
    return uint64(near) * step, uint64(uint32(far - near)) * step


def _multiply(mma: Any) -> Any:
    @inline
    def multiply(stage, row, column, half, lane, sums):
        """sums += 32 bytes of k: chunks 2 half and 2 half + 1 of the warp's rows and columns"""
        rows = cuda.local.array(16, uint32)
        columns = cuda.local.array(8, uint32)
        for i in range(4):
            r = uint32(uint32(row + uint32(32 * i)) + uint32(lane & uint32(15)))
            at = line(r, uint32(half + uint32(lane >> uint32(4))))
            rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3] = ptx.ldmatrix_x4(uint32(stage + at))
        for j in range(2):
            c = uint32(uint32(column + uint32(16 * j)) + uint32(
                uint32(lane & uint32(7)) + uint32(uint32(lane >> uint32(4)) * uint32(8))))
            at = line(c, uint32(half + uint32(uint32(lane >> uint32(3)) & uint32(1))))
            columns[4 * j], columns[4 * j + 1], columns[4 * j + 2], columns[4 * j + 3] = ptx.ldmatrix_x4(
                uint32(uint32(stage + uint32(TILE * ROW)) + at))
        for i in range(4):
            for j in range(4):
                s = 4 * (4 * i + j)
                sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = mma(
                    rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3], columns[2 * j], columns[2 * j + 1],
                    sums[s], sums[s + 1], sums[s + 2], sums[s + 3])
    return multiply


@inline
def to_shared(to, sums, part):
    """The sums of the first two of a warp's tiles along the rows, or, in the second part, of the others"""
    for i in range(2):
        for k in range(2):
            for j in range(4):
                s, at = 4 * (4 * i + j) + 2 * k, uint32(to + uint32(4 * ((32 * i + 8 * k) * SUMS_PITCH + 8 * j)))
                x = sums[s] if part == uint32(0) else sums[s + 32]
                y = sums[s + 1] if part == uint32(0) else sums[s + 33]
                ptx.sts_u32x2(at, uint32(x), uint32(y))


@specialise(*TILES)
def tensor_tile(kind: str, activation: str | None, signed_a: bool, signed_b: bool, wide: bool):
    multiply = _multiply(MMA[signed_a, signed_b])
    finished = finish_tile(kind, activation, wide, TILE // 4, SUMS_PITCH, THREADS)

    @kernel(ARGUMENTS, threads=THREADS, blocks_per_sm=2, needs=NEEDS,
            bars=Bars(registers=128, per_matrix=4, widest=128 if wide and kind not in BYTES else None, conflicts=1.0))
    def tensor_tile(a, b, rows, columns, bias, residual, out, m, n, chunks, a0, a1, b0, b1, rows0, columns0,
                    bias1, residual1, residual2, out0, out1, out2):
        memory = ptx.smem_addr(cuda.shared.array(WORDS, uint32, alignment=128))
        thread, batch = uint32(cuda.threadIdx.x), uint64(uint32(cuda.blockIdx.z))
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        first_row, first_column = (uint32(uint32(cuda.blockIdx.x) * uint32(TILE)),
                                   uint32(uint32(cuda.blockIdx.y) * uint32(TILE)))
        row, column = uint32(uint32(warp & uint32(1)) * uint32(16)), uint32(uint32(warp >> uint32(1)) * uint32(32))
        row_copied, chunk = uint32(thread >> uint32(2)), uint32(thread & uint32(3))  # that this thread copies
        start_a, further_a = rows_to_copy(first_row, row_copied, m, a1)
        start_b, further_b = rows_to_copy(first_column, row_copied, n, b1)
        a += batch * a0 + start_a + uint64(chunk) * uint64(CHUNK)
        b += batch * b0 + start_b + uint64(chunk) * uint64(CHUNK)
        to_a = uint32(memory + line(row_copied, chunk))
        to_b, left = uint32(to_a + uint32(TILE * ROW)), int32(chunks - chunk)
        sums = cuda.local.array(64, int32)
        for i in range(64):
            sums[i] = int32(0)
        for i in range(STAGES - 1):
            fetch(uint32(to_a + uint32(i * STAGE)), a + uint64(i * ROW), further_a, int32(left - int32(i * STEP)))
            fetch(uint32(to_b + uint32(i * STAGE)), b + uint64(i * ROW), further_b, int32(left - int32(i * STEP)))
            ptx.cp_async_commit()
        a += uint64((STAGES - 1) * ROW)
        b += uint64((STAGES - 1) * ROW)
        left = int32(left - int32((STAGES - 1) * STEP))
        done, stage, ahead = uint32(0), uint32(0), uint32((STAGES - 1) * STAGE)
        while True:
            ptx.cp_async_wait_1()
            cuda.syncthreads()  # the stage is there for all, and nobody reads the one that is filled next
            fetch(uint32(to_a + ahead), a, further_a, left)
            fetch(uint32(to_b + ahead), b, further_b, left)
            ptx.cp_async_commit()
            a += uint64(ROW)
            b += uint64(ROW)
            left = int32(left - int32(STEP))
            multiply(uint32(memory + stage), row, column, uint32(0), lane, sums)
            multiply(uint32(memory + stage), row, column, uint32(2), lane, sums)
            stage = uint32(stage + uint32(STAGE)) if stage < uint32((STAGES - 1) * STAGE) else uint32(0)
            ahead = uint32(ahead + uint32(STAGE)) if ahead < uint32((STAGES - 1) * STAGE) else uint32(0)
            done = uint32(done + uint32(STEP))
            if done >= chunks:
                break
        ptx.cp_async_wait_0()
        to = uint32(uint32(uint32(row + uint32(lane >> uint32(2))) * uint32(SUMS_PITCH)) + uint32(
            column + uint32(uint32(lane & uint32(3)) * uint32(2))))
        to = uint32(memory + uint32(to * uint32(4)))
        part = uint32(0)
        while part < uint32(TILE):
            cuda.syncthreads()
            to_shared(to, sums, part)
            cuda.syncthreads()
            finished(memory, uint32(TILE // 2), uint32(first_row + part), first_column, m, n, rows + batch * rows0,
                     columns + batch * columns0, bias, residual, out + batch * out0, bias1, residual1, residual2,
                     out1, out2)
            part = uint32(part + uint32(TILE // 2))
    return tensor_tile
