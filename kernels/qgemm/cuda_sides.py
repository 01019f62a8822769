"""Operands of the integer products brought to the form of cuda_operands.py, from Python.

    side(a, zero, scale, …)    a (…, M, K) with any strides, or b transposed; parameters (…, M), or None
    quantized_rows(x)          x (M, K) float32
    weights(w)                 a QuantizedMatrix of the method "dynamic", made once for the device and kept with w
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tilewright.core import arrays, device, device_arrays
from tilewright.core.packed import PackedMatrix
from tilewright.core.quantized import QuantizedMatrix
from tilewright.kernels.ptx.launch import blocks, scratch
from tilewright.kernels.quantize.cuda import lean

from .cuda_operands import CHUNK, RECORD, ROWS, arrange, filled, quantize_rows

MOST_BATCHES = 65535  # of a launch


class Side(NamedTuple):
    """values (…, rows, bytes) and records (…, rows, 8), of one batch shape."""

    values: np.ndarray
    records: np.ndarray

    @property
    def signed(self) -> bool:
        """Whether the bytes are int8."""
        return self.values.dtype.kind == "i"


def steps(*strides: int) -> list[int]:
    """Strides as a kernel's uint64."""
    return [step % (1 << 64) for step in strides]


def by_batch(shape: tuple[int, ...], *given: np.ndarray | None) -> Iterator[list[Any]]:
    """Arrays (…, *) with the batch axes `shape`, or None, in parts with one batch axis each: the longest one."""
    if not shape:
        yield [None if x is None else x[None] for x in given]
        return
    axis = int(np.argmax(shape))
    moved = [None if x is None else np.moveaxis(x, axis, len(shape) - 1) for x in given]
    for index in np.ndindex(*shape[:axis], *shape[axis + 1:]):
        for at in range(0, shape[axis], MOST_BATCHES):
            yield [None if x is None else x[(*index, slice(at, at + MOST_BATCHES))] for x in moved]


def _repeated(x: np.ndarray, shape: tuple[int, ...], tail: int) -> np.ndarray:
    return np.broadcast_to(x, shape + x.shape[-tail:])


def _lies_arranged(x: np.ndarray) -> bool:
    return x.strides[-1] == 1 and x.shape[-1] % CHUNK == 0 and all(
        v % CHUNK == 0 for v in (arrays.address(x), *x.strides[:-1]))


def side(x: np.ndarray, zero: np.ndarray | None = None, scale: np.ndarray | None = None,
         y_scale: np.ndarray | None = None, y_zero: np.ndarray | None = None) -> Side:
    """See the head of this file. What all arrays repeat along a batch axis is done once."""
    batch, (rows, k) = x.shape[:-2], x.shape[-2:]
    parameters = (zero, scale, y_scale, y_zero)
    given = [p for p in (x, *parameters) if p is not None]
    once = tuple(slice(0, 1) if all(p.strides[i] == 0 for p in given) else slice(None) for i in range(len(batch)))
    first, *own = (None if p is None else p[once] if once else p for p in (x, *parameters))
    assert first is not None
    shape = first.shape[:-2]
    in_place = _lies_arranged(first)
    values = first if in_place else scratch((*shape, rows, filled(k)), x.dtype)
    records = scratch((*shape, rows, RECORD), np.uint32)
    kernel = arrange(x.dtype.kind == "i", abs(x.strides[-1]) <= abs(x.strides[-2]))
    for part, to, record, *each in by_batch(shape, first, values, records, *own):
        numbers, memory, strides = list[Any](), list[Any](), list[int]()
        for p, missing in zip(each, (0, 1.0, 1.0, 0), strict=True):
            array, number = (None, missing) if p is None else lean(p)
            numbers.append(number)
            memory.append(array)
            strides += [0, 0] if p is None else p.strides
        kernel.launch((blocks(rows, ROWS), len(part)), part, None if in_place else to, record, *memory, *numbers, rows,
                      k, filled(k) // 4, *steps(*part.strides, *strides, to.strides[0], record.strides[0]))
    return Side(_repeated(values, batch, 2), _repeated(records, batch, 2))


def quantized_rows(x: np.ndarray) -> Side:
    """See the head of this file."""
    rows, k = x.shape
    values, records = scratch((rows, filled(k)), np.uint8), scratch((rows, RECORD), np.uint32)
    vectors = x.strides[1] == 4 and x.strides[0] % CHUNK == 0 and arrays.address(x) % CHUNK == 0
    quantize_rows(vectors).launch(rows, x, values, records, k, filled(k) // 4, *steps(*x.strides))
    return Side(values, records)


# ---- what is kept with matrices that many calls share

def kept(owner: Any, slot: str, make: Callable[[Any], tuple]) -> tuple:
    """Arrays that make(owner or its matrix) gives on the host, on the device; kept for the first device that asks."""
    here = device.current()

    def upload(matrix: Any) -> tuple:
        stream = device_arrays.stream_in_force()
        there = tuple(here.upload(x, stream) for x in make(matrix))
        here.download(there[-1].reshape(-1)[:1], stream)  # waits for the copies: other streams will read them
        return here, there
    found = owner.form(slot, upload)
    return (found if found[0] is here else upload(owner.numpy() if isinstance(owner, PackedMatrix) else owner))[1]


def _arranged(values: np.ndarray) -> np.ndarray:
    """(rows, K) bytes, each row filled up."""
    whole = np.zeros((values.shape[0], filled(values.shape[1])), values.dtype)
    whole[:, :values.shape[1]] = values
    return whole


def _dynamic(w: QuantizedMatrix) -> tuple:
    zeros = np.zeros(w.shape[0], np.int32) if w.zero_points is None else w.zero_points[:, 0].astype(np.int32)
    records = np.zeros((w.shape[0], RECORD), np.uint32)
    total = w.values.sum(axis=1, dtype=np.int32)
    for word, column in enumerate((zeros, total, np.ascontiguousarray(w.scales[:, 0]), total - w.shape[1] * zeros)):
        records[:, word] = column.view(np.uint32)
    return _arranged(w.values), records


def weights(w: QuantizedMatrix) -> Side:
    """See the head of this file."""
    return Side(*kept(w, "cuda", _dynamic))


def packed(b: PackedMatrix) -> np.ndarray:
    """The columns of a packed b (K, N) as rows, on the device."""
    whole, = kept(b, "cuda_b", lambda matrix: (_arranged(matrix.T),))
    return whole[:, :b.shape[0]]
