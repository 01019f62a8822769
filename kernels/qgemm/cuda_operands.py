"""Operands of the integer products as their CUDA kernels read them, made on the device.

    y          [row][k]        bytes of a (M, K), or of b's columns, K filled up with zeros to whole chunks of 16
    records    [row][8]        words: zero point, sum of the row, scale, sum - K · zero point, result's scale and zero
                               point, 0, 0

`arrange` takes matrices with any strides: where k is the contiguous axis, a lane takes a word of a row, and a warp 128
bytes of one; else a lane takes a row, so that a warp reads 32 neighbours, and words change places in shared memory.
`quantize_rows` makes the same of rows of float32, each over its own range.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import warp
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, uint32, uint64
from tilewright.kernels.ptx.launch import kernel, specialise
from tilewright.kernels.quantize.cuda_elements import four_bytes, scale_at, zero_at

THREADS = 256
ROWS = 32  # of a block of `arrange`
CHUNK = 16  # bytes
RECORD = 8  # words
PITCH = 33  # words of a row in shared memory, so that neither rows nor columns of words share a bank
SHARED = ROWS * PITCH
ONES = 0x01010101


def filled(k: int) -> int:
    """Bytes of a row of k elements, filled up."""
    return -(-k // CHUNK) * CHUNK


@inline
def byte_at(x, step, k, p):
    """Element p of a row of k; 0 beyond it"""
    return int32(ptx.ldg_u8(x + uint64(p) * step)) if p < k else int32(0)


@inline
def word_at(x, step, k, p):
    """Elements p ... p + 3 of a row of k"""
    return four_bytes(byte_at(x, step, k, p), byte_at(x, step, k, uint32(p + uint32(1))),
                      byte_at(x, step, k, uint32(p + uint32(2))), byte_at(x, step, k, uint32(p + uint32(3))))


def _byte_sum(signed: bool) -> Any:
    """(word, total): total and the four bytes of a word."""
    @inline
    def of_signed(word, total):
        return ptx.dp4a_ss(word, uint32(ONES), total)

    @inline
    def of_unsigned(word, total):
        return int32(ptx.dp4a_uu(word, uint32(ONES), uint32(total)))
    return of_signed if signed else of_unsigned


@specialise((True, True), (True, False), (False, True), (False, False))
def arrange(signed: bool, along_k: bool):
    """y may be None, where x lies as y would; of the parameters, those that are None are numbers."""
    add = _byte_sum(signed)

    @inline
    def direct(tile, x, first, rows, k, x1, x2, p, row, lane):
        at = uint32(first + row)
        return word_at(x + uint64(at) * x1, x2, k, uint32(p + uint32(lane * uint32(4)))) if at < rows else uint32(0)

    @inline
    def nothing(tile, x, first, rows, k, x1, x2, p, number, lane):
        pass

    @inline
    def through_tile(tile, x, first, rows, k, x1, x2, p, row, lane):
        return tile[uint32(row * uint32(PITCH) + lane)]

    @inline
    def fill(tile, x, first, rows, k, x1, x2, p, number, lane):
        cuda.syncthreads()
        at = uint32(first + lane)
        for i in range(4):
            word = uint32(number + uint32(8 * i))
            value = uint32(0)
            if at < rows:
                value = word_at(x + uint64(at) * x1, x2, k, uint32(p + uint32(word * uint32(4))))
            tile[uint32(lane * uint32(PITCH) + word)] = value
        cuda.syncthreads()
    prepare, take = (nothing, direct) if along_k else (fill, through_tile)

    @kernel("r x, w y, w records, r zeros, r scales, r y_scales, r y_zeros, i32 zero, f32 scale, f32 y_scale, "
            "i32 y_zero, u32 rows, u32 k, u32 words, u64 x0, u64 x1, u64 x2, u64 z0, u64 z1, u64 s0, u64 s1, u64 v0, "
            "u64 v1, u64 w0, u64 w1, u64 y0, u64 records0", threads=THREADS)
    def arrange(x, y, records, zeros, scales, y_scales, y_zeros, zero, scale, y_scale, y_zero, rows, k, words, x0, x1,
                x2, z0, z1, s0, s1, v0, v1, w0, w1, y0, records0):
        tile = cuda.shared.array(SHARED, uint32)
        lane, number = uint32(cuda.threadIdx.x & uint32(31)), uint32(cuda.threadIdx.x >> uint32(5))
        batch, first = uint64(uint32(cuda.blockIdx.y)), uint32(uint32(cuda.blockIdx.x) * uint32(ROWS))
        x += batch * x0
        records += batch * records0
        total = cuda.local.array(4, int32)
        for i in range(4):
            total[i] = int32(0)
        done = uint32(0)
        while done < words:
            p = uint32(done * uint32(4))
            prepare(tile, x, first, rows, k, x1, x2, p, number, lane)
            for i in range(4):
                row = uint32(uint32(number * uint32(4)) + uint32(i))
                word = take(tile, x, first, rows, k, x1, x2, p, row, lane)
                total[i] = add(word, total[i])
                at = uint32(done + lane)
                if y != uint64(0) and at < words and uint32(first + row) < rows:
                    to = uint64(uint32(first + row)) * uint64(words) + uint64(at)
                    ptx.stg_u32(y + batch * y0 + to * uint64(4), word)
            done = uint32(done + uint32(32))
        for i in range(4):
            row = uint64(uint32(uint32(first + uint32(number * uint32(4))) + uint32(i)))
            sum_ = uint32(warp.warp_sum(total[i]))
            if lane == uint32(0) and row < uint64(rows):
                z = uint32(zero_at(zeros, batch * z0 + row * z1, zero))
                s = ptx.f32_bits(scale_at(scales, batch * s0 + row * s1, scale))
                to = records + row * uint64(4 * RECORD)
                ptx.stg_u32x4(to, z, sum_, s, uint32(sum_ - uint32(z * k)))
                ptx.stg_u32x4(to + uint64(16), ptx.f32_bits(scale_at(y_scales, batch * v0 + row * v1, y_scale)),
                              uint32(zero_at(y_zeros, batch * w0 + row * w1, y_zero)), uint32(0), uint32(0))
    return arrange


# ---- rows of float32, each over its own range

@inline
def wider(high, x):
    """max(high, x); NaN where one of them is"""
    return x if x > high or x != x else high


@inline
def float_at(x, step, k, p):
    return ptx.ldg_f32(x + uint64(p) * step) if p < k else float32(0)


def _four(vectors: bool) -> Any:
    """(x, step, k, p): elements p ... p + 3 of a row of k, 0 beyond it."""
    @inline
    def one_by_one(x, step, k, p):
        return (float_at(x, step, k, p), float_at(x, step, k, uint32(p + uint32(1))),
                float_at(x, step, k, uint32(p + uint32(2))), float_at(x, step, k, uint32(p + uint32(3))))

    @inline
    def at_once(x, step, k, p):
        if uint32(p + uint32(4)) <= k:
            return ptx.ldg_f32x4(x + uint64(p) * uint64(4))
        return one_by_one(x, step, k, p)
    return at_once if vectors else one_by_one


LEAST_SCALE = np.float32(2.0 ** -100)


@inline
def on_grid(x, inverse, zero):
    """round(x · inverse) + zero, within 0 ... 255, as int32"""
    q = ptx.add_rn(ptx.rint_f32(ptx.mul_rn(x, inverse)), zero)
    q = q if q > float32(0) else float32(0)
    return int32(q if q < float32(255) else float32(255))


@specialise((True,), (False,))
def quantize_rows(vectors: bool):
    """A block for each row; vectors: rows begin at multiples of 16 bytes, k is the contiguous axis."""
    four = _four(vectors)

    @kernel("r x, w y, w records, u32 k, u32 words, u64 x1, u64 x2", threads=THREADS)
    def quantize_rows(x, y, records, k, words, x1, x2):
        part, other = cuda.shared.array(32, float32), cuda.shared.array(32, float32)
        counts = cuda.shared.array(32, int32)
        row = uint64(uint32(cuda.blockIdx.x))
        x += row * x1
        high, low = float32(0), float32(0)
        i = uint32(cuda.threadIdx.x)
        while uint32(i * uint32(4)) < k:
            a, b, c, d = four(x, x2, k, uint32(i * uint32(4)))
            high = wider(wider(wider(wider(high, a), b), c), d)
            low = wider(wider(wider(wider(low, -a), -b), -c), -d)
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
            word = uint32(0)
            if good and p < k:
                a, b, c, d = four(x, x2, k, p)
                word = four_bytes(on_grid(a, inverse, zero), on_grid(b, inverse, zero), on_grid(c, inverse, zero),
                                  on_grid(d, inverse, zero))
                word = uint32(word & uint32(uint32(0xFFFFFFFF) >> uint32(
                    uint32(8) * uint32(uint32(4) - min(uint32(4), uint32(k - p))))))
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
