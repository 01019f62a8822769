"""The activations and their derivatives on vectors of kernels/vector, x -> f(x); p is the one parameter of those that
have one.

Far to the left gelu, silu and sigmoid keep their digits: the exponential stays in two parts, (1 + p) * 2^n, until the
end, and the rounding error of its argument goes along as a correction. For gelu, with t = |x| (no table, no branch):

    Phi(-t) = e^(-t^2/2) R(t),  R(t) = erfcx(t / sqrt 2) / 2,  (t + k) R(t) a polynomial in s = (t - k) / (t + k)

t^2 is taken as high + low: without low, e^(-t^2/2) would be off by 65 ULP at t = 14.
A result that underflows keeps its sign: hence the -0.0.
f(x) - f(-x) = x holds for gelu and silu, so that f'(x) = 1 - f'(-x): one side is computed, the smaller one.
"""
from __future__ import annotations

from tilewright.kernels.vector import vmath
from tilewright.kernels.vector.host import HAS_FMA, inner
from tilewright.kernels.vector.simd import fabs, fma, horner, ldexp, pick, select, vmax, vmin

from .coefficients import A_HI, A_LO, B_HI, B_LO, CUBIC_TOP, INV_SQRT_2PI, TAIL32, TAIL64, TAIL_K, TAIL_TOP


@inner
def relu(x, p):
    return vmax(x, 0.0)


@inner
def relu_slope(x, p):
    return select(x > 0.0, 1.0, select(x == x, 0.0, x))


@inner
def leaky_relu(x, p):
    return select(x > 0.0, x, x * p)


@inner
def leaky_relu_slope(x, p):
    return select(x > 0.0, 1.0, select(x == x, p, x))


@inner
def elu(x, p):
    return select(x > 0.0, x, vmath.expm1(x) * p)


@inner
def elu_slope(x, p):
    return select(x > 0.0, 1.0, vmath.exp(x) * p)


@inner
def left_tail(x):
    """(t, R, low, p, n) with t = |x|, Phi(-t) = (R + low) (1 + p) * 2^n"""
    t = vmin(fabs(x), pick(x, *TAIL_TOP))
    k = pick(x, *TAIL_K)
    high, low = vmath.two_product(t, t)
    p, n = vmath.exp_parts(high * -0.5, low * -0.5)
    total = t + k
    w = 1.0 / total
    high, low = vmath.two_product(w, total)
    error = (1.0 - high) - low - w * (t - (total - k))  # 1 / (t + k) = w (1 + error), the sum's rounding included
    s = (t - k) * w
    s = fma(s, error, s)  # (t - k) / (t + k)
    ratio, low = vmath.two_product(horner(s, TAIL32, TAIL64), w)
    return t, ratio, low, p + error, n


if HAS_FMA:
    @inner
    def left_gelu(t, ratio, low, p):
        """t (R + low) (1 + p), without low, which is not worth its time: 3.8 ULP in all"""
        q = t * ratio
        return fma(q, p, q)
else:
    @inner
    def left_gelu(t, ratio, low, p):
        """t (R + low) (1 + p): with more roundings on the way, 3.6 ULP in all, and 4.5 without low"""
        q = t * ratio
        return q + (q * p + t * low)


@inner
def gelu(x, p):
    t, ratio, low, p, n = left_tail(x)
    return vmax(x, -0.0) - ldexp(left_gelu(t, ratio, low, p), n)


@inner
def gelu_slope(x, p):
    t, ratio, low, p, n = left_tail(x)
    q = fma(t, -INV_SQRT_2PI, ratio)
    left = ldexp(fma(q, p, q), n)
    return select(x < 0.0, left, 1.0 - left)


@inner
def cubic(x):
    """2u = high + low"""
    z, z_low = vmath.two_product(x, x)
    high, low = vmath.two_product(z, pick(x, *B_HI))
    s, s_low = vmath.two_sum(high, pick(x, *A_HI))
    s_low = s_low + (fma(z_low, pick(x, *B_HI), fma(z, pick(x, *B_LO), low)) + pick(x, *A_LO))
    high, low = vmath.two_product(x, s)
    return high, fma(x, s_low, low)


@inner
def logistic_tail(t, low):
    """(q, p, n) with q = 1 / (1 + e^-t) and e^-(t - low) = (1 + p) * 2^n, for t >= 0"""
    p, n = vmath.exp_parts(-t, low)
    return 1.0 / (ldexp(1.0 + p, n) + 1.0), p, n


@inner
def gelu_tanh(x, p):
    t = vmin(fabs(x), pick(x, *CUBIC_TOP))
    u2, low = cubic(t)
    q, p, n = logistic_tail(u2, -low)
    q = t * q
    return vmax(x, -0.0) - ldexp(fma(q, p, q), n)


@inner
def gelu_tanh_slope(x, p):
    t = vmin(fabs(x), pick(x, *CUBIC_TOP))
    u2, low = cubic(t)
    q, p, n = logistic_tail(u2, -low)
    u2_slope = fma(t * t, 3.0 * pick(x, *B_HI), pick(x, *A_HI))
    q = q * fma(t * q, -u2_slope, 1.0)
    left = ldexp(fma(q, p, q), n)
    return select(x < 0.0, left, 1.0 - left)


@inner
def silu(x, p):
    t = vmin(fabs(x), -pick(x, *vmath.EXP_LOW))
    q, p, n = logistic_tail(t, -0.0)
    q = t * q
    return vmax(x, -0.0) - ldexp(fma(q, p, q), n)


@inner
def silu_slope(x, p):
    t = vmin(fabs(x), -pick(x, *vmath.EXP_LOW))
    q, p, n = logistic_tail(t, -0.0)
    q = q * fma(t, -q, 1.0)
    left = ldexp(fma(q, p, q), n)
    return select(x < 0.0, left, 1.0 - left)


@inner
def bell(t):
    """e^-t / (1 + e^-t)^2 for t >= 0"""
    q, p, n = logistic_tail(t, -0.0)
    q = q * q
    return ldexp(fma(q, p, q), n)


@inner
def sigmoid(x, p):
    return vmath.logistic(x)


@inner
def sigmoid_slope(x, p):
    return bell(fabs(x))


@inner
def tanh(x, p):
    return vmath.tanh(x)


@inner
def tanh_slope(x, p):
    return bell(fabs(x) * 2.0) * 4.0


@inner
def softplus(x, p):
    return vmax(x, 0.0) + vmath.log1p_unit(vmath.exp(-fabs(x)))


@inner
def softplus_slope(x, p):
    return vmath.logistic(x)


@inner
def hardswish(x, p):
    return select(x <= -3.0, -0.0, select(x >= 3.0, x, x * (x + 3.0) / 6.0))


@inner
def hardswish_slope(x, p):
    return select(x <= -3.0, 0.0, select(x >= 3.0, 1.0, x / 3.0 + 0.5))
