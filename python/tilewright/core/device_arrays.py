"""Arrays on the device: our own, those of other libraries, and how a call gets and gives them.

    caller's array ──view──> OnDevice ──prepare, kernel──> OnDevice ──wrap──> an array of the caller's kind
    anything with __dlpack__ on a CUDA device, or __cuda_array_interface__; nothing is copied
"""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import arrays, capability, device
from .device import stream_in_force
from .device_arithmetic import DeviceArithmetic
from .errors import DTypeError
from .foreign import is_device_array, view_of
from .on_device import OnDevice
from .registry import Call, Kernel


class DeviceArray(DeviceArithmetic):
    """An array in the memory of a CUDA device: what `to_device` gives, and calls on such arrays.

    Shapes, strides and views are NumPy's, and so are + - * /, some functions, sum, mean and max of float32 and float64,
    computed there; elements are read on the host, after `to_host`. Other libraries take it without a copy:
    `torch.from_dlpack(x)`, `cupy.asarray(x)`, `numba.cuda.as_cuda_array(x)`.
    """

    __slots__ = ("_view", "__weakref__")

    def __init__(self, view: OnDevice):
        self._view = view

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._view.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy's dtype."""
        return self._view.dtype

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return self._view.strides

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._view.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._view.size

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self._view.nbytes

    @property
    def T(self) -> DeviceArray:
        """The axes in reverse order, a view."""
        return DeviceArray(self._view.T)

    def transpose(self, *axes: int) -> DeviceArray:
        """The axes in another order, a view."""
        return DeviceArray(self._view.transpose(*axes))

    def reshape(self, *shape: Any) -> DeviceArray:
        """Another shape: a view, or where the strides allow none a copy on the device."""
        try:
            return DeviceArray(self._view.reshape(*shape))
        except DTypeError:
            return self.copy().reshape(*shape)

    def __getitem__(self, key: Any) -> DeviceArray:
        return DeviceArray(self._view[key])

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape}, {self.dtype}, on {device.current().name})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise DTypeError("the array lives on a CUDA device: tw.to_host(x) copies it to the host")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        x = self._view
        return {"version": 3, "shape": x.shape, "typestr": x.dtype.str, "strides": x.strides,
                "data": (arrays.address(x) if x.size else 0, not x.flags.writeable),
                "stream": device.current().stream_number(stream_in_force())}

    def __dlpack_device__(self) -> tuple[int, int]:
        return device.current().dlpack_device

    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the array is on the device {self.__dlpack_device__()}, not {dl_device}; tw.to_host(x) "
                              "copies it to the host")
        versioned = max_version is not None and max_version >= (1, 0)
        if not (self._view.flags.writeable or versioned or copy):
            raise BufferError("the array is read-only, which DLPack can say from version 1.0 on; export x.copy()")
        x = self.copy()._view if copy else self._view
        return device.current().dlpack(x, stream_in_force(), stream, versioned)


DeviceArray.__module__ = "tilewright"


def to_device(x: Any) -> DeviceArray:
    """A copy of an array in the device's memory, C-contiguous, in native byte order, in the order of its stream.

    >>> import numpy as np, tilewright as tw
    >>> x = tw.to_device(np.ones((2, 3), np.float32))                             # doctest: +SKIP
    >>> tw.to_host(tw.relu(x))                                                    # doctest: +SKIP
    """
    capability.require("cuda")
    if is_device_array(x):
        raise DTypeError("to_device: the array is on a device already")
    host = arrays.as_array(x, "x")
    if host.dtype.kind not in "fiub" and arrays.name_of(host.dtype) != "bfloat16":
        raise DTypeError(f"to_device takes floats, integers and booleans, not {host.dtype}")
    native = np.array(host, host.dtype.newbyteorder("="), order="C", copy=None if host.flags.aligned else True)
    return DeviceArray(device.current().upload(native, stream_in_force()))


def full_like(x: Any, value: float) -> Any:
    """An array of x's shape and dtype, where x is, with one value everywhere."""
    if not isinstance(x, DeviceArray):
        return np.full(x.shape, value, x.dtype)
    full = DeviceArray(device.current().empty(x.shape, x.dtype, stream_in_force()))
    full[...] = value
    return full


def host_copy(x: Any) -> np.ndarray:
    """A copy of an array on the host, wherever it is."""
    return to_host(x) if isinstance(x, DeviceArray) else x.copy()


def overwritten(x: Any, values: np.ndarray) -> Any:
    """x with other values: itself on the host, a new array on a device."""
    if isinstance(x, DeviceArray):
        return to_device(values)
    x[...] = values
    return x


def shares_memory(x: Any, y: Any) -> bool:
    """np.may_share_memory, for arrays of the host or of a device."""
    x, y = (v._view if isinstance(v, DeviceArray) else v for v in (x, y))
    return bool(np.may_share_memory(x, y))


def to_host(x: Any) -> np.ndarray:
    """A copy of a device array as an ndarray, once what computes it is done; an ndarray is returned as it is."""
    if isinstance(x, np.ndarray):
        return x
    capability.require("cuda")
    view = view_of(x)
    if view is None:
        raise DTypeError(f"to_host takes an array on a CUDA device, not {type(x).__name__}")
    return device.current().download(view, stream_in_force())


# ---- a call on device arrays

class Place:
    """The device as the place of one call: its arrays come in, results go out as the caller's kind of array."""

    def __init__(self, like: Any):
        self._like = like  # the array whose kind results have

    def enter(self, x: Any, op: str) -> Any:
        """Arguments as OnDevice; numbers, packed matrices and None as they are. An array on the host is an error."""
        if isinstance(x, (list, tuple)) and any(isinstance(v, np.ndarray) or is_device_array(v) for v in x):
            return type(x)(self.enter(v, op) for v in x)
        if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.ndim):
            what = f"one {x.shape}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
            raise DTypeError(f"{op}: some arrays are on a CUDA device and {what} is on the host; tw.to_device copies "
                             "it there, tw.to_host the others back")
        view = view_of(x)
        return x if view is None else view

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory for a result."""
        return device.current().empty(shape, dtype, stream_in_force())

    def leave(self, x: Any) -> Any:
        """A result as the caller's kind of array, over the same memory."""
        return wrapped(DeviceArray(x), self._like) if isinstance(x, OnDevice) else x


def wrapped(x: DeviceArray, like: Any) -> Any:
    """x as the kind of array that `like` is; a DeviceArray where its library takes none from others."""
    if isinstance(like, DeviceArray):
        return x
    name = type(like).__module__.partition(".")[0]
    if name == "numba":
        return sys.modules["numba.cuda"].as_cuda_array(x, sync=stream_in_force() is not None)
    take = getattr(sys.modules.get(name), "from_dlpack", None) if name != "__main__" else None
    return x if take is None else take(x)


def place_of(inputs: Sequence[Any], out: Any) -> Place | None:
    """Where a call's arrays are: a Place if any is on a device, None for the host's memory."""
    for x in (*inputs, out):
        if x is None or type(x) is np.ndarray:  # the rest takes a microsecond
            continue
        for v in x if isinstance(x, (list, tuple)) else (x,):
            if is_device_array(v):
                capability.require("cuda")
                return Place(v)
    return None


def nbytes(inputs: Sequence[Any]) -> int:
    """Bytes of the arrays among a call's inputs, as they would be copied."""
    return sum(nbytes(x) if isinstance(x, tuple) else x.nbytes for x in inputs if isinstance(x, (tuple, np.ndarray)))


def lend(kernel: Kernel, call: Call, mutates: Sequence[int], outs: Sequence[np.ndarray]) -> Any:
    """Run a kernel on copies of a host call's arrays and copy back what it writes (use_backend's transfer=True)."""
    here, stream = device.current(), stream_in_force()
    copied: list[tuple[np.ndarray, OnDevice]] = []

    def upload(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(upload, x))
        if not isinstance(x, np.ndarray):
            return x
        copied.append((x, here.upload(np.array(x, order="C"), stream)))
        return copied[-1][1]
    inputs, changed = [], []
    for i, x in enumerate(call.inputs):
        start = len(copied)
        inputs.append(upload(x))
        changed += copied[start:] if i in mutates else []
    results = [here.empty(x.shape, x.dtype, stream) for x in outs]
    returned = kernel.run(dataclasses.replace(call, inputs=tuple(inputs)), tuple(results))
    for host, there in (*changed, *zip(outs, results, strict=True)):
        host[...] = here.download(there, stream)
    return returned
