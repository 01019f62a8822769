"""Public calls on arrays of a device whose memory the host may not touch: `python fenced_device.py FAMILY`.

The device is the emulator, on memory that can be accessed while it copies or runs a kernel and at no other time: if
preparing or dispatching a call looked at an element, the process would end. Prints one line of JSON for each operation
and dtype; the last case begun is on standard error.
"""
from __future__ import annotations

import ctypes
import json
import mmap
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tilewright as tw
from tilewright import ops
from tilewright.core import arrays, checking, device, dispatch, registry
from tilewright.core.errors import DTypeError
from tilewright.core.on_device import OnDevice, at
from tilewright.kernels.ptx.emulated import Emulated

MOST_WORK = 1e5  # operations and bytes of a call that is run, once one has been; conformance runs the others
PROT_NONE, PROT_ALL = 0, mmap.PROT_READ | mmap.PROT_WRITE
mprotect = ctypes.CDLL(None, use_errno=True).mprotect
mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Fenced(Emulated):
    """A device that counts as real."""

    emulated = False
    dlpack_device = (2, 0)

    def __init__(self, cc: tuple[int, int] = (9, 0)):
        super().__init__(cc)
        self._blocks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.open = 0

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Its memory can be accessed inside the block."""
        self.open += 1
        try:
            self._protect(PROT_ALL)
            yield
        finally:
            self.open -= 1
            if not self.open:
                self._protect(PROT_NONE)

    def _protect(self, how: int) -> None:
        for block in list(self._blocks.values()):
            if mprotect(block.ctypes.data, block.nbytes, how):
                raise OSError(ctypes.get_errno(), "mprotect")

    def empty(self, shape: tuple[int, ...], dtype: Any, stream: Any = None) -> OnDevice:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        block = np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8)
        self._blocks[block.ctypes.data] = block
        if not self.open:
            mprotect(block.ctypes.data, block.nbytes, PROT_NONE)
        return at(block.ctypes.data, shape, dtype, owner=block)

    def upload(self, x: np.ndarray, stream: Any = None) -> OnDevice:
        there = self.empty(x.shape, x.dtype)
        with self.reachable():
            there.view(np.ndarray)[...] = x
        return there

    def download(self, x: OnDevice, stream: Any = None) -> np.ndarray:
        with self.reachable():
            return super().download(x)

    def launch(self, *args: Any) -> None:
        with self.reachable():
            super().launch(*args)


def on_device(x: Any) -> Any:
    """Arrays, and lists of them, copied to the device with their strides; numbers, packed matrices as they are."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(on_device, x))
    if not isinstance(x, np.ndarray) or x.size == 0:
        return tw.to_device(x) if isinstance(x, np.ndarray) else x
    low, high = arrays.extent(x)
    there = device.current().upload(np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low)))
    start = arrays.address(there) + arrays.address(x) - low
    return tw.DeviceArray(at(start, x.shape, x.dtype, x.strides, there))


def on_host(x: Any) -> Any:
    return x if isinstance(x, (int, float, np.generic)) else tw.to_host(x)


def check(op: str, dtype: str) -> dict[str, Any]:
    """Prepare every case on the device, and run the small ones where the operation has a kernel there."""
    spec = registry.spec(op)
    counts: Counter[str] = Counter()
    complaints = []
    for case in spec.cases(np.random.default_rng(2), dtype):
        print(op, dtype, case.label, file=sys.stderr)
        call = spec.prepare(case.inputs, case.attrs)
        inputs = tuple(map(on_device, case.inputs))
        try:
            there = dispatch.prepared(op, inputs, case.attrs)
        except DTypeError as error:  # what would have to be copied, converted to integers, or spread over blocks
            if not call.copies and not any(word in str(error) for word in ("reshape", "int", "repeat")):
                complaints.append(f"[{case.label}] {error}")
            counts["refused"] += 1
            continue
        counts["prepared"] += 1
        kernel = registry.kernels(spec.family, "cuda").get((there.op, ""))
        if counts["ran"] and (case.product or spec.flops(call) + spec.nbytes(call) > MOST_WORK):
            continue
        if kernel is None or kernel.supports(there) is not None or dtype not in kernel.dtypes:
            continue
        expected = registry.spec(call.op).oracle(call)
        bound = registry.spec(call.op).bound(call, expected)
        result = getattr(ops, op)(*inputs, **case.attrs)
        if spec.mutates:
            found = [on_host(v) for i in spec.mutates if inputs[i] is not None
                     for v in (inputs[i] if isinstance(inputs[i], (list, tuple)) else [inputs[i]])]
        else:
            given = result if isinstance(result, tuple) else (result,)
            found = list(call.kernel_outs([np.asarray(on_host(r)) for r in given]))
        for r, e, b in zip(found, expected, bound, strict=True):
            if wrong := checking.mismatch(r, e, b):
                complaints.append(f"[{case.label}] {wrong}")
        counts["ran"] += 1
    return {"op": op, "dtype": dtype, "complaints": complaints[:5], **counts}


def main(family: str) -> None:
    with device.using(Fenced()):
        for op, spec in registry.specs().items():
            if spec.family == family:
                for dtype in spec.dtypes:
                    print(json.dumps(check(op, dtype)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
