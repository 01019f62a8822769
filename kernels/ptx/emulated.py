"""A device that is the emulator: compiled PTX runs on the CPU, and host memory stands for the device's.

Chosen by TILEWRIGHT_CUDA=emulate, as an sm_90, or TILEWRIGHT_CUDA=emulate:sm_80 as another one.
"""
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright import emulate
from tilewright.core import arrays


class Emulated:
    """The interface of core/device.py over the emulator. A launch is done when `launch` returns."""

    emulated = True

    def __init__(self, cc: tuple[int, int]):
        self.cc = cc
        self.name = f"emulated sm_{cc[0]}{cc[1]}"
        self._modules: dict[str, Any] = {}

    def empty(self, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory that is not initialised."""
        return np.empty(shape, dtype)

    def launch(self, kernel: Any, blocks: tuple[int, int, int], values: Sequence[Any],
               memory: Sequence[tuple[np.ndarray, str]], shared: int) -> None:
        """Run a kernel; whatever it does wrong raises emulate.Fault."""
        ptx = kernel.ptx(self.cc)
        if ptx not in self._modules:
            self._modules[ptx] = emulate.Module(ptx)
        self._modules[ptx].launch(kernel.name, blocks, kernel.block, values, memory=spans(memory), shared=shared)


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
