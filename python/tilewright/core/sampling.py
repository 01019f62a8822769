"""Sample inputs for conformance and benchmarks: fresh random data in every layout that an array can have."""
from __future__ import annotations

import numpy as np

LAYOUTS = ("c", "f", "step", "negative", "offset")

# Below, at and above the register tiles and vector lengths of all ISAs (4 … 48), and primes.
EDGES = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 24, 25, 28, 29, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97)


def to_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    """`x` rounded to a dtype given by name, bfloat16 included."""
    if dtype == "bfloat16":
        import ml_dtypes
        return x.astype(ml_dtypes.bfloat16)
    return x.astype(dtype)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same values with other strides; between them lies NaN, or 77, which no kernel may read into a result."""
    if x.ndim == 0 or layout == "c":
        return x
    if layout == "f":
        return np.asfortranarray(x)
    filler = np.nan if x.dtype.kind not in "iub" else 77
    shape = list(x.shape)
    if layout == "step":  # every second element of the last axis, padded rows
        shape[-1] = 2 * shape[-1] + 1
        big = np.full(shape, filler, x.dtype)
        view = big[..., 1::2]
    elif layout == "negative":
        big = np.full(shape, filler, x.dtype)
        view = big[tuple(slice(None, None, -1) for _ in shape)]
    elif layout == "offset":  # rows longer than the data, first element off any vector's alignment
        shape[-1] += 3
        big = np.full(shape, filler, x.dtype)
        view = big[..., 1:-2]
    else:
        raise ValueError(layout)
    view[...] = x
    return view


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, layout: str = "c",
           scale: float = 1.0) -> np.ndarray:
    """Standard normal values times `scale`."""
    return laid_out(to_dtype(rng.standard_normal(shape) * scale, dtype), layout)


def any_layout(rng: np.random.Generator) -> str:
    """One of LAYOUTS at random."""
    return LAYOUTS[int(rng.integers(len(LAYOUTS)))]


def specials(dtype: str) -> np.ndarray:
    """Values where functions break: zeros, infinities, NaN, denormals, the range's edges, tails of exp and of erfc."""
    info = np.finfo("float32" if dtype in ("float16", "bfloat16") else dtype)
    denormal = (float(info.smallest_subnormal), float(info.tiny / 2))
    positive = [0.0, *denormal, float(info.tiny), 1e-30, 1e-8, 1e-4, 0.1, 0.5, 0.999, 1.0, 1.5, 2.0, 2.999999,
                3.0, 3.1, 4.0, 5.5, 8.0, 9.01, 10.0, 12.5, 13.9, 14.1, 17.0, 20.0, 30.0, 50.0, 80.0, 87.3, 88.72, 88.8,
                89.0, 100.0, 103.9, 104.1, 120.0, 500.0, 708.0, 710.0, 745.1, 746.0, 1e4, 1e10, 1e30, float(info.max),
                np.inf]
    with np.errstate(over="ignore"):
        return to_dtype(np.array(positive + [-v for v in positive] + [np.nan]), dtype)
