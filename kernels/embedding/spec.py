"""What embedding is: row weight[i] for each index i, and the sum of dy over equal indices as its gradient.

The gradient adds in the order of the indices, so its bits are the same every time. An index out of range, which the
host refuses and a device does not, gives NaN, and no gradient.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps
from tilewright.core.errors import ArgumentError, ShapeError
from tilewright.core.registry import FLOATS, Call, Case, Spec


def _in_range(indices: np.ndarray, rows: int) -> np.ndarray:
    return (indices >= 0) & (indices < rows)


def _check(op: str, indices: np.ndarray, rows: int) -> None:
    if not arrays.readable(indices):
        return
    wrong = ~_in_range(indices, rows)
    if wrong.any():
        at = tuple(int(v[0]) for v in np.nonzero(np.atleast_1d(wrong)))
        found = int(np.atleast_1d(indices)[at])
        raise ArgumentError(f"{op}: indices{list(at)} is {found}; they run from 0 to {rows - 1}")


def _prepare(inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    indices = arrays.indices(inputs[0], "indices", "embedding", copies)
    weight, = arrays.operands("embedding", ("weight",), inputs[1:], FLOATS, copies)
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight {weight.shape} must be a matrix (rows, features)")
    _check("embedding", indices, weight.shape[0])
    return Call("embedding", (indices, weight), {}, ((indices.shape + weight.shape[1:], weight.dtype),), copies=copies)


def _prepare_backward(inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    op = "embedding_backward"
    dy, = arrays.operands(op, ("dy",), inputs[:1], FLOATS, copies)
    indices = arrays.indices(inputs[1], "indices", op, copies)
    rows = int(attrs["num_embeddings"])
    if rows < 0:
        raise ArgumentError(f"{op}: num_embeddings cannot be {rows}")
    if dy.ndim != indices.ndim + 1 or dy.shape[:-1] != indices.shape:
        raise ShapeError(f"{op}: dy {dy.shape} must have the shape of indices {indices.shape} and one axis more")
    _check(op, indices, rows)
    return Call(op, (dy, indices), {"num_embeddings": rows}, (((rows, dy.shape[-1]), dy.dtype),), copies=copies)


def _gathered(call: Call) -> tuple:
    indices, weight = call.inputs
    out = np.full((*indices.shape, weight.shape[1]), np.nan)
    known = _in_range(indices, len(weight))
    out[known] = weight[indices[known]]
    return (out,)


def scatter_add(dy: np.ndarray, indices: np.ndarray, rows: int) -> np.ndarray:
    """The definition of the gradient, in the order of the indices."""
    out = np.zeros((rows, dy.shape[-1]), dy.dtype)
    known = _in_range(indices, rows)
    np.add.at(out, indices[known], dy[known])
    return out


def _backward_bound(call: Call, expected: tuple) -> tuple:
    """A row that was used k times is a sum of k terms, any order: k·u relative to the sum of magnitudes."""
    dy, indices = call.inputs
    rows = call.attrs["num_embeddings"]
    used = np.bincount(indices[_in_range(indices, rows)], minlength=rows)[:, None]
    return (used * eps(call.dtype) * scatter_add(np.abs(dy.astype(np.float64)), indices, rows),)


def _cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for rows, width, shape in ((1, 1, (1,)), (5, 3, (7,)), (10, 16, (4, 5)), (10, 17, ()), (50, 33, (2, 3, 4)),
                               (7, 64, (300,)), (9, 130, (0,)), (4, 0, (3,))):
        layout = sampling.any_layout(rng)
        indices = sampling.laid_out(rng.integers(0, rows, shape), layout)
        yield Case((indices, sampling.normal(rng, (rows, width), dtype, layout)), {},
                   f"{shape} of {rows}x{width} {layout}")
    for width in (8, 5):  # whole vectors, or not
        for indices in (np.append(rng.integers(0, 5, 32), 5), rng.integers(0, 6, (3, 7, 5))[:2, 0:6:2, 0:4:2]):
            yield Case((indices, sampling.normal(rng, (7, width), dtype)), {}, f"{indices.shape} of 7x{width}")


def _backward_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for case in _cases(rng, dtype):
        indices, weight = case.inputs
        layout = sampling.any_layout(rng) if weight.shape[1] != 8 else "c"
        dy = sampling.normal(rng, indices.shape + weight.shape[1:], dtype, layout)
        yield Case((dy, indices), {"num_embeddings": len(weight)}, case.label)


def _device_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for width in (5, 8):
        yield Case((np.array([[3, -1, 4], [2**62, -2**63, 3]]), sampling.normal(rng, (4, width), dtype)), {},
                   f"out of range of 4x{width}")


def _device_backward_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for case in _device_cases(rng, dtype):
        indices, weight = case.inputs
        dy = sampling.normal(rng, indices.shape + weight.shape[1:], dtype)
        yield Case((dy, indices), {"num_embeddings": len(weight)}, case.label)


def _bench(backward: bool) -> Any:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        rows, width, count = {"small": (100, 32, 64), "medium": (5000, 128, 2048), "large": (30000, 512, 8192)}[size]
        indices = rng.integers(0, rows, count)
        floats = sampling.normal(rng, (count if backward else rows, width), dtype)
        yield Case((floats, indices) if backward else (indices, floats), {"num_embeddings": rows} if backward else {},
                   f"{count} of {rows}x{width}")
    return bench


def _gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    return None, run("embedding_backward", grads[0], inputs[0], num_embeddings=inputs[1].shape[0])


def _nbytes(call: Call) -> float:
    (shape, dtype), = call.outputs
    moved = np.prod(shape) * dtype.itemsize
    return float(moved + (call.inputs[0].nbytes if call.op.endswith("backward") else moved))


SPECS = [
    Spec("embedding", "embedding", "weight[indices]", ("indices", "weight"), _prepare,
         _gathered,
         lambda call, expected: (np.zeros(expected[0].shape),),
         lambda call: 0.0, _nbytes, _cases, _bench(False), _gradient, device_cases=_device_cases),
    Spec("embedding_backward", "embedding", "dy summed over equal indices", ("dy", "indices"), _prepare_backward,
         lambda call: (scatter_add(call.inputs[0].astype(np.float64), call.inputs[1], call.attrs["num_embeddings"]),),
         _backward_bound, lambda call: float(call.inputs[0].size), _nbytes, _backward_cases, _bench(True),
         device_cases=_device_backward_cases),
]
