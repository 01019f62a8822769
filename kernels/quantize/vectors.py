"""Vectors between float32 and small integers: what the conversions and the quantized products share.

Integers travel as int32, as many lanes as a vector of float32. Arrays of int8 to uint16 are read and written that many
elements at a time. Nothing here fuses a multiply-add: results are the same integers on every machine.
"""
from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.kernels.vector.host import inner
from tilewright.kernels.vector.memory import (
    emit_load,
    emit_store,
    filled,
    lane_mask,
    lanes,
    load_at,
    reduce_add,
    reduce_max,
)
from tilewright.kernels.vector.simd import MAGIC, Vector, bits_of, vector, vmax, vmin

MAGIC_BITS = 0x4B400000  # of MAGIC[0] as a float32: rounded integers count from there
WORDS = vector(types.int32)


@intrinsic
def as_float(typing, x):
    """int32 lanes as float32, rounded to nearest."""
    ty = x.of(types.float32)
    return ty(x), lambda context, builder, sig, args: builder.sitofp(args[0], ty.ir)


@inner
def rounded(x):
    """float32 lanes up to 2^22 as the nearest int32, ties to even."""
    return bits_of(x + MAGIC[0]) - MAGIC_BITS


@inner
def quantized(x, scale, zero, low, high):
    """saturate(round(x / scale) + zero); x and scale float32 lanes, zero int32 lanes; NaN gives low."""
    quotient = vmin(vmax(as_float(low - zero), x / scale), as_float(high - zero))
    return rounded(quotient) + zero


def _of_lanes(builder, n, part):
    """part(mask), with no mask for a whole vector, else with one of n lanes."""
    with builder.if_else(builder.icmp_signed(">=", n, n.type(WORDS.lanes)), likely=True) as (whole, rest):
        with whole:
            part(None)
        with rest:
            part(lane_mask(builder, n, WORDS.lanes))


@intrinsic
def integers_at(typing, array, at, n):
    """n integers of the dtype of `array` from an address, as int32, then zeros"""
    ty = Vector(array.dtype, WORDS.lanes)

    def codegen(context, builder, sig, args):
        cell, pointer = cgutils.alloca_once(builder, ty.ir), builder.inttoptr(args[1], ty.ir.as_pointer())
        _of_lanes(builder, args[2], lambda mask: builder.store(emit_load(builder, pointer, ty, mask), cell))
        value = builder.load(cell)
        if array.dtype.bitwidth == 32:
            return value
        return (builder.sext if array.dtype.signed else builder.zext)(value, WORDS.ir)
    return WORDS(array, types.intp, types.intp), codegen


@intrinsic
def put_integers(typing, array, at, value, n):
    """The first n lanes of an int32 vector, which fit the dtype of `array`, to an address"""
    ty = Vector(array.dtype, WORDS.lanes)

    def codegen(context, builder, sig, args):
        small, pointer = builder.trunc(args[2], ty.ir), builder.inttoptr(args[1], ty.ir.as_pointer())
        _of_lanes(builder, args[3], lambda mask: emit_store(builder, small, pointer, ty, mask))
        return context.get_dummy_value()
    return types.void(array, types.intp, value, types.intp), codegen


@inner
def extremes(x, at, n):
    """(low, high) of n contiguous float32 elements and 0, from an address; both NaN where one is no finite number."""
    w = lanes(x)
    low = filled(x, 0.0)
    high, strange = low, low
    for j in range(0, n, w):
        v = load_at(x, at + 4 * j, min(w, n - j))  # lanes beyond are 0, which takes part anyway
        low, high, strange = vmin(low, v), vmax(high, v), strange + (v - v)
    nothing = reduce_add(strange)
    return nothing - reduce_max(-low), nothing + reduce_max(high)
