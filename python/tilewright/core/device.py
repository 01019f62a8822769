"""The CUDA device that kernels run on: a real one through the driver, or the emulator (TILEWRIGHT_CUDA=emulate)."""
from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from .errors import ArgumentError

EMULATED_CC = (9, 0)
LEAST_CC = (7, 5)  # of the kernels, and of CUDA 13
_current: Any = None


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


# ---- what is missing for a real device, found out without loading numba-cuda

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
CC_MAJOR, CC_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def missing(driver: Any = None) -> list[str]:
    """What stands in the way of a real device, each with what mends it; `driver`: libcuda, or what stands for it."""
    if driver is None:
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return ["no NVIDIA driver (libcuda.so.1 was not found): install the one for your GPU, or set "
                    "TILEWRIGHT_CUDA=emulate to run the kernels on the CPU"]
    if (error := driver.cuInit(0)) not in (0, NO_DEVICE):
        return [f"the NVIDIA driver does not start (cuInit gives {error}): nvidia-smi says more; a container needs "
                "--gpus all, a forked process has to be spawned"]
    version, count = ctypes.c_int(), ctypes.c_int()
    if error == NO_DEVICE or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ["no CUDA device: nvidia-smi lists what the driver sees, CUDA_VISIBLE_DEVICES hides devices"]
    driver.cuDriverGetVersion(ctypes.byref(version))
    found, wheels = [], _wheels()
    known = version.value // 1000
    if wheels and known < wheels:
        found.append(f"the NVIDIA driver is for CUDA {known}, the installed packages for CUDA {wheels}: update the "
                     f"driver, or pip install 'numba-cuda[cu{known}]'")
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), CC_MAJOR, 0)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), CC_MINOR, 0)
    if (major.value, minor.value) < LEAST_CC:
        found.append(f"the device has compute capability {major.value}.{minor.value}, the kernels need "
                     f"{LEAST_CC[0]}.{LEAST_CC[1]}: CUDA_VISIBLE_DEVICES chooses another one")
    return found


def _wheels() -> int | None:
    """The major version of CUDA that the installed packages are made for; they run on any driver of that version."""
    try:
        return int(metadata.version("cuda-bindings").split(".")[0])
    except metadata.PackageNotFoundError:
        return None
