"""Arithmetic of arrays on a device, beside the table of operations: what NumPy computes of arrays on the host.

    binary("add", x, y, out)               x + y …: BINARY                     reductions are in reductions.py
    unary("times", x, out, 0.5)            x * 0.5, -x, √x …: UNARY
    convert(x, out)   copy(x, out)         to another dtype; bit by bit

All arrays have one shape, broadcasts as zero strides, and but for convert one dtype. Sums, products, quotients and
roots are rounded once, so that they have NumPy's bits.
"""
from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tilewright.core import arrays

from . import elementwise, maps, vmath
from . import intrinsics as ptx
from .cuda import float32, float64, inline, int32, int64, uint32, uint64
from .launch import Kernel, blocks, kernel, specialise
from .maps import offset, thread_number

REAL: dict[str, Any] = {"float32": np.float32, "float64": np.float64}
BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.float32, 8: np.float64}  # what copies so many bytes
BINARY = ("add", "subtract", "multiply", "divide", "equal")  # equal: 1 or 0
UNARY = ("copy", "plus", "minus_from", "times", "over", "divided_by_it", "negative", "absolute", "sign", "sqrt", "exp",
         "log")
EXAMPLES = [("add", "float32"), ("add", "float64"), ("divide", "float32"), ("equal", "float64")]
UNARY_EXAMPLES = [("copy", "float32"), ("copy", "float64"), ("divided_by_it", "float32"), ("log", "float32"),
                  ("exp", "float64")]


@cache
def functions(real: Any) -> SimpleNamespace:
    """The device functions f(x, y, p) and f(x, p) of a dtype, by name."""
    zero, one, e_to, ln = real(0), real(1), vmath.functions(real).exp, vmath.functions(real).log
    exact_ratio = ptx.div_rn if real is np.float32 else _ratio

    @inline
    def add(x, y, p):
        return x + y

    @inline
    def subtract(x, y, p):
        return x - y

    @inline
    def multiply(x, y, p):
        return x * y

    @inline
    def divide(x, y, p):
        return exact_ratio(x, y)

    @inline
    def equal(x, y, p):
        return one if x == y else zero

    @inline
    def copy(x, p):
        return x

    @inline
    def plus(x, p):
        return x + p

    @inline
    def minus_from(x, p):
        return p - x

    @inline
    def times(x, p):
        return x * p

    @inline
    def over(x, p):
        return exact_ratio(x, p)

    @inline
    def divided_by_it(x, p):
        return exact_ratio(p, x)

    @inline
    def negative(x, p):
        return -x

    @inline
    def absolute(x, p):
        return math.fabs(x)

    @inline
    def sign(x, p):
        return one if x > zero else -one if x < zero else x - x

    @inline
    def sqrt(x, p):
        return math.sqrt(x)

    @inline
    def exp(x, p):
        return e_to(x)

    @inline
    def log(x, p):
        return ln(x)

    return SimpleNamespace(**{name: f for name, f in locals().items() if name in BINARY + UNARY})


@inline
def _ratio(x, y):
    return x / y


@specialise(*EXAMPLES)
def flat_binary(name: str, dtype: str) -> Kernel:
    return maps.flat_binary(getattr(functions(REAL[dtype]), name), REAL[dtype])


@specialise(*EXAMPLES)
def strided_binary(name: str, dtype: str) -> Kernel:
    return maps.strided_binary(getattr(functions(REAL[dtype]), name), REAL[dtype])


@specialise(*UNARY_EXAMPLES)
def flat_unary(name: str, dtype: str) -> Kernel:
    return maps.flat_unary(getattr(functions(REAL[dtype]), name), REAL[dtype])


@specialise(*UNARY_EXAMPLES)
def strided_unary(name: str, dtype: str) -> Kernel:
    return maps.strided_unary(getattr(functions(REAL[dtype]), name), REAL[dtype])


# ---- from one dtype to another

@inline
def _f16(at):
    return ptx.f16_f32(ptx.ldg_u16(at))


@inline
def _bf16(at):
    return ptx.bf16_f32(ptx.ldg_u16(at))


@inline
def _i32(at):
    return int32(ptx.ldg_u32(at))


@inline
def _i64(at):
    return int64(ptx.ldg_u64(at))


@inline
def _to_f16(at, x):
    ptx.stg_u16(at, ptx.f32_f16(float32(x)))


@inline
def _to_bf16(at, x):
    ptx.stg_u16(at, ptx.f32_bf16(float32(x)))


@inline
def _to_f32(at, x):
    ptx.stg_f32(at, float32(x))


@inline
def _to_f64(at, x):
    ptx.stg_f64(at, float64(x))


@inline
def _to_i32(at, x):
    ptx.stg_u32(at, uint32(int32(x)))


@inline
def _to_i64(at, x):
    ptx.stg_u64(at, uint64(int64(x)))


SOURCES: dict[str, Any] = {
    "float32": ptx.ldg_f32, "float64": ptx.ldg_f64, "float16": _f16, "bfloat16": _bf16, "bool": ptx.ldg_u8,
    "uint8": ptx.ldg_u8, "int8": ptx.ldg_s8, "uint16": ptx.ldg_u16, "int32": _i32, "int64": _i64}
TARGETS: dict[str, Any] = {"float32": _to_f32, "float64": _to_f64, "float16": _to_f16, "bfloat16": _to_bf16,
                           "uint8": ptx.stg_u8, "uint16": ptx.stg_u16, "int32": _to_i32, "int64": _to_i64}
CONVERT_EXAMPLES = [("float64", "float32"), ("int8", "int32"), ("bfloat16", "float32"), ("uint8", "uint8")]
TWICE = [(source, half) for source in ("float64", "int32", "int64") for half in ("float16", "bfloat16")]  # roundings


@specialise(*CONVERT_EXAMPLES)
def strided_convert(source: str, target: str) -> Kernel:
    load, store = SOURCES[source], TARGETS[target]

    @kernel("r x, w y, u32 n, u32 rows, u32 columns, i64 x0, i64 x1, i64 x2, i64 y0, i64 y1, i64 y2",
            threads=maps.THREADS)
    def strided_convert(x, y, n, rows, columns, x0, x1, x2, y0, y1, y2):
        i = thread_number()
        if i < n:
            store(y + offset(i, rows, columns, y0, y1, y2), load(x + offset(i, rows, columns, x0, x1, x2)))
    return strided_convert


# ---- host side

def binary(name: str, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """out = x + y, or another one of BINARY; out may be x or y."""
    dtype = arrays.name_of(out.dtype)
    maps.run(lambda: flat_binary(name, dtype), lambda: strided_binary(name, dtype), (x, y, out), 0.0)


def unary(name: str, x: np.ndarray, out: np.ndarray, p: float = 0.0) -> None:
    """out = -x, x * p, or another one of UNARY; out may be x."""
    dtype = arrays.name_of(out.dtype)
    maps.run(lambda: flat_unary(name, dtype), lambda: strided_unary(name, dtype), (x, out), p)


def copy(x: np.ndarray, out: np.ndarray) -> None:
    """out = x, bit by bit, of any dtype."""
    real = BITS[out.itemsize]
    bits = x.view(real), out.view(real)
    if out.itemsize < 4:
        convert(*bits)
    else:
        unary("copy", *bits)


def convert(x: np.ndarray, out: np.ndarray) -> None:
    """out = x in out's dtype: to nearest, and from floats to integers towards zero; from SOURCES to TARGETS."""
    if out.size:
        k = strided_convert(arrays.name_of(x.dtype), arrays.name_of(out.dtype))
        for g in elementwise.strided(x, out):
            k.launch(blocks(g.elements, maps.THREADS), *g.arrays, g.elements, *g.sizes[1:], *g.steps)
