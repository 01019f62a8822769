"""What follows on a rectangle that a product has just been written to, while it is in the cache.

    activate_range(code, y, n, i0, i1, j0, j1)      y: contiguous rows of n elements as a 1-D array, changed in place
    add_range(x, y, n, i0, i1, j0, j1)              y += x; x (M, n) with any strides

code: the position in `spec.ACTIVATIONS`, parameters at their defaults; 0 changes nothing. Serial, without the GIL.
"""
from __future__ import annotations

from tilewright.kernels.activation import functions as f
from tilewright.kernels.vector.host import inner, njit
from tilewright.kernels.vector.memory import address, lanes, load_at, load_n, store_n


@inner
def each_row(function, p, y, n, i0, i1, j0, j1):
    for i in range(i0, i1):
        for j in range(i * n + j0, i * n + j1, lanes(y)):
            k = min(lanes(y), i * n + j1 - j)
            store_n(y, j, function(load_n(y, j, k), p), k)


@njit
def activate_range(code, y, n, i0, i1, j0, j1):
    if code == 1:
        each_row(f.relu, 0.0, y, n, i0, i1, j0, j1)
    elif code == 2:
        each_row(f.leaky_relu, 0.01, y, n, i0, i1, j0, j1)
    elif code == 3:
        each_row(f.elu, 1.0, y, n, i0, i1, j0, j1)
    elif code == 4:
        each_row(f.gelu, 0.0, y, n, i0, i1, j0, j1)
    elif code == 5:
        each_row(f.gelu_tanh, 0.0, y, n, i0, i1, j0, j1)
    elif code == 6:
        each_row(f.silu, 0.0, y, n, i0, i1, j0, j1)
    elif code == 7:
        each_row(f.sigmoid, 0.0, y, n, i0, i1, j0, j1)
    elif code == 8:
        each_row(f.tanh, 0.0, y, n, i0, i1, j0, j1)
    elif code == 9:
        each_row(f.softplus, 0.0, y, n, i0, i1, j0, j1)
    elif code == 10:
        each_row(f.hardswish, 0.0, y, n, i0, i1, j0, j1)


@njit
def add_range(x, y, n, i0, i1, j0, j1):
    for i in range(i0, i1):
        if x.strides[1] != x.itemsize:
            for j in range(j0, j1):
                y[i * n + j] += x[i, j]
            continue
        for j in range(j0, j1, lanes(y)):
            k = min(lanes(y), j1 - j)
            addend = load_at(y, address(x) + i * x.strides[0] + j * x.itemsize, k)
            store_n(y, i * n + j, load_n(y, i * n + j, k) + addend, k)
