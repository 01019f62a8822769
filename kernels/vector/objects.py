"""NumPy arrays as the fast door meets them: the Python object itself, its fields read from where NumPy keeps them.

Numba's own way to hand an array to compiled code costs 100-200 ns and one compiled function for each number of axes. An
`Object` costs nothing: compiled code gets the object's address, looks at type, dtype, flags and shape itself, and takes
what it likes. The layout is NumPy's C interface, the same in every version since 1.7:

    PyArrayObject    head | data | nd (int) | dimensions* | strides* | base | descr* | flags (int)
    PyArray_Descr    head | typeobj | kind, type, byteorder, flags (char) | type_num (int)

The address is borrowed: the caller keeps the object alive, and the GIL is held while fields are read. `as_told` says
whether the fields are where this file expects them.
"""
from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox
from numba.np.arrayobj import populate_array

from .host import inner

HEAD = object.__basicsize__  # the reference count and, in its last 8 bytes, the type
TYPE, DATA, NDIM, SHAPE, STRIDES, DESCR, FLAGS = HEAD - 8, HEAD, HEAD + 8, HEAD + 16, HEAD + 24, HEAD + 40, HEAD + 48
BYTE_ORDER, NUMBER = HEAD + 10, HEAD + 12
FOREIGN = ord(">" if sys.byteorder == "little" else "<")
C_ORDER, F_ORDER, ALIGNED, WRITEABLE = 0x1, 0x2, 0x100, 0x400
FLOAT, DOUBLE, INT64, INT32, INT8, UINT8 = (
    np.dtype(t).num for t in (np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8))

WORD, BYTE = ir.IntType(64), ir.IntType(8)


class Object(types.Type):
    """Any Python object, as its address."""

    def __init__(self) -> None:
        super().__init__(name="object_address")


OBJECT = Object()


@register_model(Object)
class _ObjectModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, WORD)


@unbox(Object)
def _unbox_object(typ, obj, c):
    return NativeValue(c.builder.ptrtoint(obj, WORD))


@intrinsic
def place_of(typing, x):
    """The address of an object as a number."""
    return types.intp(x), lambda context, builder, sig, args: args[0]


# Memory by address

def _reader(kind, to):
    @intrinsic
    def read(typing, address, offset):
        def codegen(context, builder, sig, args):
            value = builder.load(builder.inttoptr(builder.add(*args), kind.as_pointer()), align=1)
            return value if kind == context.get_value_type(to) else builder.sext(value, WORD)
        return to(address, types.intp), codegen
    return read


word = _reader(WORD, types.intp)
half_word = _reader(ir.IntType(32), types.intp)
byte = _reader(BYTE, types.intp)
real = _reader(ir.DoubleType(), types.float64)


@intrinsic
def block(typing, *values):
    """The address of these integers and floats, one a word, on the stack of the calling function."""
    def codegen(context, builder, sig, args):
        members = cgutils.unpack_tuple(builder, args[0])
        place = cgutils.alloca_once(builder, WORD, size=len(members))
        for i, (value, ty) in enumerate(zip(members, sig.args[0].types, strict=True)):
            to = types.float64 if isinstance(ty, types.Float) else types.intp
            value = value if isinstance(ty, Object) else context.cast(builder, value, ty, to)
            value = builder.bitcast(value, WORD) if to is types.float64 else value
            builder.store(value, builder.gep(place, [WORD(i)]))
        return builder.ptrtoint(place, WORD)
    return types.intp(types.StarArgTuple(values)), codegen


@intrinsic
def call(typing, address, *values):
    """Call the function at an address: it takes these values, by C's rules for numbers, and returns nothing."""
    def codegen(context, builder, sig, args):
        members = cgutils.unpack_tuple(builder, args[1])
        function = ir.FunctionType(ir.VoidType(), [v.type for v in members]).as_pointer()
        builder.call(builder.inttoptr(args[0], function), members)
        return context.get_dummy_value()
    return types.void(types.intp, types.StarArgTuple(values)), codegen


@intrinsic
def ask(typing, address, value):
    """Call a function that takes one word and returns one; what it takes none of does it no harm."""
    def codegen(context, builder, sig, args):
        function = ir.FunctionType(WORD, [WORD]).as_pointer()
        return builder.call(builder.inttoptr(args[0], function), [args[1]])
    return types.intp(types.intp, types.intp), codegen


# Arrays over memory

@intrinsic
def elements(typing, address, n, size):
    """n contiguous elements of `size` bytes as a 1-D array. It says float32: what calls a kernel passes no type."""
    return _array(1, "C", lambda b, args: ([args[1]], [args[2]]), (types.intp,) * 3)


@intrinsic
def line(typing, address, n, stride, size):
    """A 1-D array with any stride, in bytes; the same for its type."""
    return _array(1, "A", lambda b, args: ([args[1]], [args[2]]), (types.intp,) * 4)


@intrinsic
def matrix(typing, address, rows, columns, row_stride, column_stride, size):
    """A 2-D array with any strides, in bytes; the same for its type."""
    return _array(2, "A", lambda b, args: (args[1:3], args[3:5]), (types.intp,) * 6)


def _array(ndim, layout, geometry, parameters):
    ty = types.Array(types.float32, ndim, layout)

    def codegen(context, builder, sig, args):
        array = context.make_array(ty)(context, builder)
        shape, strides = geometry(builder, args)
        populate_array(array, data=builder.inttoptr(args[0], array.data.type), shape=shape, strides=strides,
                       itemsize=args[-1], meminfo=None)
        return array._getvalue()
    return ty(*parameters), codegen


# What the doors ask about an array object

@inner
def plain(x, ndarray):
    """Whether x is exactly an ndarray, aligned and in native byte order."""
    if word(x, TYPE) != ndarray:
        return False
    return half_word(x, FLAGS) & ALIGNED != 0 and byte(word(x, DESCR), BYTE_ORDER) != FOREIGN


@inner
def number(x):
    """NumPy's number of the dtype."""
    return half_word(word(x, DESCR), NUMBER)


@inner
def ndim(x):
    return half_word(x, NDIM)


@inner
def extent(x, axis):
    return word(word(x, SHAPE), 8 * axis)


@inner
def stride(x, axis):
    return word(word(x, STRIDES), 8 * axis)


@inner
def size_of(x):
    """The number of elements."""
    n = 1
    for axis in range(ndim(x)):
        n *= extent(x, axis)
    return n


@inner
def same_shape(x, y):
    if ndim(x) != ndim(y):
        return False
    for axis in range(ndim(x)):
        if extent(x, axis) != extent(y, axis):
            return False
    return True


@inner
def dense(x, order):
    """Whether the elements lie without gaps, in C_ORDER or F_ORDER."""
    return half_word(x, FLAGS) & order != 0


@inner
def writeable(x):
    return half_word(x, FLAGS) & WRITEABLE != 0


@inner
def reach(x, itemsize):
    """(low, high): the bytes that the elements lie in, empty for none."""
    low = high = word(x, DATA)
    for axis in range(ndim(x)):
        length = extent(x, axis)
        if length == 0:
            return low, low
        if stride(x, axis) < 0:
            low += (length - 1) * stride(x, axis)
        else:
            high += (length - 1) * stride(x, axis)
    return low, high + itemsize


@inner
def apart(x, y, itemsize):
    """Whether the memory of two arrays of one item size is apart."""
    x_low, x_high = reach(x, itemsize)
    y_low, y_high = reach(y, itemsize)
    return x_high <= y_low or y_high <= x_low


def as_told() -> bool:
    """Whether this Python and this NumPy lay out arrays as the head of this file says."""
    x = np.zeros((2, 3), np.float32).T

    def at(address: int, offset: int, kind: Any) -> Any:
        return kind.from_address(address + offset).value
    intp, c_int = ctypes.c_ssize_t, ctypes.c_int
    shape, strides, descr = (at(id(x), field, intp) for field in (SHAPE, STRIDES, DESCR))
    flags = C_ORDER * x.flags.c_contiguous | F_ORDER * x.flags.f_contiguous | ALIGNED | WRITEABLE
    return (at(id(x), TYPE, intp) == id(np.ndarray) and at(id(x), DATA, intp) == x.ctypes.data
            and at(id(x), NDIM, c_int) == 2 and [at(shape, 8 * i, intp) for i in (0, 1)] == [3, 2]
            and [at(strides, 8 * i, intp) for i in (0, 1)] == list(x.strides) and descr == id(x.dtype)
            and at(descr, BYTE_ORDER, ctypes.c_char) == b"=" and at(descr, NUMBER, c_int) == x.dtype.num
            and at(id(x), FLAGS, c_int) & 0x503 == flags)
