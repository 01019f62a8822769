"""Sums and maxima over one row of contiguous elements, in an order that depends on the row's length alone.

A kernel passes the function to sum as an attribute of a module, `row_sum(rows.product, ...)`: through a global name
of its own file Numba takes the function's address, and does not cache the kernel.
"""
from __future__ import annotations

import numpy as np

from . import vmath
from .host import inner, njit
from .memory import filled, first_lanes, lanes, load, load_n, reduce_add, reduce_max, store, store_n
from .simd import select, vmax


@inner
def row_sum(f, x, y, at, n, p):
    """The sum of f(x[at + j], y[at + j], p) for j < n: four vectors of partial sums, then across the lanes."""
    w = lanes(x)
    s0, s1, s2, s3 = filled(x, 0.0), filled(x, 0.0), filled(x, 0.0), filled(x, 0.0)
    i, end = at, at + n
    while end - i >= 4 * w:
        s0 = s0 + f(load(x, i), load(y, i), p)
        s1 = s1 + f(load(x, i + w), load(y, i + w), p)
        s2 = s2 + f(load(x, i + 2 * w), load(y, i + 2 * w), p)
        s3 = s3 + f(load(x, i + 3 * w), load(y, i + 3 * w), p)
        i += 4 * w
    while end - i >= w:
        s0 = s0 + f(load(x, i), load(y, i), p)
        i += w
    if i < end:
        rest = f(load_n(x, i, end - i), load_n(y, i, end - i), p)
        s1 = s1 + select(first_lanes(rest, end - i), rest, 0.0)
    return reduce_add((s0 + s1) + (s2 + s3))


# What row_sum sums: (x, y, p) -> a vector; p is a scalar of the row

@inner
def first(x, y, p):
    return x


@inner
def product(x, y, p):
    return x * y


@inner
def shifted_exp(x, y, top):
    return vmath.exp(x - top)


@inner
def shifted(x, y, top):
    return x - top


@inner
def squared_deviation(x, y, mean):
    return (x - mean) * (x - mean)


@inner
def row_max(x, at, n):
    """The largest of x[at : at + n]; a NaN may be passed over: the sum that follows meets it."""
    w = lanes(x)
    top0, top1 = filled(x, -np.inf), filled(x, -np.inf)
    i, end = at, at + n
    while end - i >= 2 * w:
        top0, top1 = vmax(top0, load(x, i)), vmax(top1, load(x, i + w))
        i += 2 * w
    while i < end:
        rest = load_n(x, i, min(w, end - i))
        top0 = vmax(top0, select(first_lanes(rest, end - i), rest, -np.inf))
        i += w
    return reduce_max(vmax(top0, top1))


@njit
def column_sums_range(x, rows, n, out, lo, hi):
    """out[j] = sum of x[i * n + j] over i < rows, in that order, for lo <= j < hi."""
    out[lo:hi] = 0
    w = lanes(x)
    for i in range(rows):
        j = lo
        while hi - j >= w:
            store(out, j, load(out, j) + load(x, i * n + j))
            j += w
        if j < hi:
            store_n(out, j, load_n(out, j, hi - j) + load_n(x, i * n + j, hi - j), hi - j)
