"""Mathematical functions on the numbers of a thread: the formulas of kernels/vector/vmath.py in CUDA.

    m = functions(np.float32)          m.exp, m.log, m.tanh ...: device functions, float32 arithmetic throughout

Only instructions with one defined result are used, fused multiply-adds above all, so that what an emulator computes is
what a device does. The one exception, the approximate reciprocal, is corrected until its error decides the last bit
once in millions. NaN passes through.
Constants are NumPy scalars: with Python's numbers all would become float64. The compiler fuses x * y + z wherever it
stands; what must be rounded twice uses ptx.mul_rn.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tilewright.kernels.vector import coefficients as c

from . import intrinsics as ptx
from .cuda import cuda, float32, float64, inline, uint32, uint64

MAGIC = {np.float32: 1.5 * 2.0**23, np.float64: 1.5 * 2.0**52}  # adding it rounds to an integer, in the lowest bits
BIAS = {np.float32: 127.0, np.float64: 1023.0}


def horner(coefficients: Sequence[float], real: Any) -> Any:
    """A polynomial as a device function, highest power first; its coefficients become literals."""
    last = real(coefficients[-1])
    if len(coefficients) == 1:
        @inline
        def constant(x):
            return last
        return constant
    rest = horner(coefficients[:-1], real)

    @inline
    def polynomial(x):
        return cuda.fma(rest(x), x, last)
    return polynomial


def power_of_two(real: Any) -> Any:
    """2^n for an integer n within the normal exponents, as a device function."""
    shift = real(MAGIC[real] + BIAS[real])  # leaves n + bias in the lowest bits
    if real is np.float32:
        @inline
        def power2(n):
            return ptx.bits_f32(uint32(ptx.f32_bits(n + shift) << uint32(23)))
    else:
        @inline
        def power2(n):
            return ptx.bits_f64(uint64(ptx.f64_bits(n + shift) << uint64(52)))
    return power2


def mantissa_and_exponent(real: Any) -> Any:
    """(e, m) with x = 2^e m and 1 <= m < 2 for positive normal x, as a device function."""
    bias = real(BIAS[real])
    if real is np.float32:
        @inline
        def binary_parts(x):
            bits = ptx.f32_bits(x)
            m = ptx.bits_f32(uint32(uint32(bits & uint32(0x7FFFFF)) | uint32(0x3F800000)))
            return float32(uint32(bits >> uint32(23))) - bias, m
    else:
        @inline
        def binary_parts(x):
            bits = ptx.f64_bits(x)
            m = ptx.bits_f64(uint64(uint64(bits & uint64(0xFFFFFFFFFFFFF)) | uint64(0x3FF0000000000000)))
            return float64(uint32(bits >> uint64(52))) - bias, m
    return binary_parts


def reciprocal(real: Any) -> Any:
    """1 / x to within 0.6 ULP, for x whose reciprocal is normal too, as a device function."""
    one = real(1)
    if real is np.float64:
        @inline
        def divided(x):
            return one / x
        return divided

    @inline
    def recip(x):
        r = ptx.rcp_approx(x)  # off by 1 ULP at most; the step squares that
        return cuda.fma(cuda.fma(-x, r, one), r, r)
    return recip


@cache
def functions(real: Any) -> SimpleNamespace:
    """The device functions for np.float32 or np.float64, by name."""
    i = 0 if real is np.float32 else 1
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    magic, log2e, ln2_hi, ln2_lo = real(MAGIC[real]), real(c.LOG2E), real(c.LN2_HI[i]), real(c.LN2_LO[i])
    exp_low, exp_high = real(c.EXP_LOW[i]), real(c.EXP_HIGH[i])
    expm1_low, expm1_high = real((-40.0, -60.0)[i]), real((88.8, 709.9)[i])  # -1 and infinity are reached
    tanh_high = real((10.0, 22.0)[i])
    quarter, root2, infinity, nan = real(0.25), real(math.sqrt(2)), real(np.inf), real(np.nan)
    least, digits, scale = np.finfo(real).tiny, real((24, 53)[i]), real((2.0**24, 2.0**53)[i])  # of denormals, for log
    mul_rn = (ptx.mul_rn, ptx.mul_rn_f64)[i]
    exp_tail, atanh_tail = horner((c.EXP32, c.EXP64)[i], real), horner((c.ATANH32, c.ATANH64)[i], real)
    power2, recip, binary_parts = power_of_two(real), reciprocal(real), mantissa_and_exponent(real)

    @inline
    def at_least(x, low):
        """max(x, low), NaN where x is"""
        return low if x < low else x

    @inline
    def at_most(x, high):
        """min(x, high), NaN where x is"""
        return high if x > high else x

    @inline
    def ratio(x, y):
        """x / y within 0.6 ULP, for y and 1 / y in the normal range"""
        r = recip(y)
        q = x * r
        return cuda.fma(cuda.fma(-y, q, x), r, q)

    @inline
    def ldexp(x, n):
        """x * 2^n for x near 1, rounded once also where it becomes denormal"""
        first = cuda.fma(n, half, magic) - magic
        return x * power2(first) * power2(n - first)

    @inline
    def exp_parts(x, low):
        """(p, n) with e^(x + low) = (1 + p) * 2^n, |p| < 0.42, n an integer; low: a correction of x"""
        x = at_most(at_least(x, exp_low), exp_high)
        n = cuda.fma(x, log2e, magic) - magic
        r = cuda.fma(n, -ln2_lo, cuda.fma(n, -ln2_hi, x)) + low
        return cuda.fma(exp_tail(r), r * r, r), n

    @inline
    def exp(x):
        p, n = exp_parts(x, zero)
        return ldexp(one + p, n)

    @inline
    def expm1(x):
        x = at_most(at_least(x, expm1_low), expm1_high)
        n = cuda.fma(x, log2e, magic) - magic
        r = cuda.fma(n, -ln2_lo, cuda.fma(n, -ln2_hi, x))
        p = cuda.fma(exp_tail(r), r * r, r)
        scale = power2(n - one)  # 2^n itself may overflow
        return cuda.fma(scale, p, scale - half) * two

    @inline
    def log1p_unit(x):
        """log(1 + x) for 0 <= x <= 1, as 2 atanh(x / (2 + x))"""
        s2 = ratio(x, cuda.fma(x, half, one))
        z = s2 * s2 * quarter
        return cuda.fma(atanh_tail(z) * z, s2, s2)

    @inline
    def log_from_one(x):
        """log x for x >= 1 below infinity, as e ln 2 + log1p(m - 1) with x = 2^e m, 1 <= m < 2: nothing cancels"""
        e, m = binary_parts(x)
        y = cuda.fma(e, ln2_hi, cuda.fma(e, ln2_lo, log1p_unit(m - one)))
        return y if x == x else x

    @inline
    def log(x):
        """log x: as above with m within a factor of sqrt 2 from 1, so that near 1 nothing cancels"""
        tiny = x < least
        e, m = binary_parts(x * scale if tiny else x)
        high = m > root2
        e, m = e + (one if high else zero) - (digits if tiny else zero), m * half if high else m
        y = cuda.fma(e, ln2_hi, cuda.fma(e, ln2_lo, log1p_unit(m - one)))
        if x > zero:
            return y if x < infinity else x
        return -infinity if x == zero else nan

    @inline
    def logistic(x):
        """1 / (1 + e^-x), from e^-|x| on both sides"""
        p, n = exp_parts(-math.fabs(x), zero)
        left = x < zero
        q = ratio(one + p if left else one, ldexp(one + p, n) + one)
        return ldexp(q, n if left else zero)

    @inline
    def tanh(x):
        """expm1(2|x|) / (expm1(2|x|) + 2), with the sign of x"""
        e = expm1(at_most(math.fabs(x), tanh_high) * two)
        return math.copysign(ratio(e, e + two), x)

    @inline
    def two_product(x, y):
        """(high, low) with high + low = x * y exactly; high must not become part of a fused sum"""
        high = mul_rn(x, y)
        return high, cuda.fma(x, y, -high)

    @inline
    def two_sum(x, y):
        """(high, low) with high + low = x + y exactly (Knuth)"""
        high = x + y
        back = high - x
        return high, (x - (high - back)) + (y - back)

    return SimpleNamespace(**{name: f for name, f in locals().items() if hasattr(f, "py_func")})
