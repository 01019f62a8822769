"""Loads and stores between vectors and contiguous 1-D arrays, conversions, and sums over the lanes in a fixed order.

Nothing is assumed about alignment. The forms with `_n` touch the first n lanes only (0 <= n <= W); loaded lanes
beyond n are 0. With AVX-512 a mask costs nothing; elsewhere they branch, and use a mask (AVX2) or scalar moves only
where n < W.
"""
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .host import ISA
from .simd import I32, Vector, spread, vector


def _vector_of(array) -> Vector | None:
    """The vector type for elements of a contiguous 1-D array type, None for any other array."""
    if isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C":
        return vector(array.dtype)
    return None


def _pointer(context, builder, array_type, array, index, ty: Vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ty.ir.as_pointer())


def lane_mask(builder, n, lanes: int):
    """<lanes x i1>, true in the first n."""
    ints = ir.VectorType(I32, lanes)
    undefined = ir.Constant(ints, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(n, I32), I32(0))
    limit = builder.shuffle_vector(first, undefined, ir.Constant(ints, [0] * lanes))
    return builder.icmp_signed("<", ir.Constant(ints, list(range(lanes))), limit)


def emit_load(builder, pointer, ty: Vector, mask=None):
    """Load a vector from an address aligned to its elements; lanes outside the mask are 0."""
    align = ty.dtype.bitwidth // 8
    if mask is None:
        return builder.load(pointer, align=align)
    name = f"llvm.masked.load.v{ty.lanes}{'f' if isinstance(ty.dtype, types.Float) else 'i'}{ty.dtype.bitwidth}.p0"
    function = ir.FunctionType(ty.ir, [pointer.type, I32, mask.type, ty.ir])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name),
                        [pointer, I32(align), mask, ir.Constant(ty.ir, None)])


def emit_store(builder, value, pointer, ty: Vector, mask=None) -> None:
    """Store a vector, or its lanes under a mask."""
    align = ty.dtype.bitwidth // 8
    if mask is None:
        builder.store(value, pointer, align=align)
        return
    name = f"llvm.masked.store.v{ty.lanes}{'f' if isinstance(ty.dtype, types.Float) else 'i'}{ty.dtype.bitwidth}.p0"
    function = ir.FunctionType(ir.VoidType(), [ty.ir, pointer.type, I32, mask.type])
    builder.call(cgutils.get_or_insert_function(builder.module, function, name), [value, pointer, I32(align), mask])


def _load_first(builder, pointer, ty: Vector, n):
    """The first n lanes, then zeros."""
    mask = lane_mask(builder, n, ty.lanes)
    if ISA == "avx512":
        return emit_load(builder, pointer, ty, mask)
    cell = cgutils.alloca_once(builder, ty.ir)
    with builder.if_else(builder.icmp_signed(">=", n, n.type(ty.lanes)), likely=True) as (whole, part):
        with whole:
            builder.store(emit_load(builder, pointer, ty), cell)
        with part:
            builder.store(emit_load(builder, pointer, ty, mask), cell)
    return builder.load(cell)


def _store_first(builder, value, pointer, ty: Vector, n) -> None:
    """The first n lanes."""
    mask = lane_mask(builder, n, ty.lanes)
    if ISA == "avx512":
        emit_store(builder, value, pointer, ty, mask)
        return
    with builder.if_else(builder.icmp_signed(">=", n, n.type(ty.lanes)), likely=True) as (whole, part):
        with whole:
            emit_store(builder, value, pointer, ty)
        with part:
            emit_store(builder, value, pointer, ty, mask)


@intrinsic
def lanes(typing, array):
    """W: the lanes of a vector of the array's elements, a constant."""
    ty = vector(array.dtype)
    return types.intp(array), lambda context, builder, sig, args: context.get_constant(types.intp, ty.lanes)


@intrinsic
def address(typing, array):
    """The address of an array's first element."""
    def codegen(context, builder, sig, args):
        return builder.ptrtoint(context.make_array(sig.args[0])(context, builder, args[0]).data, ir.IntType(64))
    return types.intp(array), codegen


@intrinsic
def load(typing, array, index):
    """array[index : index + W]"""
    ty = _vector_of(array)

    def codegen(context, builder, sig, args):
        return emit_load(builder, _pointer(context, builder, sig.args[0], *args, ty), ty)
    return None if ty is None else (ty(array, types.intp), codegen)


@intrinsic
def load_n(typing, array, index, n):
    """array[index : index + n], then zeros"""
    ty = _vector_of(array)

    def codegen(context, builder, sig, args):
        return _load_first(builder, _pointer(context, builder, sig.args[0], args[0], args[1], ty), ty, args[2])
    return None if ty is None else (ty(array, types.intp, types.intp), codegen)


@intrinsic
def load_at(typing, array, at, n):
    """n elements of the dtype of `array` from an address, then zeros"""
    ty = vector(array.dtype)

    def codegen(context, builder, sig, args):
        return _load_first(builder, builder.inttoptr(args[1], ty.ir.as_pointer()), ty, args[2])
    return ty(array, types.intp, types.intp), codegen


@intrinsic
def store(typing, array, index, value):
    """array[index : index + W] = value"""
    ty = _vector_of(array)

    def codegen(context, builder, sig, args):
        emit_store(builder, args[2], _pointer(context, builder, sig.args[0], args[0], args[1], ty), ty)
        return context.get_dummy_value()
    return None if ty is None or value != ty else (types.void(array, types.intp, value), codegen)


@intrinsic
def store_n(typing, array, index, value, n):
    """array[index : index + n] = the first n lanes"""
    ty = _vector_of(array)

    def codegen(context, builder, sig, args):
        _store_first(builder, args[2], _pointer(context, builder, sig.args[0], args[0], args[1], ty), ty, args[3])
        return context.get_dummy_value()
    return None if ty is None or value != ty else (types.void(array, types.intp, value, types.intp), codegen)


@intrinsic
def store_at(typing, array, at, value, n):
    """The first n lanes, of the dtype of `array`, to an address"""
    def codegen(context, builder, sig, args):
        _store_first(builder, args[2], builder.inttoptr(args[1], value.ir.as_pointer()), value, args[3])
        return context.get_dummy_value()
    return types.void(array, types.intp, value, types.intp), codegen


@intrinsic
def first_lanes(typing, like, n):
    """A mask with the first n lanes true, for vectors of the type of `like`."""
    return (like.of(types.boolean)(like, types.intp),
            lambda context, builder, sig, args: lane_mask(builder, args[1], like.lanes))


@intrinsic
def filled(typing, array, scalar):
    """A scalar in every lane of a vector of the array's elements."""
    ty = vector(array.dtype)
    return ty(array, scalar), lambda context, builder, sig, args: spread(context, builder, args[1], sig.args[1], ty)


@intrinsic
def widened(typing, x):
    """The same lanes as float64."""
    ty = x.of(types.float64)
    return ty(x), lambda context, builder, sig, args: args[0] if x == ty else builder.fpext(args[0], ty.ir)


def reduce_lanes(builder, value, lanes: int, combine):
    """Combine the upper half with the lower until one lane is left: an order fixed by the number of lanes alone."""
    while lanes > 1:
        half = lanes // 2
        undefined = ir.Constant(value.type, ir.Undefined)
        places = ir.VectorType(I32, half)
        low, high = (builder.shuffle_vector(value, undefined, ir.Constant(places, list(range(k, k + half))))
                     for k in (0, half))
        value, lanes = combine(low, high), half
    return builder.extract_element(value, I32(0))


@intrinsic
def reduce_add(typing, x):
    """The sum of the lanes."""
    return x.dtype(x), lambda context, builder, sig, args: reduce_lanes(builder, args[0], x.lanes, builder.fadd)


@intrinsic
def reduce_max(typing, x):
    """The largest lane; NaN if any lane is."""
    def codegen(context, builder, sig, args):
        def larger(a, b):
            keep = builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
            return builder.select(keep, a, b)
        return reduce_lanes(builder, args[0], x.lanes, larger)
    return x.dtype(x), codegen
