"""A real device, through cuda.core and cuda.bindings, on which numba-cuda stands too.

PTX is assembled by the installed nvJitLink, not by the driver, so that any driver of the same major version of CUDA
runs it. All is asynchronous on the stream in force but `download`. Memory comes from the device's pool and goes back to
it, in the order of the stream it was taken on. Contexts are the primary ones, as those of CuPy and PyTorch are.
"""
from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda import core
from cuda.bindings import driver
from cuda.core.utils import StridedMemoryView

from tilewright.core import arrays, foreign
from tilewright.core.errors import BackendUnavailable, DTypeError
from tilewright.core.on_device import OnDevice, at, is_on_device

DLPACK_CUDA, DLPACK_BFLOAT = 2, 4  # kDLCUDA, kDLBfloat
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
PLAIN_SHARED = 48 << 10  # bytes of shared memory that a block may have without being asked for


class Driver:
    """The interface of core/device.py over the driver, for the device that CUDA counts first."""

    emulated = False

    def __init__(self) -> None:
        self._device = core.Device(0)
        self._device.set_current()
        major, minor = self._device.compute_capability
        self.cc = (major, minor)
        self.name = self._device.name
        self.dlpack_device = (DLPACK_CUDA, self._device.device_id)
        self._loaded: dict[Any, Any] = {}
        self._seen = threading.local()

    # ---- memory

    def empty(self, shape: tuple[int, ...], dtype: Any, stream: Any = None) -> OnDevice:
        """Memory that is not initialised."""
        on = self._stream(stream)
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size == 0:
            return at(0, shape, dtype)
        memory = self._device.allocate(size, stream=on)
        return at(int(memory.handle), shape, dtype, owner=memory)

    def upload(self, x: np.ndarray, stream: Any = None) -> OnDevice:
        """A copy of a C-contiguous array of the host; pageable memory has been read when this returns."""
        there = self.empty(x.shape, x.dtype, stream)
        if x.size:
            _check(driver.cuMemcpyHtoDAsync(arrays.address(there), arrays.address(x), x.nbytes, self._handle(stream)))
        return there

    def download(self, x: OnDevice, stream: Any = None) -> np.ndarray:
        """A copy of an array of the device, C-contiguous, after all that the stream has to do before."""
        if x.size == 0:
            return np.empty(x.shape, x.dtype)
        low, high = arrays.extent(x)
        memory = np.empty(high - low, np.uint8)  # with the gaps between its elements
        _check(driver.cuMemcpyDtoHAsync(arrays.address(memory), low, high - low, self._handle(stream)))
        _check(driver.cuStreamSynchronize(self._handle(stream)))
        return np.ndarray(x.shape, x.dtype, memory, arrays.address(x) - low, x.strides).copy(order="C")

    # ---- other libraries

    def view(self, x: Any, stream: Any = None) -> OnDevice:
        """An array of another library, by DLPack or __cuda_array_interface__; the stream in force waits for its."""
        if not hasattr(x, "__dlpack__"):
            return self._described(x, stream)
        found = StridedMemoryView.from_any_interface(x, self.stream_number(stream))
        self._check_device(found.device_id)
        size = found.dtype.itemsize
        strides = None if found.strides is None else tuple(size * step for step in found.strides)
        view = at(found.ptr, tuple(found.shape), found.dtype, strides, (found, x))
        view.flags.writeable = not found.readonly
        return view

    def _described(self, x: Any, stream: Any) -> OnDevice:
        found = foreign.described(x)
        if found.address:
            ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
            error, number = driver.cuPointerGetAttribute(ordinal, found.address)
            if error == driver.CUresult.CUDA_ERROR_INVALID_VALUE:
                raise DTypeError(f"a {type(x).__name__} of shape {found.shape} is not in memory of a CUDA device")
            _check(error)
            self._check_device(number)
        if found.stream not in (None, self.stream_number(stream)):
            self._stream(stream).wait(self._stream(found.stream))
        return found.view(x)

    def _check_device(self, number: int) -> None:
        if number != self._device.device_id:
            raise BackendUnavailable(f"the array is on CUDA device {number}, kernels run on {self._device.device_id}; "
                                     "move it, or set CUDA_VISIBLE_DEVICES")

    def dlpack(self, x: OnDevice, own: Any, stream: Any, versioned: bool) -> Any:
        """A DLPack capsule, of version 1 or of before; the stream of the one who takes it waits for ours."""
        if min(x.strides, default=0) < 0:
            raise BufferError("DLPack has no negative strides; turn the axis round first")
        if stream not in (None, -1, self.stream_number(own)):
            self._stream(int(stream)).wait(self._stream(own))
        low, high = arrays.extent(x) if x.size else (0, 0)
        memory = core.Buffer.from_handle(low, high - low, owner=x)
        steps = tuple(step // x.itemsize for step in x.strides)
        half = arrays.name_of(x.dtype) == "bfloat16"  # which cuda.core does not export: as integers, renamed
        found = StridedMemoryView.from_buffer(memory, x.shape, steps, dtype=np.dtype(np.uint16) if half else x.dtype,
                                              is_readonly=not x.flags.writeable)
        capsule = found.__dlpack__(max_version=(1, 0) if versioned else None)
        if half:
            name, offset = (b"dltensor_versioned", 52) if versioned else (b"dltensor", 20)
            ctypes.c_uint8.from_address(_pointer(capsule, name) + offset).value = DLPACK_BFLOAT
        return capsule

    # ---- launches

    def launch(self, kernel: Any, blocks: tuple[int, int, int], values: Sequence[Any],
               reach: Sequence[tuple[np.ndarray, str]], shared: int, stream: Any = None) -> None:
        """Queue a kernel. Arrays of the host that it reads, such as scales given as numbers, go along as copies."""
        lent: list[OnDevice] = []  # given back to the pool behind the kernel, in the order of the stream
        numbers = [self._address(kind, x, lent, stream) if kind in ("r", "w", "rw") else x
                   for (kind, _), x in zip(kernel.signature, values, strict=True)]
        config = core.LaunchConfig(grid=blocks, block=kernel.block, shmem_size=shared)
        core.launch(self._stream(stream), config, self._kernel(kernel, shared), *numbers)

    def _address(self, kind: str, x: Any, lent: list[OnDevice], stream: Any) -> np.uint64:
        """Of an array's first element on the device."""
        if x is None or x.size == 0:
            return np.uint64(0)
        if is_on_device(x):
            return np.uint64(arrays.address(x))
        if kind != "r":
            raise BackendUnavailable("a kernel on a device cannot write an array on the host")
        low, high = arrays.extent(x)
        lent.append(self.upload(np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low)), stream))
        return np.uint64(arrays.address(lent[-1]) + arrays.address(x) - low)

    def _kernel(self, kernel: Any, shared: int) -> Any:
        """The kernel loaded for this device."""
        key = kernel, shared > PLAIN_SHARED
        if key not in self._loaded:
            arch = f"sm_{self.cc[0]}{self.cc[1]}"
            ptx = core.ObjectCode.from_ptx(kernel.ptx(self.cc).encode(), name=kernel.name)
            code = core.Linker(ptx, options=core.LinkerOptions(arch=arch)).link("cubin")
            self._loaded[key] = code.get_kernel(kernel.name)
        if shared > PLAIN_SHARED:
            wanted = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _check(driver.cuKernelSetAttribute(wanted, shared, self._loaded[key].handle, self._device.device_id))
        return self._loaded[key]

    # ---- streams

    def stream_number(self, stream: Any) -> int:
        """The handle as protocols between libraries have it: 1 is the legacy default stream."""
        return int(self._stream(stream).handle)

    def synchronize(self, stream: Any = None) -> None:
        """Wait until the stream has nothing left to do."""
        _check(driver.cuStreamSynchronize(self._handle(stream)))

    # ---- times

    def mark(self, stream: Any = None) -> Any:
        """An event behind all that the stream has to do by now."""
        event = _value(driver.cuEventCreate(0))
        _check(driver.cuEventRecord(event, self._handle(stream)))
        return event

    def between(self, first: Any, last: Any) -> float:
        """Seconds from one event to a later one, which is waited for; both are used up."""
        _check(driver.cuEventSynchronize(last))
        seconds = _value(driver.cuEventElapsedTime(first, last)) / 1e3
        for event in (first, last):
            _check(driver.cuEventDestroy(event))
        return seconds

    def overwrite(self, x: OnDevice, stream: Any = None) -> None:
        """Queue zeros for all bytes of an array: other data leave the cache, and the device has something to do."""
        _check(driver.cuMemsetD8Async(arrays.address(x), 0, x.nbytes, self._handle(stream)))

    def _handle(self, stream: Any) -> Any:
        return self._stream(stream).handle

    def _stream(self, stream: Any) -> Any:
        """What `tw.stream` was given, as a stream of cuda.core; the device becomes this thread's."""
        if not hasattr(self._seen, "current"):
            self._device.set_current()
            self._seen.current = True
        if stream is None:
            return core.LEGACY_DEFAULT_STREAM
        if isinstance(stream, core.Stream):
            return stream
        if hasattr(stream, "__cuda_stream__"):
            return self._device.create_stream(stream)
        names = [n for n in ("cuda_stream", "ptr", "handle") if hasattr(stream, n)]  # PyTorch's, CuPy's, numba's
        number = getattr(stream, names[0]) if names else stream
        return core.Stream.from_handle(int(getattr(number, "value", number) or 1))


def _value(result: Any) -> Any:
    """What a call of the driver gives beside its error, for which it raises."""
    _check(result)
    return result[1]


def _check(result: Any) -> None:
    """Raise for an error of the driver, by its name."""
    error = result[0] if isinstance(result, tuple) else result
    if int(error) != 0:
        raise RuntimeError(f"the CUDA driver reports {error.name}")
