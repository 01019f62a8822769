"""Activations in CUDA: y = f(x), and dx = dy f'(x); y may be x, dx may be dy or x.

What f is stands in cuda_functions.py; how the elements are taken, in kernels/ptx/maps.py. A kernel for each function,
dtype and layout, all made from four.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, maps
from tilewright.kernels.ptx.cuda import inline
from tilewright.kernels.ptx.launch import specialise

from .cuda_functions import functions
from .spec import DERIVATIVES

EXAMPLES = [(name, dtype) for name in (*DERIVATIVES, "gelu_tanh") for dtype in FLOATS]
REAL = {"float32": np.float32, "float64": np.float64}


def _scaled(name: str, dtype: str):
    """(dy, x, p) -> dy f'(x)"""
    slope = functions(REAL[dtype])[f"{name}_slope"]

    @inline
    def scaled(dy, x, p):
        return dy * slope(x, p)
    return scaled


@specialise(*EXAMPLES)
def flat(name: str, dtype: str):
    return maps.flat_unary(functions(REAL[dtype])[name], REAL[dtype])


@specialise(*EXAMPLES)
def strided(name: str, dtype: str):
    return maps.strided_unary(functions(REAL[dtype])[name], REAL[dtype])


@specialise(*EXAMPLES)
def flat_backward(name: str, dtype: str):
    return maps.flat_binary(_scaled(name, dtype), REAL[dtype])


@specialise(*EXAMPLES)
def strided_backward(name: str, dtype: str):
    return maps.strided_binary(_scaled(name, dtype), REAL[dtype])


def _run(name: str, backward: bool) -> Callable[[Call, Sequence[np.ndarray]], None]:
    plain, other = (flat_backward, strided_backward) if backward else (flat, strided)

    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        which = "gelu_tanh" if call.attrs.get("approximate") == "tanh" else name
        constants = which, arrays.name_of(call.dtype)
        p = next((v for v in call.attrs.values() if not isinstance(v, str)), 0.0)
        maps.run(lambda: plain(*constants), lambda: other(*constants), (*call.inputs, outs[0]), p)
    return run


def _describe(call: Call) -> str:
    return "128-bit accesses" if elementwise.flat(*call.inputs) else "an element a thread, any strides"


KERNELS = [Kernel(f"{name}_backward" if backward else name, "cuda", _run(name, backward), describe=_describe)
           for name in DERIVATIVES for backward in (False, True)]
