"""Bring what callers pass into normal form: ndarrays of one dtype, native byte order, aligned, any strides."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from .errors import AliasError, ArgumentError, DTypeError, ShapeError
from .on_device import OnDevice, is_on_device


@cache
def name_of(dtype: np.dtype) -> str:
    """dtype.name, which NumPy spells out anew each time, at the cost of a small product."""
    return dtype.name


def as_array(x: Any, name: str) -> np.ndarray:
    """An ndarray over the caller's memory, if possible: NumPy, DLPack, the buffer protocol, else a list or number."""
    if type(x) is np.ndarray or isinstance(x, OnDevice):
        return x
    if hasattr(x, "__cuda_array_interface__"):
        raise DTypeError(f"{name} lives on a CUDA device; tw.to_host(x) copies it to the host")
    if not isinstance(x, np.ndarray) and not hasattr(x, "__array__") and hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    try:
        return np.asarray(x)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{name} cannot be read as an array: {error}") from None


def normal(x: np.ndarray, dtype: np.dtype, name: str, copies: list[str]) -> np.ndarray:
    """`x` as `dtype`, native and aligned; what that copies is appended to `copies`."""
    if x.dtype == dtype and x.dtype.isnative and x.flags.aligned:
        return x
    if is_on_device(x):
        if x.dtype == dtype:
            raise DTypeError(f"{name} {shape_of(x)} on a CUDA device is not aligned, or not in native byte order")
        raise DTypeError(f"{name} {shape_of(x)} on a CUDA device is {x.dtype} and has to be {dtype}: nothing is "
                         f"converted there unasked; {name}.astype(np.{dtype}) does it")
    why = f"{x.dtype} to {dtype}" if x.dtype.newbyteorder("=") != dtype else "byte order or alignment"
    copies.append(f"{name} {shape_of(x)}: {why}")
    return x.astype(dtype.newbyteorder("="))


def operands(op: str, names: Sequence[str], values: Sequence[Any], dtypes: Sequence[str],
             copies: list[str], optional: Sequence[str] = ()) -> list[Any]:
    """Arrays of one common dtype, promoted as NumPy does; those named in `optional` may be None and stay so.

    Integers are refused, not converted: a product of integers in float32 would be silently inexact.
    """
    arrays = [None if v is None else as_array(v, n) for n, v in zip(names, values, strict=True)]
    dtype: Any = None
    plain = True
    for name, a in zip(names, arrays, strict=True):
        if a is None:
            if name not in optional:
                raise DTypeError(f"{op} needs an array for {name}, not None")
            continue
        if name_of(a.dtype) not in dtypes:
            raise DTypeError(f"{op} computes on {', '.join(dtypes)}; {name} {shape_of(a)} is {a.dtype}. "
                             f"Convert it first, for example {name}.astype(np.float32)")
        plain = plain and a.flags.aligned and a.dtype.isnative and (dtype is None or a.dtype is dtype)
        dtype = a.dtype if dtype is None or a.dtype is dtype else _promoted(op, dtype, a.dtype)
    if plain:
        return arrays
    dtype = dtype.newbyteorder("=")
    return [None if a is None else normal(a, dtype, n, copies) for n, a in zip(names, arrays, strict=True)]


def _promoted(op: str, one: np.dtype, other: np.dtype) -> np.dtype:
    try:
        return np.result_type(one, other)
    except TypeError:  # NumPy knows none for float16 and bfloat16
        raise DTypeError(f"{op}: {one} and {other} have no common dtype; convert one of them") from None


def indices(x: Any, name: str, op: str, copies: list[str]) -> np.ndarray:
    """Class labels or row numbers as int64, any shape."""
    if x is None:
        raise DTypeError(f"{op} needs an array for {name}, not None")
    a = as_array(x, name)
    if a.dtype.kind not in "iu":
        if a.size:
            raise DTypeError(f"{op} takes {name} as integers; {name} {shape_of(a)} is {a.dtype}")
        a = a.astype(np.int64)
    return normal(a, np.dtype(np.int64), name, copies)


def on_a_line(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """np.empty that begins on a cache line: dot products along 10 rows of 1024 take half the time."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:start + size].view(dtype).reshape(shape)


def address(x: np.ndarray) -> int:
    """Of the first element, which with negative strides is not the lowest."""
    return x.__array_interface__["data"][0]


def extent(x: np.ndarray) -> tuple[int, int]:
    """The addresses that an array with elements lies between, lowest byte and first one after."""
    reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    start = address(x)
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + x.itemsize


def shape_of(x: Any) -> str:
    """A shape as users write it: (3, 4)."""
    return str(tuple(x.shape))


def normal_axis(axis: int, ndim: int, op: str) -> int:
    """`axis` counted from the front; raises ShapeError where there is none such."""
    if not isinstance(axis, (int, np.integer)):
        raise ArgumentError(f"{op} takes one axis as an integer, not {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{op}: axis {axis} does not exist in an array of {ndim} dimensions")
    return int(axis) % ndim


def overlaps(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share memory; in doubt, yes."""
    if a.size == 0 or b.size == 0 or not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except RuntimeError:  # np.exceptions.TooHardError
        return True


def readable(x: np.ndarray) -> bool:
    """Whether the host can look at the elements, to check labels say; on a device a kernel has to cope with any."""
    return not is_on_device(x)


def same_view(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same elements in the same places."""
    return (a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
            and address(a) == address(b))


def check_out(op: str, out: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`out` as the caller gave it, if results of this shape and dtype can be written there."""
    if not isinstance(out, np.ndarray):
        raise DTypeError(f"{op}: out must be a NumPy array, not {type(out).__name__}")
    if out.shape != shape:
        raise ShapeError(f"{op}: out has shape {shape_of(out)}, the result has {shape}")
    if out.dtype != dtype:
        raise DTypeError(f"{op}: out is {out.dtype}, the result is {dtype}")
    if not out.flags.writeable:
        raise ArgumentError(f"{op}: out is read-only")
    if out.size and any(stride == 0 and size > 1 for stride, size in zip(out.strides, out.shape, strict=True)):
        raise AliasError(f"{op}: several elements of out are the same memory (a broadcast view)")
    return out


def sum_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over the axes along which `shape` was broadcast to x's shape: the gradient of broadcasting."""
    if x.shape == shape:
        return x
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    stretched = tuple(i for i, (have, want) in enumerate(zip(x.shape, shape, strict=True)) if want == 1 and have != 1)
    return x.sum(axis=stretched, keepdims=True) if stretched else x
