"""From a call to compiled code: flat views, typed kernels, elementwise loops.

A kernel is a function of file scope under `@njit`, over a half-open range [lo, hi), that other compiled code may call
too. `compiled(kernel, "xyii", dtype)` is that kernel for one signature, compiled (or read from disk) at first use.
One letter each:

    x   read-only contiguous 1-D array of the dtype     X   read-only 2-D array, any strides     f   scalar of the dtype
    y   writable contiguous 1-D array                   Y   writable 2-D array, any strides      i   integer
    l   x, but of int64                                 d   y, but of float64
    z   read-only 1-D array of int32, any strides       I   X, but of int32       J   Y, but of int32
    s   z, but of float32       S   X, but of float32       T   Y, but of float32
    m   writable contiguous bytes: memory to work in

One signature serves all callers: read-only or not, C order or not, so there is one entry in the cache for each dtype.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types

from tilewright.core.registry import Call
from tilewright.core.threads import run_ranges

from .host import BYTES, ISA, KERNEL, inner
from .memory import lanes, load, load_n, store, store_n

GRAIN = 131072  # elements worth a thread: 10 us of relu, 60 of gelu; to wake one takes 10 to 50


def _letter(letter: str, scalar: Any) -> Any:
    if letter in "xyXY":
        return types.Array(scalar, 1 if letter in "xy" else 2, "C" if letter in "xy" else "A", readonly=letter in "xX")
    if letter in "zIJsST":
        return types.Array(types.int32 if letter in "zIJ" else types.float32, 1 if letter in "zs" else 2, "A",
                           readonly=letter not in "JT")
    return {"f": scalar, "i": types.intp, "l": types.Array(types.int64, 1, "C", readonly=True),
            "d": types.Array(types.float64, 1, "C"), "m": types.Array(types.uint8, 1, "C")}[letter]


@cache
def compiled(kernel: Any, letters: str, dtype: np.dtype) -> Callable[..., Any]:
    """A kernel compiled for one signature; see the head of this file."""
    scalar = numba.from_dtype(dtype)
    signature = tuple(_letter(letter, scalar) for letter in letters)
    return numba.njit(signature, **KERNEL)(kernel.py_func)


_local = threading.local()


def scratch(nbytes: int, dtype: np.dtype) -> np.ndarray:
    """Memory of this thread, kept from call to call, of unknown contents; good until the next call of this function."""
    key = dtype.char
    kept = _local.__dict__.get(key)
    if kept is None or kept.nbytes < nbytes:
        kept = _local.__dict__[key] = np.empty(nbytes // dtype.itemsize, dtype)
    return kept


def flat(x: np.ndarray) -> np.ndarray:
    """The elements in C order as one contiguous axis: a view where possible, else a copy."""
    return x.reshape(-1) if x.flags.c_contiguous else np.ascontiguousarray(x).reshape(-1)


def note_copies(call: Call, names: Sequence[str]) -> None:
    """Say for `explain` which operands `flat` copies."""
    for name, x in zip(names, call.inputs, strict=False):
        if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
            call.note_copy(f"{name} {x.shape}: not contiguous")


class Flat:
    """Results as contiguous 1-D arrays: their own memory, or a stand-in copied back by `finish`."""

    def __init__(self, *outs: np.ndarray):
        self.outs = outs
        self.arrays = tuple(o.reshape(-1) if o.flags.c_contiguous else np.empty(o.size, o.dtype) for o in outs)

    def finish(self) -> None:
        """Copy what could not be written in place."""
        for out, array in zip(self.outs, self.arrays, strict=True):
            if not out.flags.c_contiguous:
                out[...] = array.reshape(out.shape)


def width(dtype: np.dtype) -> str:
    """"avx512, 16 lanes", for explain."""
    return f"{ISA}, {BYTES // dtype.itemsize} lanes"


def run_rows(kernel: Any, letters: str, dtype: np.dtype, inputs: Sequence[Any], outs: Sequence[np.ndarray],
             shape: tuple[int, ...]) -> None:
    """Run kernel(inputs..., outs..., n, lo, hi) over the rows of `shape`, of n elements each; scalars are passed on."""
    n, rows = shape[-1], math.prod(shape[:-1])
    results = Flat(*outs)
    function = compiled(kernel, letters, dtype)
    arguments = (*(flat(x) if isinstance(x, np.ndarray) else x for x in inputs), *results.arrays, n)
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), rows, max(1, GRAIN // max(n, 1)))
    results.finish()


def run_flat(kernel: Any, letters: str, call: Call, out: np.ndarray, *parameters: float, grain: int = GRAIN) -> None:
    """Run an elementwise kernel(inputs..., parameters..., out, lo, hi) over any layout."""
    xs = call.inputs
    if len(out.shape) > 1 and all(x.flags.f_contiguous for x in (*xs, out)):
        xs, out = tuple(x.T for x in xs), out.T
    result = Flat(out)
    function, arguments = compiled(kernel, letters, call.dtype), (*map(flat, xs), *parameters, *result.arrays)
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), out.size, grain)
    result.finish()


@inner
def unary(f, x, p, out, lo, hi):
    """out[i] = f(x[i], p), a vector at a time"""
    i = lo
    while hi - i >= lanes(x):
        store(out, i, f(load(x, i), p))
        i += lanes(x)
    if i < hi:
        store_n(out, i, f(load_n(x, i, hi - i), p), hi - i)


@inner
def scaled(f, dy, x, p, out, lo, hi):
    """out[i] = dy[i] * f(x[i], p)"""
    i = lo
    while hi - i >= lanes(x):
        store(out, i, load(dy, i) * f(load(x, i), p))
        i += lanes(x)
    if i < hi:
        store_n(out, i, load_n(dy, i, hi - i) * f(load_n(x, i, hi - i), p), hi - i)
