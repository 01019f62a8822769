"""The conversions in CUDA, of one element and of four: what quantize's kernels and the quantized products share.

Every operation is float32 and rounds by itself, so that integers are the same on every backend. Integers travel as
int32; four bytes, or two pairs of 16 bits, are written and read as words.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import float32, inline, int32, uint32, uint64


@inline
def ldg_s16(at):
    return int32(int32(uint32(ptx.ldg_u16(at) << uint32(16))) >> int32(16))


LOAD = {"uint8": ptx.ldg_u8, "int8": ptx.ldg_s8, "uint16": ptx.ldg_u16, "int16": ldg_s16, "int32": ptx.ldg_u32}
STORE = {1: ptx.stg_u8, 2: ptx.stg_u16}


@inline
def quantized(x, scale, zero, low, high):
    """saturate(round(x / scale) + zero) as int32; NaN gives low"""
    q = ptx.rint_f32(ptx.div_rn(x, scale))
    least, most = float32(int32(low - zero)), float32(int32(high - zero))
    q = q if q > least else least
    return int32(int32(q if q < most else most) + zero)


@inline
def dequantized(x, scale, zero):
    """(x - zero) * scale"""
    return ptx.mul_rn(float32(int32(x - zero)), scale)


@inline
def four_bytes(a, b, c, d):
    """The lowest bytes of four int32, the first lowest."""
    low = uint32(uint32(uint32(a) & uint32(255)) | uint32(uint32(uint32(b) & uint32(255)) << uint32(8)))
    return uint32(low | uint32(uint32(uint32(uint32(c) & uint32(255)) << uint32(16)) | uint32(uint32(d) << uint32(24))))


@inline
def two_halves(a, b):
    """The lowest 16 bits of two int32, the first lowest."""
    return uint32(uint32(uint32(a) & uint32(0xFFFF)) | uint32(uint32(b) << uint32(16)))


def store_four(bits: int) -> Any:
    """(address, a, b, c, d): four integers of 8 or 16 bits to a multiple of their size."""
    @inline
    def bytes_(at, a, b, c, d):
        ptx.stg_u32(at, four_bytes(a, b, c, d))

    @inline
    def halves(at, a, b, c, d):
        ptx.stg_u32x2(at, two_halves(a, b), two_halves(c, d))
    return bytes_ if bits == 8 else halves


def _field(bits: int, signed: bool) -> Any:
    """Field number `at` of a word as int32."""
    rest = 32 - bits

    @inline
    def signed_field(word, at):
        return int32(int32(uint32(word << uint32(rest - at * bits))) >> int32(rest))

    @inline
    def unsigned_field(word, at):
        return int32(uint32(word << uint32(rest - at * bits)) >> uint32(rest))
    return signed_field if signed else unsigned_field


def load_four(dtype: str) -> Any:
    """(address) -> four integers of a dtype as int32, from a multiple of their size."""
    signed, size = dtype.startswith("int"), int(dtype.lstrip("uint")) // 8
    field = _field(8 * size, signed) if size < 4 else None

    @inline
    def bytes_(at):
        word = ptx.ldg_u32(at)
        return field(word, 0), field(word, 1), field(word, 2), field(word, 3)

    @inline
    def halves(at):
        low, high = ptx.ldg_u32x2(at)
        return field(low, 0), field(low, 1), field(high, 0), field(high, 1)

    @inline
    def words(at):
        a, b, c, d = ptx.ldg_u32x4(at)
        return int32(a), int32(b), int32(c), int32(d)
    return {1: bytes_, 2: halves, 4: words}[size]


@inline
def scale_at(scales, at, number):
    """A float32 of memory, or the number where there is no memory"""
    return number if scales == uint64(0) else ptx.ldg_f32(scales + at)


@inline
def zero_at(zeros, at, number):
    """An int32 of memory, or the number where there is no memory"""
    return number if zeros == uint64(0) else int32(ptx.ldg_u32(zeros + at))
