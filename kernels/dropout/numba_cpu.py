"""dropout in Numba, over a range of contiguous elements.

    dropout_range(x, threshold, key0, key1, scale, out, lo, hi)    out[i] = x[i] * scale if word(i) >= threshold else 0

x, out: contiguous 1-D arrays of one dtype, float32 or float64; out may be x. threshold: below 2^32; key0, key1: the
halves of the seed; lo: a multiple of 4, the elements of a counter. Serial, without the GIL, callable from other
compiled code. No bit is stored: the words are a function of i and the seed, in the backward pass too.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.dropout.spec import scale, threshold
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.memory import lanes, load_n, store_n
from tilewright.kernels.vector.ranges import GRAIN, Flat, compiled, flat, note_copies, width
from tilewright.kernels.vector.simd import select

from .philox import philox


@njit
def dropout_range(x, threshold, key0, key1, scale, out, lo, hi):
    w = lanes(x)
    for i in range(lo, hi, 4 * w):
        words = philox(x, i // 4, key0, key1)
        for q in range(4):
            at = i + q * w
            k = max(0, min(w, hi - at))
            store_n(out, at, select(words[q] >= threshold, load_n(x, at, k) * scale, 0.0), k)


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, = call.inputs
    p, seed = call.attrs["p"], call.attrs["seed"]
    if threshold(p) == 2**32:
        outs[0][...] = 0
        return
    result = Flat(*outs)
    function = compiled(dropout_range, "xiiifyii", x.dtype)
    arguments = (flat(x), threshold(p), seed & 0xFFFFFFFF, seed >> 32, scale(p, x.dtype), *result.arrays)
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), x.size, GRAIN // 2)
    result.finish()


def _describe(call: Call) -> str:
    note_copies(call, ("x",))
    return width(call.dtype)


KERNELS = [Kernel(op, "numba", _run, describe=_describe) for op in ("dropout", "dropout_backward")]
