"""dropout in CUDA: Philox in 32-bit words, the mask never stored; the same bits as on the CPU.

A counter gives the words of four neighbouring elements in C order. Arrays without gaps: a thread takes a counter, and
its four elements by 128-bit accesses. Any other strides: a thread takes an element, and one of its counter's words.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, launch, maps
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import inline, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel, specialise

from .spec import MULTIPLIERS, WEYL, scale, threshold

M0, M1 = (int(m) for m in MULTIPLIERS)
W0, W1 = WEYL
EXAMPLES = [(dtype,) for dtype in FLOATS]
REAL: dict[str, Any] = {"float32": np.float32, "float64": np.float64}
NUMBERS = "u64 threshold, u32 key0, u32 key1, {f} scale, u64 first, u32 n"  # first: the index of the first element


@inline
def philox(counter, key0, key1):
    """Four words of a counter"""
    a, b = uint32(counter), uint32(counter >> uint64(32))
    c, d = uint32(0), uint32(0)
    for _ in range(10):
        p, q = uint64(a) * uint64(M0), uint64(c) * uint64(M1)
        a, b = uint32(uint32(uint32(q >> uint64(32)) ^ b) ^ key0), uint32(q)
        c, d = uint32(uint32(uint32(p >> uint64(32)) ^ d) ^ key1), uint32(p)
        key0, key1 = uint32(key0 + uint32(W0)), uint32(key1 + uint32(W1))
    return a, b, c, d


@specialise(*EXAMPLES)
def flat(dtype: str) -> launch.Kernel:
    """y = x scale where the word is at least the threshold, else 0"""
    real = REAL[dtype]
    load, store, size, zero = maps.LOAD[real], maps.STORE[real], np.dtype(real).itemsize, real(0)

    if real is np.float32:
        @inline
        def four(x, y, k0, k1, k2, k3, scale):
            a, b, c, d = ptx.ldg_f32x4(x)
            ptx.stg_f32x4(y, a * scale if k0 else zero, b * scale if k1 else zero,
                          c * scale if k2 else zero, d * scale if k3 else zero)
    else:
        @inline
        def four(x, y, k0, k1, k2, k3, scale):
            a, b = ptx.ldg_f64x2(x)
            c, d = ptx.ldg_f64x2(x + uint64(16))
            ptx.stg_f64x2(y, a * scale if k0 else zero, b * scale if k1 else zero)
            ptx.stg_f64x2(y + uint64(16), c * scale if k2 else zero, d * scale if k3 else zero)

    @kernel(f"r x, w y, {NUMBERS.format(f=maps.NUMBER[real])}", threads=maps.THREADS)
    def flat(x, y, threshold, key0, key1, scale, first, n):
        i = maps.thread_number()
        whole = n // uint32(4)
        if i <= whole:
            a, b, c, d = philox((first >> uint64(2)) + uint64(i), key0, key1)
            k0, k1, k2, k3 = (uint64(a) >= threshold, uint64(b) >= threshold,
                              uint64(c) >= threshold, uint64(d) >= threshold)
            x += uint64(i) * uint64(4 * size)
            y += uint64(i) * uint64(4 * size)
            if i < whole:
                four(x, y, k0, k1, k2, k3, scale)
            else:
                rest = uint32(n - uint32(whole * uint32(4)))
                if rest > uint32(0):
                    store(y, load(x) * scale if k0 else zero)
                if rest > uint32(1):
                    store(y + uint64(size), load(x + uint64(size)) * scale if k1 else zero)
                if rest > uint32(2):
                    store(y + uint64(2 * size), load(x + uint64(2 * size)) * scale if k2 else zero)
    return flat


@specialise(*EXAMPLES)
def strided(dtype: str) -> launch.Kernel:
    """The same over three axes, of each array the steps along them in bytes."""
    real = REAL[dtype]
    load, store, zero = maps.LOAD[real], maps.STORE[real], real(0)
    offset, thread_number = maps.offset, maps.thread_number

    @kernel(f"r x, w y, {NUMBERS.format(f=maps.NUMBER[real])}, u32 rows, u32 columns, "
            "i64 x0, i64 x1, i64 x2, i64 y0, i64 y1, i64 y2", threads=maps.THREADS)
    def strided(x, y, threshold, key0, key1, scale, first, n, rows, columns, x0, x1, x2, y0, y1, y2):
        i = thread_number()
        if i < n:
            at = first + uint64(i)
            a, b, c, d = philox(at >> uint64(2), key0, key1)
            which = uint32(at) & uint32(3)
            word = (a if which == uint32(0) else b) if which < uint32(2) else (c if which == uint32(2) else d)
            value = load(x + offset(i, rows, columns, x0, x1, x2)) * scale
            store(y + offset(i, rows, columns, y0, y1, y2), value if uint64(word) >= threshold else zero)
    return strided


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, out = call.inputs[0], outs[0]
    if x.size == 0:
        return
    p, seed, name = call.attrs["p"], call.attrs["seed"], arrays.name_of(x.dtype)
    numbers = threshold(p), seed & 0xFFFFFFFF, seed >> 32, scale(p, x.dtype)
    if _without_gaps(x, out):
        for at in range(0, x.size, elementwise.MOST):
            part = [v.reshape(-1)[at:at + elementwise.MOST] for v in (x, out)]
            flat(name).launch(blocks(part[0].size, 4 * maps.THREADS), *part, *numbers, at, part[0].size)
        return
    for first, g in elementwise.in_order(x, out):
        strided(name).launch(blocks(g.elements, maps.THREADS), *g.arrays, *numbers, first, g.elements, *g.sizes[1:],
                             *g.steps)


def _without_gaps(*many: np.ndarray) -> bool:
    return all(x.flags.c_contiguous and arrays.address(x) % elementwise.ALIGNMENT == 0 for x in many)


def _describe(call: Call) -> str:
    return "128-bit accesses" if _without_gaps(*call.inputs) else "an element a thread, any strides"


KERNELS = [Kernel(op, "cuda", _run, describe=_describe) for op in ("dropout", "dropout_backward")]
