"""What arrays on a device can do by themselves: NumPy's operators, functions of elements, reductions, changes in place.

An operator, or np.exp(x), comes in through `__array_ufunc__` and goes to the kernels of kernels/ptx/arithmetic.py and
reductions.py. Operands are arrays on the device of one dtype, float32 or float64, which broadcast, and numbers.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import arrays, device
from .device import stream_in_force
from .errors import ArgumentError, DTypeError, ShapeError
from .foreign import view_of
from .on_device import GEOMETRY, OnDevice
from .registry import FLOATS

# NumPy's functions: the kernel for two arrays, for an array and a number, for a number and an array, and for one array
BINARY = {"add": ("add", "plus", "plus"), "subtract": ("subtract", "plus", "minus_from"),
          "multiply": ("multiply", "times", "times"), "divide": ("divide", "over", "divided_by_it")}
UNARY = {name: name for name in ("negative", "absolute", "sign", "sqrt", "exp", "log")}
REDUCTIONS = ("sum", "mean", "max")
POWERS: dict[float, Callable[[Any], Any]] = {
    -2: lambda x: 1 / (x * x), -1: lambda x: 1 / x, -0.5: lambda x: 1 / np.sqrt(x), 0: lambda x: x * 0 + 1,
    0.5: np.sqrt, 1: lambda x: x.copy(), 2: lambda x: x * x, 3: lambda x: x * x * x}
THERE_IS = (f"there are {', '.join((*BINARY, *UNARY, 'power', 'matmul', *REDUCTIONS))}, views, and the operations of "
            "tilewright; tw.to_host(x) copies an array to the host, where NumPy has the rest")


class DeviceArithmetic(NDArrayOperatorsMixin):
    """What DeviceArray inherits."""

    __slots__ = ()

    _view: OnDevice

    # ---- NumPy's functions

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: tuple = (), **options: Any) -> Any:
        name = ufunc.__name__
        if method == "__call__" and not options:
            if name == "matmul" and not out:
                return importlib.import_module("tilewright.core.dispatch").call("matmul", inputs, {})
            if name == "power":
                return _result(_power(*inputs), out)
            if name in BINARY or name in UNARY:
                return self._computed(name, inputs, out)
        raise DTypeError(f"np.{name} of an array on a CUDA device: {THERE_IS}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = {"amax": "max"}.get(func.__name__, func.__name__)
        if name in REDUCTIONS and args and args[0] is self:
            return getattr(self, name)(*args[1:], **kwargs)
        if name not in GEOMETRY:
            raise DTypeError(f"np.{name} of an array on a CUDA device: {THERE_IS}")
        found = func(*(x._view if isinstance(x, DeviceArithmetic) else x for x in args), **kwargs)
        return self._new(found.view(OnDevice)) if isinstance(found, np.ndarray) else found

    def _computed(self, name: str, inputs: tuple, out: tuple) -> Any:
        operands = [_operand(f"np.{name}", x) for x in inputs]
        views = [x for x in operands if isinstance(x, OnDevice)]
        dtype = self._float(f"np.{name}")
        for x in operands:
            other = x.dtype if isinstance(x, OnDevice) else np.result_type(dtype, x)
            if other != dtype:
                raise DTypeError(f"np.{name} of {dtype} and {other} on a CUDA device: nothing is converted there by "
                                 "itself; x.astype(dtype) does it")
        try:
            shape = np.broadcast_shapes(*(x.shape for x in views))
        except ValueError:
            raise ShapeError(f"np.{name}: shapes {' and '.join(map(str, (x.shape for x in views)))} do not "
                             "broadcast") from None
        target = self._empty(shape)
        spread = [np.broadcast_to(x, shape) for x in views]
        if name in UNARY:
            _kernels().unary(name, *spread, target)
        elif len(views) == 2:
            _kernels().binary(name, *spread, target)
        else:
            left = isinstance(operands[0], OnDevice)
            p = float(operands[1] if left else operands[0])
            _kernels().unary(BINARY[name][1 if left else 2], *spread, target, -p if left and name == "subtract" else p)
        return _result(self._new(target), out)

    # ---- reductions

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        """Sum over all axes, one or several; float32 and float64."""
        return self._reduced("sum", axis, keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        """Largest element; float32 and float64."""
        return self._reduced("max", axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        """Mean over all axes, one or several; float32 and float64."""
        total = self._reduced("sum", axis, keepdims)
        return total / (self._view.size / total.size if total.size else 1)

    def _reduced(self, name: str, axis: Any, keepdims: bool) -> Any:
        x, dtype = self._view, self._float(name)
        given = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(sorted({arrays.normal_axis(a, x.ndim, name) for a in given}))
        if axis is not None and len(axes) != len(given):
            raise ShapeError(f"{name}: an axis stands twice in {axis}")
        out = self._empty(tuple(n for i, n in enumerate(x.shape) if i not in axes))
        if x.size == 0 and name == "max" and out.size:
            raise ShapeError(f"max: there is none of no elements, {x.shape} over {axes}")
        if not axes:
            _kernels().copy(x, out)
        elif x.size == 0:
            fill(out, dtype.type(0))
        else:
            importlib.import_module("tilewright.kernels.ptx.reductions").over(name, x, axes, out)
        return self._new(out.reshape(tuple(1 if i in axes else n for i, n in enumerate(x.shape))) if keepdims else out)

    # ---- copies and changes in place

    def copy(self) -> Any:
        """A copy on the device, C-contiguous."""
        out = self._empty(self._view.shape)
        _kernels().copy(self._view, out)
        return self._new(out)

    def astype(self, dtype: Any) -> Any:
        """A copy on the device in another dtype: float32, float64, int32, int64, and halves from float32."""
        dtype, k = np.dtype(dtype), _kernels()
        if dtype == self._view.dtype:
            return self.copy()
        names = arrays.name_of(self._view.dtype), arrays.name_of(dtype)
        if names[0] not in k.SOURCES or names[1] not in k.TARGETS or names in k.TWICE:
            raise DTypeError(f"astype on a CUDA device does not make {dtype} of {self._view.dtype}; it takes "
                             f"{', '.join(k.SOURCES)} to {', '.join(k.TARGETS)}, to halves no more than float32 holds")
        out = self._empty(self._view.shape, dtype)
        k.convert(self._view, out)
        return self._new(out)

    def __setitem__(self, key: Any, value: Any) -> None:
        place = self._view[key]
        if not place.flags.writeable:
            raise ArgumentError("the array on the CUDA device is read-only")
        given = _operand("x[...] =", value)
        if not isinstance(given, OnDevice):
            fill(place, given)
            return
        if given.dtype != place.dtype:
            raise DTypeError(f"x[...] = on a CUDA device: the array is {place.dtype}, the value {given.dtype}")
        try:
            spread = np.broadcast_to(given, place.shape)
        except ValueError:
            raise ShapeError(f"x[...] =: {given.shape} does not broadcast to {place.shape}") from None
        if arrays.overlaps(given, place) and not arrays.same_view(given, place):
            spread = np.broadcast_to(self._new(given.view(OnDevice)).copy()._view, place.shape)
        _kernels().copy(spread, place)

    # ---- what would read elements

    def item(self) -> Any:
        """The only element as a Python number, copied to the host."""
        if self._view.size != 1:
            raise ShapeError(f"item: an array of shape {self._view.shape} has not one element")
        return device.current().download(self._view, stream_in_force()).item()

    def _refused(self, *args: Any) -> NoReturn:
        raise DTypeError("the array lives on a CUDA device: x.item() copies its only element to the host, "
                         "tw.to_host(x) all of them")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __contains__ = _refused

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise DTypeError("an array on a CUDA device is not pickled: pickle tw.to_host(x), or of a model what "
                         "state_dict() or to_host() gives")

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    __copy__ = copy

    # ---- shared

    def _float(self, name: str) -> np.dtype:
        if arrays.name_of(self._view.dtype) not in FLOATS:
            raise DTypeError(f"{name} on a CUDA device takes {' and '.join(FLOATS)}, not {self._view.dtype}; "
                             "x.astype(np.float32) makes it so")
        return self._view.dtype

    def _empty(self, shape: tuple[int, ...], dtype: Any = None) -> OnDevice:
        return device.current().empty(shape, self._view.dtype if dtype is None else dtype, stream_in_force())

    @classmethod
    def _new(cls, view: OnDevice) -> Any:
        return cls(view)  # type: ignore[call-arg]


def ones_where_equal(x: Any, y: Any) -> Any:
    """x == y; on a device as 1 and 0 in their own dtype."""
    if not isinstance(x, DeviceArithmetic):
        return x == y
    out = x._empty(x._view.shape)
    _kernels().binary("equal", x._view, y._view, out)
    return x._new(out)


def fill(out: np.ndarray, value: Any) -> None:
    """Write one number into all of an array on the device; the number is copied there."""
    one = device.current().upload(np.asarray(value).astype(out.dtype), stream_in_force())
    _kernels().copy(np.broadcast_to(one, out.shape), out)


def _operand(what: str, x: Any) -> Any:
    """An array as OnDevice, or a number as it is."""
    if (view := view_of(x)) is not None:
        return view
    if isinstance(x, (bool, int, float, np.generic)) or isinstance(x, np.ndarray) and x.ndim == 0:
        return x
    raise DTypeError(f"{what} takes arrays on the CUDA device and numbers, not {_named(x)}; tw.to_device copies an "
                     "array there, tw.to_host the other one back")


def _named(x: Any) -> str:
    return f"an array {x.shape} on the host" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"


def _power(x: Any, exponent: Any) -> Any:
    if isinstance(x, DeviceArithmetic) and isinstance(exponent, (int, float, np.generic)):
        for power, function in POWERS.items():
            if power == exponent:
                x._float("power")
                return function(x)
    raise DTypeError(f"power on a CUDA device takes an array to one of {', '.join(map(str, POWERS))}")


def _result(x: Any, out: tuple) -> Any:
    """A result as it is, or written into what was given for it."""
    if not out:
        return x
    if not isinstance(out[0], DeviceArithmetic):
        raise DTypeError("out is an array on the host, the result one on a CUDA device")
    if out[0]._view.shape != x.shape:
        raise ShapeError(f"out has shape {out[0]._view.shape}, the result {x.shape}")
    out[0][...] = x
    return out[0]


def _kernels() -> Any:
    return importlib.import_module("tilewright.kernels.ptx.arithmetic")
