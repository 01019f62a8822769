"""Compare results with an oracle: derived bounds, element by element, written so that a NaN cannot pass."""
from __future__ import annotations

from typing import Any

import numpy as np


def eps(dtype: Any) -> float:
    """Spacing of 1.0 in a dtype, bfloat16 included."""
    if np.dtype(dtype).name == "bfloat16":
        return 2.0 ** -7
    return float(np.finfo(dtype).eps)


def tiny(dtype: Any) -> float:
    """Smallest positive denormal of a dtype."""
    if np.dtype(dtype).name == "bfloat16":
        return 2.0 ** -133
    return float(np.finfo(dtype).smallest_subnormal)


def ulp(expected: np.ndarray, dtype: Any) -> np.ndarray:
    """Unit in the last place of `dtype` at each exact value.

    2^(e - p + 1) for |value| in [2^e, 2^(e+1)), p being the bits of the significand; denormals' spacing below.
    """
    magnitude = np.abs(np.asarray(expected, np.float64))
    _, exponent = np.frexp(np.where(np.isfinite(magnitude), magnitude, 1.0))
    return np.maximum(np.ldexp(eps(dtype), exponent - 1), tiny(dtype))


def limits(dtype: Any) -> float:
    """Largest finite value of a dtype."""
    return 3.3895313892515355e38 if np.dtype(dtype).name == "bfloat16" else float(np.finfo(dtype).max)


def errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|actual - expected|; 0 where both are the same NaN or infinity, NaN where only one of them is."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(a - e)
    return np.where((a == e) | (np.isnan(a) & np.isnan(e)), 0.0, difference)


def mismatch(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> str | None:
    """None where every element is within its bound, else a sentence about the worst one.

    A finite exact value beyond the dtype's range may be met by an infinity of its sign, or by the largest number.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, expected {expected.shape}"
    if actual.size == 0:
        return None
    if actual.dtype.kind in "iub":
        wrong = actual != expected
        error = np.abs(actual.astype(np.float64) - expected)
        bound = np.zeros(actual.shape)
    else:
        bound = np.broadcast_to(np.asarray(bound, np.float64), actual.shape)
        error = errors(actual, expected)
        wrong = ~(error <= bound)
        edge = limits(actual.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            past = (np.abs(expected) + bound >= edge) & (np.sign(actual.astype(np.float64)) == np.sign(expected))
            wrong &= ~(past & (np.abs(actual.astype(np.float64)) >= np.minimum(np.abs(expected) - bound, edge)))
    if not wrong.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(wrong, np.nan_to_num(error / bound, nan=np.inf), -1.0)
    at = np.unravel_index(int(np.argmax(excess)), actual.shape)
    return (f"{int(wrong.sum())} of {actual.size} elements are out of bound; the worst at {tuple(map(int, at))}: "
            f"{actual[at]!r}, expected {expected[at]!r} within {bound[at]:.3g}, off by {error[at]:.3g}")
