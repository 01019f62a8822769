"""matmul_maddubs in Numba:

    maddubs_range(a, b, out, lo, hi)    rows lo ... hi - 1 of out (int32); how many sums of pairs were clipped in them

a uint8, b the bytes of int8, as uint8; any strides. Plain loops, the innermost one along the columns of b; serial,
without the GIL.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.ranges import GRAIN, compiled


@njit
def maddubs_range(a, b, out, lo, hi):
    k, n = b.shape
    clipped = 0
    for i in range(lo, hi):
        for j in range(n):
            out[i, j] = 0
        for p in range(0, k, 2):
            first, second = np.int32(a[i, p]), np.int32(a[i, p + 1] if p + 1 < k else 0)
            last = min(p + 1, k - 1)
            for j in range(n):
                pair = first * np.int32(np.int8(b[p, j])) + second * np.int32(np.int8(b[last, j]))
                kept = min(max(pair, -32768), 32767)
                clipped += pair != kept
                out[i, j] += kept
    return clipped


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b = call.inputs
    y, clipped = outs
    kernel, counts = compiled(maddubs_range, "XXJii", a.dtype), list[int]()
    grain = max(1, GRAIN // max(b.shape[-2] * b.shape[-1], 1))
    for i in np.ndindex(*y.shape[:-2]):
        part = a[i], b[i].view(np.uint8), y[i]
        run_ranges(lambda lo, hi, part=part: counts.append(kernel(*part, lo, hi)), y.shape[-2], grain)  # type: ignore[misc]
    clipped[...] = sum(counts)


KERNELS = [Kernel("matmul_maddubs", "numba", _run, dtypes=("uint8",), describe=lambda call: "loops")]
