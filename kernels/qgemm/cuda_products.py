"""Products of integers in CUDA over arranged operands (cuda_operands.py): rows of a times columns of b, K by chunks.

`tile` is for every device: 64 x 64 results a block, 4 x 4 a thread, products by dp4a. A step takes 64 bytes of k:

    shared memory    [64 rows of a][80 bytes], the same of b: 64 bytes and 16 that keep eight lanes' chunks apart
    thread           rows y + 16 i, columns x + 16 j: 8 loads of 128 bits and 64 dp4a for each chunk of k

At the end the sums go to shared memory, in rows of 80 words, and a thread makes results of four columns.
`few` is for up to 8 rows of a: a warp takes a column and four rows, a lane every 32nd chunk, so that columns are read
at the pace of memory, once for each four rows.

Operands and rows beyond the edges read as zeros; only results inside are written.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import warp
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, uint32, uint64
from tilewright.kernels.ptx.launch import kernel, specialise

from .cuda_finish import RECORD_BYTES, finish, finish_tile, optional, stores
from .cuda_operands import CHUNK

THREADS = 256
TILE = 64
PITCH = 20  # words of a row in shared memory
SUMS_PITCH = 80
SHARED = TILE * SUMS_PITCH
STEP = 4  # chunks of k
FEW = 8  # rows up to which a warp takes a column
FEW_ROWS, FEW_COLUMNS = 4, 8  # of a block
ARGUMENTS = ("r a, r b, r rows, r columns, r bias, r residual, w out, u32 m, u32 n, u32 chunks, u64 a0, u64 a1, "
             "u64 b0, u64 b1, u64 rows0, u64 columns0, u64 bias1, u64 residual1, u64 residual2, u64 out0, "
             "u64 out1, u64 out2")
EXAMPLES = [("int32", None, True, True), ("uint8", None, False, True), ("float32", "gelu", False, True)]
TILES = [(*EXAMPLES[0], True), (*EXAMPLES[1], False), (*EXAMPLES[2], True), ("float32", "relu", False, True, False)]


@inline
def dot_ss(a, b, c):
    return ptx.dp4a_ss(a, b, c)


@inline
def dot_uu(a, b, c):
    return int32(ptx.dp4a_uu(a, b, uint32(c)))


@inline
def dot_us(a, b, c):
    return ptx.dp4a_us(a, b, c)


@inline
def dot_su(a, b, c):
    return ptx.dp4a_su(a, b, c)


DOT = {(True, True): dot_ss, (False, False): dot_uu, (False, True): dot_us, (True, False): dot_su}


@inline
def chunk_to_shared(to, x, step, first, count, chunk, chunks):
    """One chunk of one row of an operand; zeros beyond its edges."""
    a, b, c, d = uint32(0), uint32(0), uint32(0), uint32(0)
    if first < count and chunk < chunks:
        a, b, c, d = ptx.ldg_u32x4(x + uint64(first) * step + uint64(chunk) * uint64(CHUNK))
    ptx.sts_u32x4(to, a, b, c, d)


def _multiply(dot: Any) -> Any:
    @inline
    def multiply(at_a, at_b, sums):
        """sums[i, j] += one chunk of k of rows i and columns j"""
        for i in range(4):
            a, b, c, d = ptx.lds_u32x4(uint32(at_a + uint32(i * 16 * PITCH * 4)))
            for j in range(4):
                e, f, g, h = ptx.lds_u32x4(uint32(at_b + uint32(j * 16 * PITCH * 4)))
                sums[4 * i + j] = dot(d, h, dot(c, g, dot(b, f, dot(a, e, sums[4 * i + j]))))
    return multiply


@specialise(*TILES)
def tile(kind: str, activation: str | None, signed_a: bool, signed_b: bool, wide: bool):
    multiply = _multiply(DOT[signed_a, signed_b])
    finished = finish_tile(kind, activation, wide, TILE // 4, SUMS_PITCH, THREADS)

    @kernel(ARGUMENTS, threads=THREADS)
    def tile(a, b, rows, columns, bias, residual, out, m, n, chunks, a0, a1, b0, b1, rows0, columns0, bias1,
             residual1, residual2, out0, out1, out2):
        to_a = ptx.smem_addr(cuda.shared.array(SHARED, uint32, alignment=16))
        to_b = uint32(to_a + uint32(TILE * PITCH * 4))
        thread, batch = uint32(cuda.threadIdx.x), uint64(uint32(cuda.blockIdx.z))
        across, down = uint32(thread & uint32(15)), uint32(thread >> uint32(4))
        first_row, first_column = (uint32(uint32(cuda.blockIdx.x) * uint32(TILE)),
                                   uint32(uint32(cuda.blockIdx.y) * uint32(TILE)))
        a += batch * a0
        b += batch * b0
        row, part = uint32(thread >> uint32(2)), uint32(thread & uint32(3))  # that this thread copies
        to = uint32(uint32(row * uint32(PITCH * 4)) + uint32(part * uint32(CHUNK)))
        at_a, at_b = uint32(to_a + uint32(down * uint32(PITCH * 4))), uint32(to_b + uint32(across * uint32(PITCH * 4)))
        sums = cuda.local.array(16, int32)
        for i in range(16):
            sums[i] = int32(0)
        done = uint32(0)
        while True:
            chunk_to_shared(uint32(to_a + to), a, a1, uint32(first_row + row), m, uint32(done + part), chunks)
            chunk_to_shared(uint32(to_b + to), b, b1, uint32(first_column + row), n, uint32(done + part), chunks)
            cuda.syncthreads()
            for c in range(STEP):
                multiply(uint32(at_a + uint32(c * CHUNK)), uint32(at_b + uint32(c * CHUNK)), sums)
            cuda.syncthreads()
            done = uint32(done + uint32(STEP))
            if done >= chunks:
                break
        for i in range(4):
            for j in range(4):
                row = uint32(uint32(down + uint32(16 * i)) * uint32(SUMS_PITCH))
                at = uint32(row + uint32(across + uint32(16 * j)))
                ptx.sts_u32(uint32(to_a + uint32(at * uint32(4))), uint32(sums[4 * i + j]))
        if wide:  # else a thread reads its own sums
            cuda.syncthreads()
        finished(to_a, uint32(TILE), first_row, first_column, m, n, rows + batch * rows0, columns + batch * columns0,
                 bias, residual, out + batch * out0, bias1, residual1, residual2, out1, out2)
    return tile


@specialise(*EXAMPLES)
def few(kind: str, activation: str | None, signed_a: bool, signed_b: bool):
    dot, (row_at, value), (put, _) = DOT[signed_a, signed_b], finish(kind, activation), stores(kind)

    @kernel(ARGUMENTS, threads=THREADS)
    def few(a, b, rows, columns, bias, residual, out, m, n, chunks, a0, a1, b0, b1, rows0, columns0, bias1,
            residual1, residual2, out0, out1, out2):
        lane, batch = uint32(cuda.threadIdx.x & uint32(31)), uint64(uint32(cuda.blockIdx.z))
        first = uint32(uint32(cuda.blockIdx.x) * uint32(FEW_ROWS))
        column = uint32(uint32(uint32(cuda.blockIdx.y) * uint32(FEW_COLUMNS)) + uint32(cuda.threadIdx.x >> uint32(5)))
        count = min(uint32(FEW_ROWS), uint32(m - first))
        if column < n:
            a += batch * a0 + uint64(first) * a1
            b += batch * b0 + uint64(column) * b1
            sums = cuda.local.array(FEW_ROWS, int32)
            for i in range(FEW_ROWS):
                sums[i] = int32(0)
            chunk = lane
            while chunk < chunks:
                at = uint64(chunk) * uint64(CHUNK)
                e, f, g, h = ptx.ldg_u32x4(b + at)
                for i in range(FEW_ROWS):
                    if i == 0 or uint32(i) < count:
                        p, q, r, s = ptx.ldg_u32x4(a + uint64(i) * a1 + at)
                        sums[i] = dot(s, h, dot(r, g, dot(q, f, dot(p, e, sums[i]))))
                chunk = uint32(chunk + uint32(32))
            for i in range(FEW_ROWS):
                sums[i] = warp.warp_sum(sums[i])
            total = sums[0] if lane == uint32(0) else sums[1] if lane == uint32(1) else (
                sums[2] if lane == uint32(2) else sums[3])
            if lane < count:
                row = uint64(uint32(first + lane))
                offset = optional(bias, uint64(column) * bias1) if kind != "int32" else -float32(0)
                beside = -float32(0)
                if kind == "float32":
                    beside = optional(residual, row * residual1 + uint64(column) * residual2)
                z, s, f, _ = ptx.ldg_u32x4(columns + batch * columns0 + uint64(column) * uint64(RECORD_BYTES))
                put(out + batch * out0 + row * out1 + uint64(column) * out2,
                    value(uint32(total), row_at(rows + batch * rows0 + row * uint64(RECORD_BYTES)), z, s, f, offset,
                          beside))
    return few
