"""What this machine can do at most, measured once a process, and how near a call comes to it.

A call is held against one of two roofs. Where it does enough operations for each byte that it must move, that is the
rate of multiply-adds in registers: of its float dtype, or of the dot products of int8 that integer products are made
of. Elsewhere it is the rate of copying as many bytes, which for operands that fit a cache is that cache's. The C
library measures all of them, on the threads and with the instruction sets in use.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..core import native, threads
from ..core.registry import Call, Spec

OPERATIONS_PER_BYTE = {"FMA": 4.0, "dot": 16.0}  # dot products of int8 are about four times as fast
SECONDS = 0.06  # spent on one measurement
SMALLEST, LARGEST = 1 << 14, 1 << 28  # bytes; 256 MiB lies far beyond any cache


def _on_one(measured: float, alone: Callable[[], float | None]) -> float | None:
    """What several threads reach, but no less than one does: on a busy machine a team waits for its slowest member."""
    with threads.threads(1):
        return max(measured, alone() or 0.0) or None


@cache
def _fma(dtype: str, number: int) -> float | None:
    if native.lib is None:
        return None
    code = native.lib.TW_FLOAT64 if dtype == "float64" else native.lib.TW_FLOAT32
    measured = native.lib.tw_measure_fma(code, SECONDS)
    return _on_one(measured, lambda: _fma(dtype, 1)) if number > 1 else measured or None


@cache
def _dot(number: int) -> float | None:
    if native.lib is None:
        return None
    measured = native.lib.tw_measure_dot(SECONDS)
    return _on_one(measured, lambda: _dot(1)) if number > 1 else measured or None


@cache
def _copy(nbytes: int, number: int) -> float | None:
    if native.lib is None:
        return None
    measured = native.lib.tw_measure_copy(nbytes, SECONDS)
    return _on_one(measured, lambda: _copy(nbytes, 1)) if number > 1 else measured or None


def fma_peak(dtype: str = "float32") -> float | None:
    """FLOP/s of multiply-adds in registers, on the threads in use; None without the C library. Halves: float32's."""
    return _fma("float64" if dtype == "float64" else "float32", threads.get_num_threads())


def dot_peak() -> float | None:
    """Operations (two a product of int8 that is added up) per second in registers; None without the C library."""
    return _dot(threads.get_num_threads())


def copy_peak(nbytes: float = LARGEST) -> float | None:
    """Bytes per second, read and written, of a copy that touches about `nbytes`; None without the C library."""
    power = 1 << max(int(nbytes) - 1, 0).bit_length()
    return _copy(min(max(power, SMALLEST), LARGEST), threads.get_num_threads())


@dataclass(frozen=True, slots=True)
class Roof:
    """The limit a call is held against: its kind, the call's work in that unit, the machine's peak (None: unknown)."""

    kind: str  # "FMA" | "dot" | "memory"
    work: float  # FLOP, operations or bytes
    peak: float | None  # as many a second

    @property
    def unit(self) -> str:
        return {"FMA": "GFLOP/s", "dot": "GOP/s", "memory": "GB/s"}[self.kind]

    def rate(self, seconds: float) -> float:
        """In `unit`."""
        return self.work / seconds / 1e9

    def part(self, seconds: float) -> float | None:
        """Of the peak; 1.0 is all of it."""
        return None if self.peak is None else self.work / seconds / self.peak


def roof(spec: Spec, call: Call) -> Roof:
    """Which roof a call stands under, and how high it is."""
    flops, nbytes = float(spec.flops(call)), float(spec.nbytes(call))
    sums = spec.sums(call) if spec.sums else np.dtype(call.dtype).name
    kind = "dot" if sums == "int32" else "FMA"
    if flops < OPERATIONS_PER_BYTE[kind] * nbytes:
        return Roof("memory", nbytes, copy_peak(nbytes))
    return Roof(kind, flops, dot_peak() if kind == "dot" else fma_peak(sums))
