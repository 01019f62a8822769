"""Conversions between float32 and small integers in Numba, over rows and columns of 2-D arrays:

    quantize_range(x, scale, zero, out, low, high, i0, i1, j0, j1)       out = saturate(round(x / scale) + zero)
    dequantize_range(x, scale, zero, out, i0, i1, j0, j1)                out = (x - zero) * scale
    extremes_range(x, ends, at, lo, hi)                                  the range of x[lo:hi], 0 included

Columns of x and out are contiguous; those of scale (float32) and zero (int32) too, or the same one stands for all of
them (stride 0). Serial, without the GIL. More axes become two where strides allow, and the others a loop in Python.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.vector.host import inner, njit
from tilewright.kernels.vector.memory import address, filled, lanes, load_at, store_at
from tilewright.kernels.vector.ranges import GRAIN, compiled, flat, width

from .spec import INTEGERS, dynamic_parameters
from .vectors import as_float, extremes, integers_at, put_integers, quantized


@inner
def each(p, i, j, n):
    """n scales or zero points of row i from column j, as a vector."""
    if p.strides[1] == 0:
        return filled(p, p[i, 0])
    return load_at(p, address(p) + i * p.strides[0] + j * p.itemsize, n)


@njit
def quantize_range(x, scale, zero, out, low, high, i0, i1, j0, j1):
    for i in range(i0, i1):
        for j in range(j0, j1, lanes(x)):
            n = min(lanes(x), j1 - j)
            v = load_at(x, address(x) + i * x.strides[0] + 4 * j, n)
            q = quantized(v, each(scale, i, j, n), each(zero, i, j, n), low, high)
            put_integers(out, address(out) + i * out.strides[0] + j * out.itemsize, q, n)


@njit
def dequantize_range(x, scale, zero, out, i0, i1, j0, j1):
    for i in range(i0, i1):
        for j in range(j0, j1, lanes(out)):
            n = min(lanes(out), j1 - j)
            v = integers_at(x, address(x) + i * x.strides[0] + j * x.itemsize, n) - each(zero, i, j, n)
            store_at(out, address(out) + i * out.strides[0] + 4 * j, as_float(v) * each(scale, i, j, n), n)


@njit
def extremes_range(x, ends, at, lo, hi):
    """ends[at], ends[at + 1]: both NaN where an element is no finite number."""
    ends[at], ends[at + 1] = extremes(x, address(x) + 4 * lo, hi - lo)


def planes(*operands: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape as matrices: neighbouring axes that are one axis in all of them are joined."""
    shape: list[int] = []
    strides: list[tuple[int, ...]] = []
    for length, *steps in reversed([*zip(operands[0].shape, *(x.strides for x in operands), strict=True)]):
        if length == 1:
            continue
        if shape and all(step == inner * shape[0] for step, inner in zip(steps, strides[0], strict=True)):
            shape[0] *= length
        else:
            shape, strides = [length, *shape], [tuple(steps), *strides]
    while len(shape) < 2:
        shape, strides = [1, *shape], [tuple(x.itemsize for x in operands), *strides]
    views = [as_strided(x, shape, [s[i] for s in strides]) for i, x in enumerate(operands)]
    for place in np.ndindex(*shape[:-2]):
        yield tuple(view[place] for view in views)


def _run(call: Call, out: np.ndarray, kernel: Callable[..., Any], *limits: int) -> None:
    """kernel(x, scale, zero, out, *limits, i0, i1, j0, j1) over arrays of any shape and strides."""
    if out.size == 0:
        return
    target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    x = call.inputs[0]
    for plane in planes(flat(x).reshape(x.shape), *call.inputs[1:], target):
        _run_plane(kernel, limits, *plane)
    if target is not out:
        out[...] = target


def _run_plane(kernel: Callable[..., Any], limits: tuple[int, ...], x: np.ndarray, scale: np.ndarray, zero: np.ndarray,
               out: np.ndarray) -> None:
    scale, zero = (p if p.strides[1] in (0, p.itemsize) else np.ascontiguousarray(p) for p in (scale, zero))
    rows, columns = out.shape
    if rows == 1:
        run_ranges(lambda lo, hi: kernel(x, scale, zero, out, *limits, 0, 1, lo, hi), columns, GRAIN)
    else:
        run_ranges(lambda lo, hi: kernel(x, scale, zero, out, *limits, lo, hi, 0, columns), rows,
                   max(1, GRAIN // columns))


def _quantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    out, = outs
    _run(call, out, compiled(quantize_range, "SSIYiiiiii", out.dtype), call.attrs["low"], call.attrs["high"])


def _dequantize(call: Call, outs: Sequence[np.ndarray]) -> None:
    _run(call, outs[0], compiled(dequantize_range, "XSITiiii", call.inputs[0].dtype))


def _dynamic(call: Call, outs: Sequence[np.ndarray]) -> None:
    y, scale, zero = outs
    x = flat(call.inputs[0])
    pieces = max(1, x.size // GRAIN)
    ends, kernel = np.zeros(2 * pieces, np.float32), compiled(extremes_range, "xyiii", x.dtype)

    def run(lo: int, hi: int) -> None:
        for piece in range(lo, hi):
            kernel(x, ends, 2 * piece, piece * x.size // pieces, (piece + 1) * x.size // pieces)
    run_ranges(run, pieces, 1)
    scale[...], zero[...] = dynamic_parameters(ends)
    if np.isnan(scale):
        y[...] = 0
        return
    parameters = (np.broadcast_to(p, y.shape) for p in (scale, zero.astype(np.int32)))
    part = Call("quantize_linear", (x.reshape(y.shape), *parameters), {"low": 0, "high": 255})
    _quantize(part, (y,))


def _describe(call: Call) -> str:
    if not call.inputs[0].flags.c_contiguous:
        call.note_copy(f"x {call.inputs[0].shape}: not contiguous")
    return width(np.dtype(np.float32))


KERNELS = [
    Kernel("quantize_linear", "numba", _quantize, dtypes=INTEGERS, describe=_describe),
    Kernel("dequantize_linear", "numba", _dequantize, dtypes=(*INTEGERS, "int32"), describe=_describe),
    Kernel("dynamic_quantize_linear", "numba", _dynamic, dtypes=("float32",), describe=_describe),
]
