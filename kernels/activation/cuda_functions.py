"""The activations and their derivatives in CUDA, for one number x and the parameter p of those that have one.

The formulas are those of functions.py, whose head explains them: functions(np.float32)["gelu"] is a device function
f(x, p), functions(np.float32)["gelu_slope"] that of its derivative.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tilewright.kernels.ptx import vmath
from tilewright.kernels.ptx.cuda import cuda, inline
from tilewright.kernels.vector.coefficients import EXP_LOW

from . import coefficients as c


@cache
def functions(real: Any) -> dict[str, Any]:
    """All of them by name, for np.float32 or np.float64."""
    table: dict[str, Any] = {}

    def entry(f: Callable[..., Any]) -> Any:
        table[f.__name__] = inline(f)
        return table[f.__name__]
    for add in (_pieces, _sigmoids, _gelu, _gelu_tanh):
        add(real, entry)
    return table


def _pieces(real: Any, entry: Any) -> None:
    """Lines, and an exponential to the left of 0."""
    zero, one, three, sixth, third, half = (real(v) for v in (0, 1, 3, 1 / 6, 1 / 3, 0.5))
    m = vmath.functions(real)
    exp, expm1 = m.exp, m.expm1

    @entry
    def relu(x, p):
        return zero if x < zero else x

    @entry
    def relu_slope(x, p):
        return one if x > zero else zero if x == x else x

    @entry
    def leaky_relu(x, p):
        return x if x > zero else x * p

    @entry
    def leaky_relu_slope(x, p):
        return one if x > zero else p if x == x else x

    @entry
    def elu(x, p):
        left = expm1(x) * p
        return x if x > zero else left

    @entry
    def elu_slope(x, p):
        left = exp(x) * p
        return one if x > zero else left

    @entry
    def hardswish(x, p):
        inside = x * (x + three) * sixth
        return -zero if x <= -three else x if x >= three else inside

    @entry
    def hardswish_slope(x, p):
        inside = cuda.fma(x, third, half)
        return zero if x <= -three else one if x >= three else inside


def _logistic_tail(real: Any) -> Any:
    """(q, p, n) with q = 1 / (1 + e^-t) and e^-(t - low) = (1 + p) * 2^n, for t >= 0"""
    one = real(1)
    m = vmath.functions(real)
    exp_parts, ldexp, recip = m.exp_parts, m.ldexp, m.recip

    @inline
    def logistic_tail(t, low):
        p, n = exp_parts(-t, low)
        return recip(ldexp(one + p, n) + one), p, n
    return logistic_tail


def _sigmoids(real: Any, entry: Any) -> None:
    """What is made of 1 / (1 + e^-x)."""
    zero, one, two, four = (real(v) for v in (0, 1, 2, 4))
    low = real(EXP_LOW[0 if real is np.float32 else 1])
    m, logistic_tail = vmath.functions(real), _logistic_tail(real)
    at_least, at_most, exp, ldexp = m.at_least, m.at_most, m.exp, m.ldexp
    logistic, log1p_unit, hyperbolic = m.logistic, m.log1p_unit, m.tanh

    @inline
    def bell(t):
        """e^-t / (1 + e^-t)^2 for t >= 0"""
        q, p, n = logistic_tail(t, zero)
        q = q * q
        return ldexp(cuda.fma(q, p, q), n)

    @entry
    def sigmoid(x, p):
        return logistic(x)

    @entry
    def sigmoid_slope(x, p):
        return bell(math.fabs(x))

    @entry
    def tanh(x, p):
        return hyperbolic(x)

    @entry
    def tanh_slope(x, p):
        return bell(math.fabs(x) * two) * four

    @entry
    def softplus(x, p):
        return at_least(x, zero) + log1p_unit(exp(-math.fabs(x)))

    @entry
    def softplus_slope(x, p):
        return logistic(x)

    @entry
    def silu(x, p):
        t = at_most(math.fabs(x), -low)
        q, e, n = logistic_tail(t, zero)
        q = t * q
        return at_least(x, -zero) - ldexp(cuda.fma(q, e, q), n)

    @entry
    def silu_slope(x, p):
        t = at_most(math.fabs(x), -low)
        q, e, n = logistic_tail(t, zero)
        q = q * cuda.fma(t, -q, one)
        left = ldexp(cuda.fma(q, e, q), n)
        return left if x < zero else one - left


def _gelu(real: Any, entry: Any) -> None:
    """gelu by the normal distribution; Phi(-t) = (R + low) (1 + e) * 2^n for t >= 0."""
    i = 0 if real is np.float32 else 1
    zero, one, half = real(0), real(1), real(0.5)
    top, k, density = real(c.TAIL_TOP[i]), real(c.TAIL_K[i]), real(c.INV_SQRT_2PI)
    tail = vmath.horner((c.TAIL32, c.TAIL64)[i], real)
    m = vmath.functions(real)
    at_least, at_most, exp_parts, ldexp = m.at_least, m.at_most, m.exp_parts, m.ldexp
    recip, two_product = m.recip, m.two_product

    @inline
    def left_tail(x):
        """(t, R, low, e, n) with t = |x|"""
        t = at_most(math.fabs(x), top)
        high, low = two_product(t, t)
        p, n = exp_parts(high * -half, low * -half)
        total = t + k
        w = recip(total)
        high, low = two_product(w, total)
        error = (one - high) - low - w * (t - (total - k))  # 1 / (t + k) = w (1 + error), the sum's rounding included
        s = (t - k) * w
        s = cuda.fma(s, error, s)  # (t - k) / (t + k)
        ratio, low = two_product(tail(s), w)
        return t, ratio, low, p + error, n

    @entry
    def gelu(x, p):
        t, ratio, low, e, n = left_tail(x)
        q = t * ratio
        return at_least(x, -zero) - ldexp(q + cuda.fma(q, e, t * low), n)

    @entry
    def gelu_slope(x, p):
        t, ratio, low, e, n = left_tail(x)
        q = cuda.fma(t, -density, ratio)
        left = ldexp(cuda.fma(q, e, q), n)
        return left if x < zero else one - left


def _gelu_tanh(real: Any, entry: Any) -> None:
    """gelu's tanh form, x / (1 + e^-2u) with 2u = x (A + B x^2)."""
    i = 0 if real is np.float32 else 1
    zero, one, three = real(0), real(1), real(3)
    top, a_hi, a_lo, b_hi, b_lo = (real(pair[i]) for pair in (c.CUBIC_TOP, c.A_HI, c.A_LO, c.B_HI, c.B_LO))
    m, logistic_tail = vmath.functions(real), _logistic_tail(real)
    at_least, at_most, ldexp, two_product, two_sum = m.at_least, m.at_most, m.ldexp, m.two_product, m.two_sum

    @inline
    def cubic(x):
        """2u = high + low"""
        z, z_low = two_product(x, x)
        high, low = two_product(z, b_hi)
        s, s_low = two_sum(high, a_hi)
        s_low = s_low + (cuda.fma(z_low, b_hi, cuda.fma(z, b_lo, low)) + a_lo)
        high, low = two_product(x, s)
        return high, cuda.fma(x, s_low, low)

    @entry
    def gelu_tanh(x, p):
        t = at_most(math.fabs(x), top)
        u2, low = cubic(t)
        q, e, n = logistic_tail(u2, -low)
        q = t * q
        return at_least(x, -zero) - ldexp(cuda.fma(q, e, q), n)

    @entry
    def gelu_tanh_slope(x, p):
        t = at_most(math.fabs(x), top)
        u2, low = cubic(t)
        q, e, n = logistic_tail(u2, -low)
        slope = cuda.fma(t * t, three * b_hi, a_hi)
        q = q * cuda.fma(t * q, -slope, one)
        left = ldexp(cuda.fma(q, e, q), n)
        return left if x < zero else one - left
