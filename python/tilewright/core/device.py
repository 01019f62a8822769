"""The CUDA device that kernels run on: a real one through the driver, or the emulator (TILEWRIGHT_CUDA=emulate)."""
from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from typing import Any

from .errors import ArgumentError

EMULATED_CC = (9, 0)
LEAST_CC = (7, 5)  # of the kernels, and of CUDA 13
_current: Any = None
_stream: ContextVar[Any] = ContextVar("tilewright_stream", default=None)


def emulated() -> bool:
    """Whether the device in use is emulated, or the one that would be."""
    return (_asked() is not None) if _current is None else _current.emulated


def _asked() -> tuple[int, int] | None:
    """The compute capability to emulate: TILEWRIGHT_CUDA=emulate (sm_90), emulate:sm_80 ...; None: a real device.

    Raises ArgumentError for a TILEWRIGHT_CUDA that means nothing.
    """
    asked = os.environ.get("TILEWRIGHT_CUDA", "")
    if not asked:
        return None
    found = re.fullmatch(r"emulate(?::sm_(\d+)(\d))?", asked)
    if found is None:
        raise ArgumentError(f"TILEWRIGHT_CUDA={asked} means nothing; there are: emulate, emulate:sm_80")
    return (int(found[1]), int(found[2])) if found[1] else EMULATED_CC


def current() -> Any:
    """The device in use; made when it is first needed."""
    global _current
    if _current is None:
        _current = real() if (cc := _asked()) is None else emulation(cc)
    return _current


def chosen() -> Any:
    """The device in use; None before it was needed."""
    return _current


def real() -> Any:
    """A device through the driver."""
    return importlib.import_module("tilewright.kernels.ptx.driver").Driver()


def emulation(cc: tuple[int, int] = EMULATED_CC) -> Any:
    """A device that is emulated."""
    return importlib.import_module("tilewright.kernels.ptx.emulated").Emulated(cc)


@contextmanager
def using(d: Any) -> Iterator[Any]:
    """Make `d` the device in use, of all threads, inside a block."""
    global _current
    before, _current = _current, d
    try:
        yield d
    finally:
        _current = before


@contextmanager
def stream(s: Any) -> Iterator[None]:
    """Launch and copy on this CUDA stream inside the block; by default on the legacy default stream.

    s: a stream of CuPy, PyTorch, numba.cuda or cuda.core, or its handle as an integer. Inputs of other libraries are
    waited for as their protocols say.
    """
    if not (s is None or isinstance(s, int) or any(hasattr(s, name) for name in STREAMS)):
        raise ArgumentError(f"stream takes one of CuPy, PyTorch, numba.cuda or cuda.core, or its handle, not {s!r}")
    token = _stream.set(s)
    try:
        yield
    finally:
        _stream.reset(token)


def stream_in_force() -> Any:
    """What `stream` was given, else None."""
    return _stream.get()


# ---- what is missing for a real device, found out without loading numba-cuda

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
STREAMS = ("__cuda_stream__", "cuda_stream", "ptr", "handle")  # what the streams of libraries have one of
OLDER_CUDA = 12  # that numba-cuda has packages for, beside those of CUDA 13
EMULATE = "export TILEWRIGHT_CUDA=emulate runs the kernels on the CPU"
CC_MAJOR, CC_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def missing(driver: Any = None) -> list[str]:
    """What stands in the way of a real device, each with what mends it; `driver`: libcuda, or what stands for it."""
    if driver is None:
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return ["no NVIDIA driver (libcuda.so.1 was not found): install the one for your GPU (on Ubuntu: sudo "
                    f"ubuntu-drivers install; in a container: docker run --gpus all), or {EMULATE}"]
    if (error := driver.cuInit(0)) not in (0, NO_DEVICE):
        return [f"the NVIDIA driver does not start (cuInit gives {error}): nvidia-smi says more; a container needs "
                "docker run --gpus all, a forked process has to be spawned"]
    version, count = ctypes.c_int(), ctypes.c_int()
    if error == NO_DEVICE or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        return [(f"no CUDA device, with CUDA_VISIBLE_DEVICES={hidden}: unset CUDA_VISIBLE_DEVICES" if hidden is not None
                 else "no CUDA device: nvidia-smi lists what the driver sees") + f", or {EMULATE}"]
    driver.cuDriverGetVersion(ctypes.byref(version))
    found, wheels = [], _wheels()
    known = version.value // 1000
    if wheels and known < wheels:
        found.append(f"the NVIDIA driver is for CUDA {known}, the installed packages for CUDA {wheels}: update the "
                     "driver" + (f", or pip install 'numba-cuda[cu{known}]'" if known == OLDER_CUDA else ""))
    (first, *rest) = [_capability(driver, i) for i in range(count.value)]
    if first < LEAST_CC:
        other = next((i for i, cc in enumerate(rest, 1) if cc >= LEAST_CC), None)
        mend = EMULATE if other is None else f"export CUDA_VISIBLE_DEVICES={other} chooses another one"
        found.append(f"the device has compute capability {first[0]}.{first[1]}, the kernels need "
                     f"{LEAST_CC[0]}.{LEAST_CC[1]}: {mend}")
    return found


def _capability(driver: Any, number: int) -> tuple[int, int]:
    """The compute capability of the device that CUDA counts as this one."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), CC_MAJOR, number)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), CC_MINOR, number)
    return major.value, minor.value


def _wheels() -> int | None:
    """The major version of CUDA that the installed packages are made for; they run on any driver of that version."""
    try:
        return int(metadata.version("cuda-bindings").split(".")[0])
    except metadata.PackageNotFoundError:
        return None
