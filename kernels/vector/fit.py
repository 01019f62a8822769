"""Where the coefficients of vmath.py come from: near-minimax fits in 50 digits (needs mpmath; run by hand, prints the
tuples).

    python -m tilewright.kernels.vector.fit

Each row: name, function, interval, degree in float32 and in float64. Degrees are the least with a relative error of the
function that the polynomial serves below 2^-27 (float32) and 2^-56 (float64), so that rounding is what remains.
"""
from __future__ import annotations

import mpmath as mp


def exp_tail(r):
    """(e^r - 1 - r) / r^2"""
    return mp.hyp1f1(1, 3, r) / 2


def atanh_tail(z):
    """(atanh(s) / s - 1) / z with z = s^2"""
    return mp.hyp2f1(1, 1.5, 2.5, z) / 3


def tail_ratio(k):
    """(t + k) erfc(t / sqrt 2) e^(t^2 / 2) / 2 over s = (t - k) / (t + k)"""
    def ratio(s):
        t = k * (1 + s) / (1 - s)
        return (t + k) * mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2) / 2
    return ratio


def show(name, f, interval, degree):
    """Fit, print as a tuple, highest power first, and the largest relative error found."""
    interval = [mp.mpf(x) for x in interval]
    c = mp.chebyfit(f, interval, degree + 1)
    worst = max(abs(mp.polyval(c, x) / f(x) - 1) for x in mp.linspace(*interval, 301))
    numbers = ", ".join(mp.nstr(x, 18 if degree > 10 or "64" in name else 10) for x in c)
    print(f"{name} = ({numbers})  # relative error 2^{mp.nstr(mp.log(worst, 2), 4)}")


if __name__ == "__main__":
    mp.mp.dps = 50
    half = mp.log(2) / 2 * mp.mpf("1.01")  # rounding to the nearest n may err by a little
    show("EXP32", exp_tail, (-half, half), 5)
    show("EXP64", exp_tail, (-half, half), 10)
    show("ATANH32", atanh_tail, (0, mp.mpf(1) / 9), 4)
    show("ATANH64", atanh_tail, (0, mp.mpf(1) / 9), 11)
    for name, k, top, degree in (("TAIL32", 3, 14.5, 10), ("TAIL64", 5, 39, 23)):
        show(name, tail_ratio(k), (-1, mp.mpf(top - k) / (top + k)), degree)
