"""embedding in Numba: rows gathered, and their gradients scattered, in the order of the indices.

    embedding_range(indices, weight, out, n, lo, hi)                    out row i = weight row indices[i], lo <= i < hi
    embedding_backward_range(dy, indices, out, n, rows, lo, hi)         columns lo <= j < hi of the gradient, all rows

weight, dy, out: contiguous rows of n elements as 1-D arrays, float32 or float64; indices: int64, within range.
Serial, without the GIL, callable from other compiled code. The gradient is cut by columns, so that each element is
one sum in the order of the indices.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.memory import lanes, load_n, store_n
from tilewright.kernels.vector.ranges import GRAIN, Flat, compiled, flat, note_copies, width


@njit
def embedding_range(indices, weight, out, n, lo, hi):
    w = lanes(weight)
    for i in range(lo, hi):
        source = indices[i] * n
        for j in range(0, n, w):
            k = min(w, n - j)
            store_n(out, i * n + j, load_n(weight, source + j, k), k)


@njit
def embedding_backward_range(dy, indices, out, n, rows, lo, hi):
    w = lanes(dy)
    for row in range(rows):
        out[row * n + lo:row * n + hi] = 0
    for i in range(len(indices)):
        target = indices[i] * n
        for j in range(lo, hi, w):
            k = min(w, hi - j)
            store_n(out, target + j, load_n(out, target + j, k) + load_n(dy, i * n + j, k), k)


def _forward(call: Call, outs: Sequence[np.ndarray]) -> None:
    indices, weight = call.inputs
    n = weight.shape[1]
    result = Flat(*outs)
    function = compiled(embedding_range, "lxyiii", weight.dtype)
    arguments = (flat(indices), flat(weight), *result.arrays, n)
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), indices.size, max(1, GRAIN // max(n, 1)))
    result.finish()


def _backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, indices = call.inputs
    rows, n = outs[0].shape
    result = Flat(*outs)
    function = compiled(embedding_backward_range, "xlyiiii", dy.dtype)
    arguments = (flat(dy), flat(indices), *result.arrays, n, rows)
    line = 64  # columns: whole cache lines
    grain = max(1, GRAIN // max(indices.size + rows, 1) // line) * line
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), n, grain)
    result.finish()


def _describe(call: Call) -> str:
    note_copies(call, ("dy", "indices") if call.op.endswith("backward") else ("indices", "weight"))
    return width(call.dtype)


KERNELS = [Kernel("embedding", "numba", _forward, describe=_describe),
           Kernel("embedding_backward", "numba", _backward, describe=_describe)]
