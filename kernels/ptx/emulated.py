"""A device that is the emulator: compiled PTX runs on the CPU, and host memory stands for the device's.

Chosen by TILEWRIGHT_CUDA=emulate, as an sm_90, or TILEWRIGHT_CUDA=emulate:sm_80 as another one.
"""
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright import emulate
from tilewright.core import arrays, foreign
from tilewright.core.errors import DTypeError
from tilewright.core.on_device import OnDevice, at


class Emulated:
    """The interface of core/device.py over the emulator. A launch is done when `launch` returns."""

    emulated = True
    limit = 1 << 26  # of backward jumps in a block, beyond which a kernel counts as endless

    def __init__(self, cc: tuple[int, int]):
        self.cc = cc
        self.name = f"emulated, sm_{cc[0]}{cc[1]}"
        self.seed = 0  # of the order in which threads take turns
        self._modules: dict[str, Any] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any, stream: Any = None) -> OnDevice:
        """Memory that is not initialised."""
        return self._at(np.empty(shape, dtype))

    def upload(self, x: np.ndarray, stream: Any = None) -> OnDevice:
        """A copy of an array of the host."""
        return self._at(x.copy())

    def download(self, x: OnDevice, stream: Any = None) -> np.ndarray:
        """A copy of an array of the device, C-contiguous."""
        return x.view(np.ndarray).copy(order="C")

    def view(self, x: Any, stream: Any = None) -> OnDevice:
        """An array of another library; here one that says where it is by __cuda_array_interface__."""
        if not hasattr(x, "__cuda_array_interface__"):
            raise DTypeError(f"emulated, arrays come in by __cuda_array_interface__; a {type(x).__name__} has none")
        return foreign.described(x).view(x)

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """None that other libraries know."""
        raise BufferError("an emulated device exports nothing by DLPack; tw.to_host(x) copies an array to the host")

    def stream_number(self, stream: Any) -> int | None:
        """No stream: what was launched is done."""
        return None

    @staticmethod
    def _at(memory: np.ndarray) -> OnDevice:
        return at(memory.ctypes.data, memory.shape, memory.dtype, memory.strides, memory)

    def launch(self, kernel: Any, blocks: tuple[int, int, int], values: Sequence[Any],
               reach: Sequence[tuple[np.ndarray, str]], shared: int, stream: Any = None) -> None:
        """Run a kernel; whatever it does wrong raises emulate.Fault."""
        memory = list(reach)
        numbers = []
        for (kind, _), x in zip(kernel.signature, values, strict=True):
            if isinstance(x, np.ndarray):
                memory += [(x, kind)] * (x.size > 0)
                x = np.uint64(arrays.address(x))
            numbers.append(np.uint64(0) if x is None else x)
        ptx = self.ptx(kernel)
        if ptx not in self._modules:
            self._modules[ptx] = emulate.Module(ptx)
        self.launched(kernel, self._modules[ptx].launch(
            kernel.name, blocks, kernel.block, numbers, memory=spans(memory), shared=shared, seed=self.seed,
            trace=self.traces(kernel), limit=self.limit))

    # ---- what tools that look at kernels put in place of it

    def ptx(self, kernel: Any) -> str:
        """What is run of a kernel."""
        return kernel.ptx(self.cc)

    def traces(self, kernel: Any) -> bool:
        """Whether its instructions and accesses are counted."""
        return False

    def launched(self, kernel: Any, report: emulate.Report) -> None:
        """Told of each launch."""


def spans(memory: Sequence[tuple[np.ndarray, str]]) -> list[tuple[np.ndarray, str]]:
    """The bytes that arrays lie in, lowest to highest; arrays that overlap become one span, read and written.

    What lies between the elements of an array with gaps may be touched: whether it was is for the tests to see.
    """
    found: list[tuple[int, int, str]] = []
    for (low, high), mode in sorted((arrays.extent(x), mode) for x, mode in memory):
        if found and low < found[-1][1]:
            start, end, other = found.pop()
            low, high, mode = start, max(end, high), mode if mode == other else "rw"
        found.append((low, high, mode))
    return [(np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low)), mode)
            for low, high, mode in found]
