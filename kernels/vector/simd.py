"""Vectors as Numba values: `Vector(float32, 16)` is one register, with Python's operators and the intrinsics below.

    x = load(a, i)                  lanes a[i : i + W] of a contiguous 1-D array; W follows from a's dtype and the host
    y = fma(x, 2.0, -1.0)           scalars are spread over the lanes, rounded to the vector's dtype
    y = select(x < 0.0, 0.0, y)     comparisons give masks; both branches are evaluated
    store_n(b, j, y, n)             the first n lanes only; b[j + n] and beyond are neither read nor written

A vector lives inside compiled code only. Lanes never mix but in the sums of memory.py, so a result does not depend on
how a range of elements was cut into vectors: tails run the same formula under a mask.
"""
from __future__ import annotations

import operator
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from .host import BYTES, HAS_FMA, ISA, inner

I32 = ir.IntType(32)


class Vector(types.Type):
    """`lanes` values of one Numba scalar type; of booleans for a mask."""

    def __init__(self, dtype: Any, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"vector({dtype} x {lanes})")

    @property
    def ir(self) -> ir.VectorType:
        """The LLVM type."""
        if self.dtype is types.boolean:
            element = ir.IntType(1)
        elif isinstance(self.dtype, types.Float):
            element = ir.FloatType() if self.dtype.bitwidth == 32 else ir.DoubleType()
        else:
            element = ir.IntType(self.dtype.bitwidth)
        return ir.VectorType(element, self.lanes)

    def of(self, dtype: Any) -> Vector:
        """As many lanes of another type."""
        return Vector(dtype, self.lanes)

    @property
    def bits(self) -> Vector:
        """The signed integers of the same width."""
        return self.of(types.int32 if self.dtype.bitwidth == 32 else types.int64)


def vector(dtype: Any) -> Vector:
    """The vector of `dtype` that fills one register of the host."""
    return Vector(dtype, BYTES * 8 // dtype.bitwidth)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.ir)


# Scalars to vectors

def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """One scalar in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def spread(context, builder, value, ty, to: Vector):
    """`value` of Numba type `ty` as the vector type `to`: unchanged if it is a vector, else rounded and spread."""
    if isinstance(ty, Vector):
        return value
    return splat(builder, context.cast(builder, value, ty, to.dtype), to.lanes)


def _widest(args) -> Vector | None:
    """The vector type among the arguments, where all others are the same or scalars."""
    found = {a for a in args if isinstance(a, Vector)}
    others = all(isinstance(a, (Vector, types.Number)) for a in args)
    return found.pop() if len(found) == 1 and others else None


# Operators

_FLOAT = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
_INT = {operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.and_: "and_", operator.or_: "or_",
        operator.xor: "xor", operator.lshift: "shl", operator.rshift: ""}
_COMPARE = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
            operator.ne: "!="}


def _emit(op, builder, ty: Vector, x, y):
    floating = isinstance(ty.dtype, types.Float)
    if op in _COMPARE:
        if floating:  # != is true for NaN, all others are false
            compare = builder.fcmp_unordered if op is operator.ne else builder.fcmp_ordered
        else:
            compare = builder.icmp_signed if ty.dtype.signed else builder.icmp_unsigned
        return compare(_COMPARE[op], x, y)
    if floating:
        return getattr(builder, _FLOAT[op])(x, y)
    if op is operator.rshift:  # arithmetic for signed integers
        return (builder.ashr if ty.dtype.signed else builder.lshr)(x, y)
    return getattr(builder, _INT[op])(x, y)


def _declare(op) -> None:
    def typer(context):
        def type_of(x, y):
            ty = _widest((x, y))
            if ty is None or op not in _COMPARE and op not in (_FLOAT if isinstance(ty.dtype, types.Float) else _INT) \
                    and not (ty.dtype is types.boolean and op in (operator.and_, operator.or_, operator.xor)):
                return None
            return ty.of(types.boolean) if op in _COMPARE else ty
        return type_of

    def lower(context, builder, sig, args):
        ty = _widest(sig.args)
        x, y = (spread(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True))
        return _emit(op, builder, ty, x, y)

    type_callable(op)(typer)
    for x, y in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, x, y)(lower)


for _op in {*_FLOAT, *_INT, *_COMPARE}:
    _declare(_op)


@type_callable(operator.neg)
def _type_neg(context):
    return lambda x: x if isinstance(x, Vector) and isinstance(x.dtype, types.Float) else None


@lower_builtin(operator.neg, Vector)
def _lower_neg(context, builder, sig, args):
    return builder.fneg(args[0])


# Functions that are one LLVM intrinsic

def _suffix(ty: Vector) -> str:
    return f"v{ty.lanes}{'f' if isinstance(ty.dtype, types.Float) else 'i'}{ty.dtype.bitwidth}"


def _call(context, builder, sig, args, name: str):
    """Call llvm.<name> on the arguments, scalars spread."""
    ty = sig.return_type
    function = ir.FunctionType(ty.ir, [ty.ir] * len(args))
    callee = cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{_suffix(ty)}")
    return builder.call(callee, [spread(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True)])


@intrinsic
def fma(typing, x, y, z):
    """x * y + z, rounded once where the host can (HAS_FMA), else twice."""
    ty = _widest((x, y, z))
    return ty(x, y, z), partial(_call, name="fma" if HAS_FMA else "fmuladd")


@intrinsic
def sqrt(typing, x):
    """Correctly rounded square root."""
    return x(x), partial(_call, name="sqrt")


@intrinsic
def fabs(typing, x):
    """|x|, of NaN too."""
    return x(x), partial(_call, name="fabs")


@intrinsic
def copysign(typing, x, sign):
    """|x| with the sign bit of `sign`."""
    return _widest((x, sign))(x, sign), partial(_call, name="copysign")


# Selection, minimum and maximum, bits

@intrinsic
def select(typing, mask, x, y):
    """x where the mask is true, y elsewhere."""
    ty = _widest((x, y))
    if ty is None:
        return None

    def codegen(context, builder, sig, args):
        x, y = (spread(context, builder, v, t, ty) for v, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], x, y)
    return ty(mask, x, y), codegen


@intrinsic
def vmax(typing, x, y):
    """y where x < y, else x: the NaN of x stays, and so does its zero's sign. One instruction on x86."""
    ty = _widest((x, y))

    def codegen(context, builder, sig, args):
        x, y = (spread(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True))
        return builder.select(builder.fcmp_ordered("<", x, y), y, x)
    return ty(x, y), codegen


@intrinsic
def vmin(typing, x, y):
    """y where x > y, else x: the NaN of x stays."""
    ty = _widest((x, y))

    def codegen(context, builder, sig, args):
        x, y = (spread(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True))
        return builder.select(builder.fcmp_ordered(">", x, y), y, x)
    return ty(x, y), codegen


@intrinsic
def bits_of(typing, x):
    """The lanes' bit patterns as signed integers."""
    return x.bits(x), lambda context, builder, sig, args: builder.bitcast(args[0], sig.return_type.ir)


@intrinsic
def float_of(typing, x):
    """Signed integers as the bit patterns of floats."""
    ty = x.of(types.float32 if x.dtype.bitwidth == 32 else types.float64)
    return ty(x), lambda context, builder, sig, args: builder.bitcast(args[0], sig.return_type.ir)


# Constants by dtype

@intrinsic
def pick(typing, x, single, double):
    """One of two constants in every lane: `single` where x is of float32, `double` where it is of float64."""
    def codegen(context, builder, sig, args):
        at = 1 if x.dtype.bitwidth == 32 else 2
        return spread(context, builder, args[at], sig.args[at], x)
    return x(x, single, double), codegen


@intrinsic
def horner(typing, x, single, double):
    """The polynomial in x with the coefficients of x's dtype, a tuple from the highest power down."""
    def codegen(context, builder, sig, args):
        at = 1 if x.dtype.bitwidth == 32 else 2
        step = ir.FunctionType(x.ir, [x.ir] * 3)
        name = f"llvm.{'fma' if HAS_FMA else 'fmuladd'}.{_suffix(x)}"
        callee = cgutils.get_or_insert_function(builder.module, step, name)
        coefficients = [spread(context, builder, c, sig.args[at].dtype, x)
                        for c in cgutils.unpack_tuple(builder, args[at])]
        value = coefficients[0]
        for c in coefficients[1:]:
            value = builder.call(callee, [value, args[0], c])
        return value
    return x(x, single, double), codegen


# Powers of two

MAGIC = (1.5 * 2.0 ** 23, 1.5 * 2.0 ** 52)  # adding it rounds to an integer, which then stands in the lowest bits


@inner
def power2(n):
    """2^n for integers n held as floats, within the range of normal numbers."""
    biased = n + pick(n, MAGIC[0] + 127.0, MAGIC[1] + 1023.0)
    return float_of(bits_of(biased) << exponent_shift(n))


@intrinsic
def exponent_shift(typing, x):
    """How far the exponent stands from the lowest bit."""
    shift = 23 if x.dtype.bitwidth == 32 else 52
    return types.int64(x), lambda context, builder, sig, args: context.get_constant(types.int64, shift)


if ISA == "avx512":
    @intrinsic
    def ldexp(typing, x, n):
        """x * 2^n, rounded once, for integers n held as floats of any size."""
        def codegen(context, builder, sig, args):
            ty = sig.return_type
            bits = ir.IntType(ty.lanes)
            kind = "ps" if ty.dtype.bitwidth == 32 else "pd"
            function = ir.FunctionType(ty.ir, [ty.ir, ty.ir, ty.ir, bits, I32])
            callee = cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.avx512.mask.scalef.{kind}.512")
            return builder.call(callee, [*args, ir.Constant(ty.ir, None), bits(-1), I32(4)])  # 4: the current rounding
        return x(x, n), codegen
else:
    @inner
    def ldexp(x, n):
        """x * 2^n for integers n held as floats, up to twice a normal exponent; rounded once for x from 2^-8 to 2^8."""
        half = fma(n, 0.5, pick(n, *MAGIC)) - pick(n, *MAGIC)
        return x * power2(half) * power2(n - half)
