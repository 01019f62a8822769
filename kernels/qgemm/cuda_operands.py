"""Operands of the integer products as their CUDA kernels read them, made on the device.

    y          [row][k]        bytes of a (M, K), or of b's columns, K filled up with zeros to whole chunks of 16
    records    [row][8]        words: zero point, sum of the row, scale, sum - K · zero point, result's scale and zero
                               point, 0, 0

    recorded         the sums of rows are known, or K is 0
    summed           x lies as y would: a warp takes a row by 128 bits a lane
    along            k is the contiguous axis, or any: a warp takes a row, a lane a word of it at a time
    across           rows are neighbours: a lane takes words across four rows, which change places in shared memory
    quantize_rows    makes the same of rows of float32, each over its own range

`whole`: words of x are read as such. Else bytes are, each by itself; those beyond the end of k are read from its last,
and become 0.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import warp
from tilewright.kernels.ptx.bars import Bars
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, uint32, uint64
from tilewright.kernels.ptx.launch import kernel, specialise
from tilewright.kernels.ptx.warp import larger
from tilewright.kernels.quantize.cuda_elements import four_bytes, scale_at, zero_at

THREADS = 256
WARPS = THREADS // 32
ROWS = 32  # of a block of `across`
CHUNK = 16  # bytes
RECORD = 8  # words
PITCH = 33  # words of a row in shared memory, so that neither rows nor columns of words share a bank
TILES = 2 * ROWS * PITCH
ONES = 0x01010101
# of the rows' parameters, those that are None are numbers
PARAMETERS = ("r zeros, r scales, r y_scales, r y_zeros, i32 zero, f32 scale, f32 y_scale, i32 y_zero, u32 rows, "
              "u32 k, u64 z0, u64 z1, u64 s0, u64 s1, u64 v0, u64 v1, u64 w0, u64 w1, u64 records0")


def filled(k: int) -> int:
    """Bytes of a row of k elements, filled up."""
    return -(-k // CHUNK) * CHUNK


@inline
def first_bytes(word, count):
    """A word whose bytes from number `count` on, which may be negative, are 0"""
    kept = uint32(uint32(uint32(1) << uint32(8 * max(count, int32(0)))) - uint32(1))
    return word if count >= int32(4) else uint32(word & kept)


def _byte_sum(signed: bool) -> Any:
    """(word, total): total and the four bytes of a word."""
    @inline
    def of_signed(word, total):
        return ptx.dp4a_ss(word, uint32(ONES), total)

    @inline
    def of_unsigned(word, total):
        return int32(ptx.dp4a_uu(word, uint32(ONES), uint32(total)))
    return of_signed if signed else of_unsigned


@inline
def record(to, total, row, k, batch, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero, z0, z1, s0, s1,
           v0, v1, w0, w1):
    """Write the record of a row whose elements have the sum `total`."""
    z = uint32(zero_at(zeros, batch * z0 + row * z1, zero))
    s = ptx.f32_bits(scale_at(scales, batch * s0 + row * s1, scale))
    to += row * uint64(4 * RECORD)
    ptx.stg_u32x4(to, z, total, s, uint32(total - uint32(z * k)))
    ptx.stg_u32x4(to + uint64(16), ptx.f32_bits(scale_at(y_scales, batch * v0 + row * v1, y_scale)),
                  uint32(zero_at(y_zeros, batch * w0 + row * w1, y_zero)), uint32(0), uint32(0))


@inline
def own_row(warps):
    """The row of this thread's warp"""
    return uint32(uint32(uint32(cuda.blockIdx.x) * uint32(warps)) + uint32(cuda.threadIdx.x >> uint32(5)))


@kernel(f"r sums, w records, {PARAMETERS}", threads=THREADS)
def recorded(sums, records, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero, rows, k, z0, z1, s0, s1,
             v0, v1, w0, w1, records0):
    batch, row = uint64(uint32(cuda.blockIdx.y)), uint32(uint32(uint32(cuda.blockIdx.x) * uint32(THREADS))
                                                         + uint32(cuda.threadIdx.x))
    if row < rows:
        total = uint32(zero_at(sums, uint64(row) * uint64(4), int32(0)))
        record(records + batch * records0, total, uint64(row), k, batch, zeros, scales, y_scales, y_zeros, zero, scale,
               y_scale, y_zero, z0, z1, s0, s1, v0, v1, w0, w1)


@specialise((True,), (False,))
def summed(signed: bool):
    add = _byte_sum(signed)

    @kernel(f"r x, w records, u64 x0, u64 x1, {PARAMETERS}", threads=THREADS, bars=Bars(widest=128, sectors=1.0))
    def summed(x, records, x0, x1, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero, rows, k, z0, z1, s0,
               s1, v0, v1, w0, w1, records0):
        lane, batch, row = uint32(cuda.threadIdx.x & uint32(31)), uint64(uint32(cuda.blockIdx.y)), own_row(WARPS)
        if row < rows:
            x += batch * x0 + uint64(row) * x1
            total, i = int32(0), uint32(lane * uint32(CHUNK))
            while i < k:
                a, b, c, d = ptx.ldg_u32x4(x + uint64(i))
                total = add(d, add(c, add(b, add(a, total))))
                i = uint32(i + uint32(32 * CHUNK))
            total = warp.warp_sum(total)
            if lane == uint32(0):
                record(records + batch * records0, uint32(total), uint64(row), k, batch, zeros, scales, y_scales,
                       y_zeros, zero, scale, y_scale, y_zero, z0, z1, s0, s1, v0, v1, w0, w1)
    return summed


@inline
def byte_at(x, step, count, p):
    """Element p of `count`, or the last"""
    return ptx.ldg_u8(x + uint64(min(p, uint32(count - uint32(1)))) * step)


@inline
def four_at(x, step, count, p):
    """Elements p ... p + 3, each of them or the last"""
    return four_bytes(byte_at(x, step, count, p), byte_at(x, step, count, uint32(p + uint32(1))),
                      byte_at(x, step, count, uint32(p + uint32(2))), byte_at(x, step, count, uint32(p + uint32(3))))


def _word_along(whole: bool) -> Any:
    """(x, step, k, p): elements p ... p + 3 of a row of k, 0 beyond it."""
    @inline
    def by_bytes(x, step, k, p):
        return first_bytes(four_at(x, step, k, p), int32(k - p))

    @inline
    def at_once(x, step, k, p):
        return ptx.ldg_u32(x + uint64(p)) if p < k else uint32(0)
    return at_once if whole else by_bytes


@specialise((True, True), (False, False))
def along(signed: bool, whole: bool):
    """whole: k is a multiple of 4, and the elements of a row lie together, at a multiple of 4"""
    add, word_at = _byte_sum(signed), _word_along(whole)

    @kernel(f"r x, w y, w records, u32 words, u64 x0, u64 x1, u64 x2, u64 y0, {PARAMETERS}", threads=THREADS)
    def along(x, y, records, words, x0, x1, x2, y0, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero,
              rows, k, z0, z1, s0, s1, v0, v1, w0, w1, records0):
        lane, batch, row = uint32(cuda.threadIdx.x & uint32(31)), uint64(uint32(cuda.blockIdx.y)), own_row(WARPS)
        if row < rows:
            x += batch * x0 + uint64(row) * x1
            y += batch * y0 + uint64(row) * uint64(words) * uint64(4)
            total, i = int32(0), lane
            while i < words:
                word = word_at(x, x2, k, uint32(i * uint32(4)))
                total = add(word, total)
                ptx.stg_u32(y + uint64(i) * uint64(4), word)
                i = uint32(i + uint32(32))
            total = warp.warp_sum(total)
            if lane == uint32(0):
                record(records + batch * records0, uint32(total), uint64(row), k, batch, zeros, scales, y_scales,
                       y_zeros, zero, scale, y_scale, y_zero, z0, z1, s0, s1, v0, v1, w0, w1)
    return along


@inline
def word_across(x, step, rows, row):
    """The first elements of rows row ... row + 3, or of the last four"""
    return ptx.ldg_u32(x + uint64(min(row, uint32(rows - uint32(4)))))


@inline
def turned(a, b, c, d):
    """The columns of 4 x 4 bytes, given by rows"""
    e, f = ptx.byte_perm(a, b, uint32(0x5140)), ptx.byte_perm(c, d, uint32(0x5140))
    g, h = ptx.byte_perm(a, b, uint32(0x7362)), ptx.byte_perm(c, d, uint32(0x7362))
    return (ptx.byte_perm(e, f, uint32(0x5410)), ptx.byte_perm(e, f, uint32(0x7632)),
            ptx.byte_perm(g, h, uint32(0x5410)), ptx.byte_perm(g, h, uint32(0x7632)))


@specialise((True, True), (False, False))
def across(signed: bool, whole: bool):
    """A block takes 32 rows, 128 of k at a time. whole: there are 4 n rows, neighbours, from a multiple of 4 on

    Each of two tiles in shared memory is filled while there may be readers of the other.
    """
    add, word_at = _byte_sum(signed), word_across if whole else four_at

    @kernel(f"r x, w y, w records, u32 words, u64 x0, u64 x1, u64 x2, u64 y0, {PARAMETERS}", threads=THREADS)
    def across(x, y, records, words, x0, x1, x2, y0, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero,
               rows, k, z0, z1, s0, s1, v0, v1, w0, w1, records0):
        tiles = cuda.shared.array(TILES, uint32)
        lane, number = uint32(cuda.threadIdx.x & uint32(31)), uint32(cuda.threadIdx.x >> uint32(5))
        batch, first = uint64(uint32(cuda.blockIdx.y)), uint32(uint32(cuda.blockIdx.x) * uint32(ROWS))
        x += batch * x0
        y += batch * y0
        own = uint32(number * uint32(4))  # of the rows that this warp writes, the first
        group, word = uint32(uint32(lane & uint32(7)) * uint32(4)), uint32(own + uint32(lane >> uint32(3)))  # it reads
        total = cuda.local.array(4, int32)
        for i in range(4):
            total[i] = int32(0)
        done, tile = uint32(0), uint32(0)
        while True:
            p, last, row = uint32(uint32(done + word) * uint32(4)), uint32(k - uint32(1)), uint32(first + group)
            a, b, c, d = turned(word_at(x + uint64(min(p, last)) * x2, x1, rows, row),
                                word_at(x + uint64(min(uint32(p + uint32(1)), last)) * x2, x1, rows, row),
                                word_at(x + uint64(min(uint32(p + uint32(2)), last)) * x2, x1, rows, row),
                                word_at(x + uint64(min(uint32(p + uint32(3)), last)) * x2, x1, rows, row))
            left, to = int32(k - p), uint32(tile + uint32(uint32(group * uint32(PITCH)) + word))
            tiles[to] = first_bytes(a, left)
            tiles[uint32(to + uint32(PITCH))] = first_bytes(b, left)
            tiles[uint32(to + uint32(2 * PITCH))] = first_bytes(c, left)
            tiles[uint32(to + uint32(3 * PITCH))] = first_bytes(d, left)
            cuda.syncthreads()
            at = uint32(done + lane)
            for i in range(4):
                row = uint32(own + uint32(i))
                value = tiles[uint32(tile + uint32(uint32(row * uint32(PITCH)) + lane))]
                total[i] = add(value, total[i])
                if at < words and uint32(first + row) < rows:
                    ptx.stg_u32(y + (uint64(uint32(first + row)) * uint64(words) + uint64(at)) * uint64(4), value)
            done, tile = uint32(done + uint32(32)), uint32(uint32(ROWS * PITCH) - tile)
            if done >= words:
                break
        for i in range(4):
            row, sum_ = uint32(first + uint32(own + uint32(i))), warp.warp_sum(total[i])
            if lane == uint32(0) and row < rows:
                record(records + batch * records0, uint32(sum_), uint64(row), k, batch, zeros, scales, y_scales,
                       y_zeros, zero, scale, y_scale, y_zero, z0, z1, s0, s1, v0, v1, w0, w1)
    return across


# ---- rows of float32, each over its own range

@inline
def float_at(x, step, count, p):
    """Element p of `count`, or the last"""
    return ptx.ldg_f32(x + uint64(min(p, uint32(count - uint32(1)))) * step)


def four_floats(whole: bool) -> Any:
    """(x, step, k, p): elements p ... p + 3 of a row of k; beyond it, others that it has."""
    @inline
    def one_by_one(x, step, k, p):
        return (float_at(x, step, k, p), float_at(x, step, k, uint32(p + uint32(1))),
                float_at(x, step, k, uint32(p + uint32(2))), float_at(x, step, k, uint32(p + uint32(3))))

    @inline
    def at_once(x, step, k, p):
        return ptx.ldg_f32x4(x + uint64(min(p, uint32(k - uint32(4)))) * uint64(4))
    return at_once if whole else one_by_one


LEAST_SCALE = np.float32(2.0 ** -100)


@inline
def on_grid(x, inverse, zero):
    """round(x · inverse) + zero, within 0 ... 255, as int32; 0 for NaN"""
    q = ptx.add_rn(ptx.rint_f32(ptx.mul_rn(x, inverse)), zero)
    q = q if q > float32(0) else float32(0)
    return int32(q if q < float32(255) else float32(255))


AGAIN = {"guard: while uint32(i * uint32(4)) < k:":
         "k is at least 4: threads beyond the row's end read its last four elements again, which widens no range"}


@specialise((True,), (False,))
def quantize_rows(whole: bool):
    """A block for each row; whole: k is a multiple of 4, not 0, elements of a row lie together, at a multiple of 16"""
    four = four_floats(whole)

    @kernel("r x, w y, w records, u32 k, u32 words, u64 x1, u64 x2", threads=THREADS, harmless=AGAIN if whole else {})
    def quantize_rows(x, y, records, k, words, x1, x2):
        part, other = cuda.shared.array(32, float32), cuda.shared.array(32, float32)
        counts = cuda.shared.array(32, int32)
        row = uint64(uint32(cuda.blockIdx.x))
        x += row * x1
        high, low = float32(0), float32(0)
        i = uint32(cuda.threadIdx.x)
        while uint32(i * uint32(4)) < k:
            a, b, c, d = four(x, x2, k, uint32(i * uint32(4)))
            high = larger(d, larger(c, larger(b, larger(a, high))))
            low = larger(-d, larger(-c, larger(-b, larger(-a, low))))
            i = uint32(i + uint32(THREADS))
        high, low = warp.block_max(high, part, float32(0)), warp.block_max(low, other, float32(0))
        scale = ptx.add_rn(ptx.div_rn(high, float32(255)), ptx.div_rn(low, float32(255)))
        scale = LEAST_SCALE if scale < LEAST_SCALE else scale
        good = scale < float32(np.inf)
        inverse = ptx.div_rn(float32(1), scale) if good else float32(0)
        zero = ptx.rint_f32(ptx.mul_rn(low, inverse)) if good else float32(0)
        zero = zero if zero < float32(255) else float32(255)
        total = uint32(0)
        i = uint32(cuda.threadIdx.x)
        while i < words:
            p = uint32(i * uint32(4))
            a, b, c, d = four(x, x2, k, p)
            word = first_bytes(four_bytes(on_grid(a, inverse, zero), on_grid(b, inverse, zero),
                                          on_grid(c, inverse, zero), on_grid(d, inverse, zero)), int32(k - p))
            total = ptx.dp4a_uu(word, uint32(ONES), total)
            ptx.stg_u32(y + (row * uint64(words) + uint64(i)) * uint64(4), word)
            i = uint32(i + uint32(THREADS))
        total = uint32(warp.block_sum(int32(total), counts, int32(0)))
        if uint32(cuda.threadIdx.x) == uint32(0):
            z = uint32(int32(zero))
            to = records + row * uint64(4 * RECORD)
            ptx.stg_u32x4(to, z, total, ptx.f32_bits(scale if good else float32(np.nan)), uint32(total - uint32(z * k)))
            ptx.stg_u32x4(to + uint64(16), uint32(0), uint32(0), uint32(0), uint32(0))
    return quantize_rows
