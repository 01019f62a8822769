"""What softmax and cross_entropy know of a row in CUDA: its maximum, and the sum of e^(x - maximum).

    t, maximum, exponentials = row_functions("float32", "vector", "warp", keep=False)

How a row is taken stands in kernels/ptx/rows.py. `first` counts through the pieces of a row: one, unless it is long.
"""
from __future__ import annotations

import numpy as np

from tilewright.kernels.ptx import rows, vmath
from tilewright.kernels.ptx.cuda import inline, uint32
from tilewright.kernels.ptx.warp import larger


def row_functions(dtype: str, layout: str, size: str, keep: bool) -> tuple:
    """The team of a row, and two device functions; v holds the piece that was read last.

    keep: v stays x, else exponentials leaves e^(x - maximum) in it, and 0 beyond the row.
    """
    real = rows.REAL[dtype]
    t, exp = rows.team(real, layout, size), vmath.functions(real).exp
    items, held, piece, read, end, low, zero = t.items, t.held, t.piece, t.read, t.end, real(-np.inf), real(0)
    team_max, team_sum = t.max, t.sum

    @inline
    def maximum(v, x, lane, n, step, part):
        top, first = low, uint32(0)
        while True:
            read(v, x, first, lane, n, step, low)
            for k in range(items):
                top = larger(top, v[k])
            first = uint32(first + uint32(piece))
            if first >= end(n):
                break
        return team_max(top, part)

    @inline
    def exponentials(v, x, lane, n, step, top, part):
        total, first = zero, uint32(0)
        while True:
            if not held:
                read(v, x, first, lane, n, step, low)
            for k in range(items):
                e = exp(v[k] - top)
                total += e
                if not keep:
                    v[k] = e
            first = uint32(first + uint32(piece))
            if first >= end(n):
                break
        return team_sum(total, part)

    return t, maximum, exponentials
