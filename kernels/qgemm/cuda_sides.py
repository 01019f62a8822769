"""Operands of the integer products brought to the form of cuda_operands.py, from Python.

    side(a, zero, scale, …)    a (…, M, K) with any strides, or b transposed; parameters (…, M), or None
    packed(b, batch, zero, …)  the columns of a packed b (K, N), made with their sums once for the device
    quantized_rows(x)          x (M, K) float32
    weights(w)                 a QuantizedMatrix of the method "dynamic", made once for the device and kept with w
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tilewright.core import arrays, device, device_arrays
from tilewright.core.packed import PackedMatrix
from tilewright.core.quantized import QuantizedMatrix
from tilewright.kernels.ptx.launch import Kernel, blocks, scratch
from tilewright.kernels.quantize.cuda import lean

from .cuda_operands import (
    CHUNK,
    RECORD,
    ROWS,
    THREADS,
    WARPS,
    across,
    along,
    filled,
    quantize_rows,
    recorded,
    summed,
)

MOST_BATCHES = 65535  # of a launch


class Side(NamedTuple):
    """values (…, rows, bytes) and records (…, rows, 8), of one batch shape."""

    values: np.ndarray
    records: np.ndarray

    @property
    def signed(self) -> bool:
        """Whether the bytes are int8."""
        return _signed(self.values)


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


def whole(x: np.ndarray, axis: int, each: int) -> bool:
    """Whether `each` neighbours along one of the last two axes can always be one access: they lie together, and where
    that begins is a multiple of all of them."""
    size = each * x.itemsize
    others = (step for i, step in enumerate(x.strides) if i != axis % x.ndim)
    return (x.strides[axis] == x.itemsize and x.shape[axis] % each == 0 and arrays.address(x) % size == 0
            and all(step % size == 0 for step in others))


def side(x: np.ndarray, zero: np.ndarray | None = None, scale: np.ndarray | None = None,
         y_scale: np.ndarray | None = None, y_zero: np.ndarray | None = None) -> Side:
    """See the head of this file. What all arrays repeat along a batch axis is done once."""
    batch, (rows, k) = x.shape[:-2], x.shape[-2:]
    x, *own = _once(len(batch), x, zero, scale, y_scale, y_zero)
    values = x if whole(x, -1, CHUNK) else scratch((*x.shape[:-1], filled(k)), x.dtype)
    records = scratch((*x.shape[:-1], RECORD), np.uint32)
    for part, to, record, *each in by_batch(x.shape[:-2], x, values, records, *own):
        described = _described(each, rows, k, record)
        if k == 0:
            recorded.launch((blocks(rows, THREADS), len(part)), None, record, *described)
        elif values is x:
            summed(_signed(x)).launch((blocks(rows, WARPS), len(part)), part, record, *steps(*part.strides[:2]),
                                      *described)
        else:
            kernel, of_a_block = _arranging(part)
            kernel.launch((blocks(rows, of_a_block), len(part)), part, to, record, filled(k) // 4,
                          *steps(*part.strides, to.strides[0]), *described)
    return Side(_repeated(values, batch, 2), _repeated(records, batch, 2))


def _once(axes: int, *given: np.ndarray | None) -> list[Any]:
    """Arrays whose first axes are those of a batch, with one element where all of them repeat it."""
    there = [x for x in given if x is not None]
    once = tuple(slice(0, 1) if all(x.strides[i] == 0 for x in there) else slice(None) for i in range(axes))
    return [x if x is None or not axes else x[once] for x in given]


def _described(parameters: Sequence[np.ndarray | None], rows: int, k: int, record: np.ndarray) -> list[Any]:
    """The arguments PARAMETERS of a launch: zero points, scales, scales and zero points of results."""
    numbers, memory, strides = list[Any](), list[Any](), list[int]()
    for p, missing in zip(parameters, (0, 1.0, 1.0, 0), strict=True):
        array, number = (None, missing) if p is None else lean(p)
        numbers.append(number)
        memory.append(array)
        strides += [0, 0] if p is None else p.strides
    return [*memory, *numbers, rows, k, *steps(*strides, record.strides[0])]


def _arranging(x: np.ndarray) -> tuple[Kernel, int]:
    """The kernel that brings x (…, rows, k) into the form of the products, and the rows of its blocks."""
    if abs(x.strides[-1]) <= abs(x.strides[-2]):
        return along(_signed(x), whole(x, -1, 4)), WARPS
    return across(_signed(x), whole(x, -2, 4)), ROWS


def _signed(x: np.ndarray) -> bool:
    return x.dtype.kind == "i"


def quantized_rows(x: np.ndarray) -> Side:
    """See the head of this file."""
    rows, k = x.shape
    values, records = scratch((rows, filled(k)), np.uint8), scratch((rows, RECORD), np.uint32)
    quantize_rows(k > 0 and whole(x, -1, 4)).launch(rows, x, values, records, k, filled(k) // 4, *steps(*x.strides))
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


def packed(b: PackedMatrix, batch: tuple[int, ...], zero: np.ndarray | None, scale: np.ndarray | None = None) -> Side:
    """See the head of this file."""
    values, sums = kept(b, "cuda_b", lambda matrix: (_arranged(matrix.T), matrix.sum(axis=0, dtype=np.int32)))
    k, rows = b.shape
    repeated, *own = _once(len(batch), np.broadcast_to(sums, (*batch, rows)), zero, scale)
    records = scratch((*repeated.shape, RECORD), np.uint32)
    for record, *each in by_batch(repeated.shape[:-1], records, *own):
        recorded.launch((blocks(rows, THREADS), len(record)), sums, record,
                        *_described([*each, None, None], rows, k, record))
    return Side(_repeated(values, batch, 2), _repeated(records, batch, 2))
