"""What the CUDA products know of each dtype: its accesses, the type of its sums, and what is done to a finished sum.

    n = numbers("float16")      n.real: np.float32, the type of the sums; n.type: numba's name of it
                                n.size: bytes of a stored number
    n.finish(total, bias, c, alpha, beta, flags)      activation(alpha · total + bias) + beta · c
"""
from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tilewright.core.registry import HALVES
from tilewright.kernels.activation.cuda_functions import functions
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import rows
from tilewright.kernels.ptx.cuda import inline, uint32, uint64

from .spec import ACTIVATIONS

CODE = 0xFF  # of flags: the number of the activation in spec.ACTIVATIONS
WIDE = 0x100  # 128-bit accesses to c and out, or to the operands of a product with a vector
RAW = 0x200  # out is of the type of the sums; of tiles always in 128-bit accesses
SLOPES = {"leaky_relu": 0.01, "elu": 1.0}  # what spec.activate takes for those that have a parameter


def _activation(real: Any) -> Any:
    """(x, code) -> the activation: one branch, the same for all threads, so that one kernel serves all of them."""
    def chain(left: tuple[str, ...], first: int) -> Any:
        if not left:
            @inline
            def same(x, code):
                return x
            return same
        f, p, rest, number = functions(real)[left[0]], real(SLOPES.get(left[0], 0.0)), chain(left[1:], first + 1), first

        @inline
        def chosen(x, code):
            return f(x, p) if code == uint32(number) else rest(x, code)
        return chosen
    others = chain(ACTIVATIONS[1:], 1)

    @inline
    def activation(x, code):
        return x if code == uint32(0) else others(x, code)
    return activation


def _finishing(n: Any) -> None:
    """What is done to a sum, and with it."""
    activation, load, store, zero = _activation(n.real), n.load, n.store, n.real(0)
    store_sum = ptx.stg_f64 if n.real is np.float64 else ptx.stg_f32

    @inline
    def finish(total, bias, c, alpha, beta, flags):
        return activation(alpha * total + bias, uint32(flags & uint32(CODE))) + beta * c

    @inline
    def optional(p, offset):
        """The number at an offset from p; 0 where there is no p."""
        return zero if p == uint64(0) else load(p + offset)

    @inline
    def put(p, x, flags):
        if flags & uint32(RAW):
            store_sum(p, x)
        else:
            store(p, x)
    n.finish, n.optional, n.put = finish, optional, put


def _half_chunk(to_real: Any) -> Any:
    """Eight 16-bit numbers in one access."""
    @inline
    def load_chunk(v, p):
        a, b, c, d = ptx.ldg_nc_u32x4(p)
        v[0], v[1], v[2], v[3] = to_real(a & uint32(0xFFFF)), to_real(a >> uint32(16)), to_real(b & uint32(0xFFFF)), \
            to_real(b >> uint32(16))
        v[4], v[5], v[6], v[7] = to_real(c & uint32(0xFFFF)), to_real(c >> uint32(16)), to_real(d & uint32(0xFFFF)), \
            to_real(d >> uint32(16))
    return load_chunk


def _chunk(load_nc_wide: Any) -> Any:
    @inline
    def load_chunk(v, p):
        load_nc_wide(v, 0, p)
    return load_chunk


def _half_accesses(to_real: Any, from_real: Any) -> tuple[Any, Any, Any]:
    """Of 16-bit numbers: they are float32 as soon as they are loaded."""
    @inline
    def load(p):
        return to_real(ptx.ldg_u16(p))

    @inline
    def load_nc(p):
        return to_real(ptx.ldg_nc_u16(p))

    @inline
    def store(p, x):
        ptx.stg_u16(p, from_real(x))
    return load, load_nc, store


@cache
def numbers(dtype: str) -> SimpleNamespace:
    """Device functions and constants for one dtype.

    load, load_nc, store    one number of global memory; lds, sts: of shared memory, where sums' type lies
    load_wide, store_wide   `lanes` numbers, 16 bytes as sums, into or out of places i … of a local array
    load_chunk              16 bytes of stored numbers, `chunk` of them, into a local array
    finish, optional, put   what is done to a sum; a number of an array that may be missing; out, by flags
    """
    real = np.float64 if dtype == "float64" else np.float32
    n = SimpleNamespace(real=real, type=rows.NUMBA[real], number="f64" if real is np.float64 else "f32",
                        lanes=16 // real().itemsize)
    if real is np.float64:
        n.load, n.load_nc, n.store, n.lds, n.sts = ptx.ldg_f64, ptx.ldg_nc_f64, ptx.stg_f64, ptx.lds_f64, ptx.sts_f64
        n.load_wide, n.load_nc_wide, n.store_wide, n.lds_wide, n.sts_wide = _pairs()
    else:
        n.load, n.load_nc, n.store, n.lds, n.sts = ptx.ldg_f32, ptx.ldg_nc_f32, ptx.stg_f32, ptx.lds_f32, ptx.sts_f32
        n.load_wide, n.load_nc_wide, n.store_wide, n.lds_wide, n.sts_wide = _fours()
    n.size, n.load_chunk = real().itemsize, _chunk(n.load_nc_wide)
    if dtype in HALVES:
        to_real, from_real = (ptx.f16_f32, ptx.f32_f16) if dtype == "float16" else (ptx.bf16_f32, ptx.f32_bf16)
        n.size, n.load_chunk = 2, _half_chunk(to_real)
        n.load, n.load_nc, n.store = _half_accesses(to_real, from_real)
        n.load_wide, n.store_wide = _half_fours(to_real, from_real, n.store_wide)
    n.chunk = 16 // n.size
    _finishing(n)
    return n


def _half_fours(to_real: Any, from_real: Any, store_sums: Any) -> tuple[Any, Any]:
    """Four 16-bit numbers in one access of 64 bits."""
    @inline
    def load_wide(r, i, p):
        a, b = ptx.ldg_u32x2(p)
        r[i], r[i + 1] = to_real(a & uint32(0xFFFF)), to_real(a >> uint32(16))
        r[i + 2], r[i + 3] = to_real(b & uint32(0xFFFF)), to_real(b >> uint32(16))

    @inline
    def store_wide(p, r, i, flags):
        if flags & uint32(RAW):
            store_sums(p, r, i, flags)
        else:
            ptx.stg_u32x2(p, uint32(from_real(r[i]) | uint32(from_real(r[i + 1]) << uint32(16))),
                          uint32(from_real(r[i + 2]) | uint32(from_real(r[i + 3]) << uint32(16))))
    return load_wide, store_wide


def _fours() -> tuple[Any, ...]:
    """128-bit accesses of float32."""
    @inline
    def load_wide(r, i, p):
        r[i], r[i + 1], r[i + 2], r[i + 3] = ptx.ldg_f32x4(p)

    @inline
    def load_nc_wide(r, i, p):
        r[i], r[i + 1], r[i + 2], r[i + 3] = ptx.ldg_nc_f32x4(p)

    @inline
    def store_wide(p, r, i, flags):
        ptx.stg_f32x4(p, r[i], r[i + 1], r[i + 2], r[i + 3])

    @inline
    def lds_wide(r, i, p):
        r[i], r[i + 1], r[i + 2], r[i + 3] = ptx.lds_f32x4(p)

    @inline
    def sts_wide(p, r, i):
        ptx.sts_f32x4(p, r[i], r[i + 1], r[i + 2], r[i + 3])
    return load_wide, load_nc_wide, store_wide, lds_wide, sts_wide


def _pairs() -> tuple[Any, ...]:
    """128-bit accesses of float64."""
    @inline
    def load_wide(r, i, p):
        r[i], r[i + 1] = ptx.ldg_f64x2(p)

    @inline
    def load_nc_wide(r, i, p):
        r[i], r[i + 1] = ptx.ldg_nc_f64x2(p)

    @inline
    def store_wide(p, r, i, flags):
        ptx.stg_f64x2(p, r[i], r[i + 1])

    @inline
    def lds_wide(r, i, p):
        r[i], r[i + 1] = ptx.lds_f64x2(p)

    @inline
    def sts_wide(p, r, i):
        ptx.sts_f64x2(p, r[i], r[i + 1])
    return load_wide, load_nc_wide, store_wide, lds_wide, sts_wide
