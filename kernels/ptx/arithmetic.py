"""What arrays on a device need of arithmetic beside the table of operations: sums of two gradients, and copies."""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS

from . import maps
from .cuda import inline
from .launch import Kernel, specialise

EXAMPLES = [(dtype,) for dtype in FLOATS]
REAL: dict[str, Any] = {"float32": np.float32, "float64": np.float64}


@inline
def _sum(x, y, p):
    return x + y


@inline
def _same(x, p):
    return x


@specialise(*EXAMPLES)
def flat_add(dtype: str) -> Kernel:
    return maps.flat_binary(_sum, REAL[dtype])


@specialise(*EXAMPLES)
def strided_add(dtype: str) -> Kernel:
    return maps.strided_binary(_sum, REAL[dtype])


@specialise(*EXAMPLES)
def flat_copy(dtype: str) -> Kernel:
    return maps.flat_unary(_same, REAL[dtype])


@specialise(*EXAMPLES)
def strided_copy(dtype: str) -> Kernel:
    return maps.strided_unary(_same, REAL[dtype])


def add(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """out = x + y, of one shape and dtype; out may be x or y."""
    name = arrays.name_of(out.dtype)
    maps.run(lambda: flat_add(name), lambda: strided_add(name), (x, y, out), 0.0)


def copy(x: np.ndarray, out: np.ndarray) -> None:
    """out = x, bit by bit."""
    name = arrays.name_of(out.dtype)
    maps.run(lambda: flat_copy(name), lambda: strided_copy(name), (x, out), 0.0)
