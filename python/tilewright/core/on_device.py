"""OnDevice: device memory in the form that specs and kernels know, an ndarray.

Its address is one of a device. Shape, strides, dtype and views are those of any ndarray, and so are questions about
addresses (np.may_share_memory); its elements are out of reach, and whatever would touch one raises. So the normal form
of a call is made from device arrays by the same code as from NumPy's, and kernels launch on either. Users see none.

NumPy gives views of the class back as plain ndarrays in places (np.broadcast_to), where nothing guards the elements any
more: `is_on_device` knows those too, by the memory they come from.
"""
from __future__ import annotations

import ctypes
import math
from typing import Any, NoReturn

import numpy as np

from .errors import DTypeError, ShapeError

GEOMETRY = frozenset(("broadcast_to", "expand_dims", "may_share_memory", "moveaxis", "ndim", "shape", "shares_memory",
                      "size", "squeeze", "swapaxes", "transpose"))  # functions of NumPy that touch no element
READING = ("__array__", "__bool__", "__complex__", "__contains__", "__copy__", "__deepcopy__", "__float__", "__index__",
           "__int__", "__iter__", "__reduce__", "__reduce_ex__", "__repr__", "__setitem__", "__str__", "all", "any",
           "argmax", "argmin", "astype", "byteswap", "choose", "clip", "compress", "copy", "cumsum", "diagonal", "dot",
           "dump", "dumps", "fill", "flatten", "item", "max", "mean", "min", "nonzero", "partition", "prod", "put",
           "repeat", "resize", "round", "searchsorted", "sort", "std", "sum", "take", "tobytes", "tofile", "tolist",
           "trace", "var")


def _refuse(what: str) -> NoReturn:
    raise DTypeError(f"{what} would read or copy elements of an array on a CUDA device; make it on the device what it "
                     "has to be (dtype, layout), or take it to the host with tw.to_host")


class OnDevice(np.ndarray):
    """See the head of this file; made by `at`."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> NoReturn:
        _refuse(f"np.{ufunc.__name__}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ not in GEOMETRY:
            _refuse(f"np.{func.__name__}")
        return super().__array_function__(func, types, args, kwargs)

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) for p in parts):
            _refuse("indexing with an array")
        return super().__getitem__(parts if Ellipsis in parts else (*parts, Ellipsis))  # never a scalar

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if not all(isinstance(n, (int, np.integer)) for n in wanted):
            raise ShapeError(f"reshape takes integers, not {wanted}")
        if wanted.count(-1) == 1:
            known = math.prod(n for n in wanted if n != -1)
            wanted = tuple(self.size // known if n == -1 and known else n for n in wanted)
        if min(wanted, default=0) < 0 or math.prod(wanted) != self.size:
            raise ShapeError(f"cannot reshape an array of shape {self.shape} to {wanted}")
        strides = _strides_of_view(self.shape, self.strides, wanted)
        if strides is None:
            _refuse(f"reshape of {self.shape} to {wanted}, which no view has with these strides,")
        return at(self.__array_interface__["data"][0], wanted, self.dtype, strides, self)

    def ravel(self, *args: Any) -> Any:
        return self.reshape(-1)


def _refusing(name: str) -> Any:
    def method(self: OnDevice, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(name.strip("_"))
    return method


for _name in READING:
    setattr(OnDevice, _name, _refusing(_name))


def at(address: int, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None,
       owner: Any = None) -> OnDevice:
    """The array at an address; it and its views keep `owner` alive. strides in bytes, None for C order."""
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.ndarray.__new__(OnDevice, shape, dtype)
    if strides is None:
        strides = np.ndarray((), dtype).strides if not shape else _c_strides(shape, dtype.itemsize)
    reach = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    low = address + sum(r for r in reach if r < 0)
    high = address + sum(r for r in reach if r > 0) + dtype.itemsize
    memory = (ctypes.c_byte * (high - low)).from_address(low)
    memory.owner = owner  # type: ignore[attr-defined]
    return np.ndarray.__new__(OnDevice, shape, dtype, memory, address - low, strides)


def _strides_of_view(shape: tuple[int, ...], strides: tuple[int, ...],
                     wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides with which the same elements in the same order have another shape; None where only a copy has it.

    Both shapes fall into groups of axes with the same number of elements; what is one group must step evenly.
    """
    if 0 in shape:
        return (0,) * len(wanted)
    have = [(n, step) for n, step in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    i = j = 0
    while j < len(wanted):
        if wanted[j] == 1:
            found.append(0)
            j += 1
            continue
        old, new, start = have[i][0], wanted[j], j
        while old != new:
            if old < new:
                if have[i][1] != have[i + 1][0] * have[i + 1][1]:
                    return None
                i += 1
                old *= have[i][0]
            else:
                j += 1
                new *= wanted[j]
        step = have[i][1]
        group = []
        for n in reversed(wanted[start:j + 1]):
            group.append(step)
            step *= n
        found += reversed(group)
        i, j = i + 1, j + 1
    return tuple(found)


def _c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    steps = [itemsize]
    for n in reversed(shape[1:]):
        steps.append(steps[-1] * n)
    return tuple(reversed(steps))


def is_on_device(x: Any) -> bool:
    """Whether an array's elements lie on a device, also where NumPy has dropped the class from a view."""
    while isinstance(x, np.ndarray):
        if isinstance(x, OnDevice):
            return True
        x = x.base
    return hasattr(x, "owner") and isinstance(x, ctypes.Array)
