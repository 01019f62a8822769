"""Arrays of other libraries on the device: which arrays those are, and what they say of themselves."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import device
from .errors import ArgumentError, DTypeError
from .on_device import OnDevice, at

CUDA_DEVICES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


def is_device_array(x: Any) -> bool:
    """Whether x is an array on a CUDA device, ours or that of another library; nothing is loaded for the answer."""
    if isinstance(x, (np.ndarray, np.generic, int, float, bool, str, type(None), list, tuple)):
        return False
    if _own(x) is not None or hasattr(x, "__cuda_array_interface__"):
        return True
    where = getattr(x, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in CUDA_DEVICES


def view_of(x: Any) -> OnDevice | None:
    """The array as OnDevice, over the same memory; None for anything that is not on a device."""
    if (own := _own(x)) is not None:
        return own
    return device.current().view(x, device.stream_in_force()) if is_device_array(x) else None


def _own(x: Any) -> OnDevice | None:
    """What is in a DeviceArray."""
    view = getattr(x, "_view", None)
    return view if isinstance(view, OnDevice) else None


class Described(NamedTuple):
    """What `__cuda_array_interface__` says; strides in bytes, None for C order; stream: who computes it, or None."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...] | None
    read_only: bool
    stream: int | None

    def view(self, owner: Any) -> OnDevice:
        """The array, which keeps its owner alive."""
        view = at(self.address, self.shape, self.dtype, self.strides, owner)
        view.flags.writeable = not self.read_only
        return view


def described(x: Any) -> Described:
    """The interface of any version, read; DTypeError for what it can say and kernels cannot take."""
    found, name = x.__cuda_array_interface__, type(x).__name__
    try:
        (address, read_only), shape, dtype = found["data"], tuple(map(int, found["shape"])), np.dtype(found["typestr"])
    except (KeyError, TypeError, ValueError) as error:
        raise DTypeError(f"the __cuda_array_interface__ of a {name} is not complete: {error!r}") from None
    if found.get("mask") is not None:
        raise DTypeError(f"a {name} with a mask: kernels know no masks; fill the masked elements first")
    if dtype.kind not in "fiub":
        raise DTypeError(f"a {name} of {found['typestr']}: there are floats, integers and booleans; bfloat16 comes in "
                         "by DLPack")
    if not address and 0 not in shape:
        raise ArgumentError(f"a {name} of shape {shape} lies at address 0")
    if found.get("stream") == 0:
        raise ArgumentError(f"a {name} names the stream 0, which the protocol forbids: it is 1, the legacy default "
                            "stream, or 2, a thread's own")
    strides = found.get("strides")
    return Described(int(address), shape, dtype, None if strides is None else tuple(map(int, strides)), bool(read_only),
                     found.get("stream"))
