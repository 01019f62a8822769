"""Activations in Numba: one kernel for each and one for its gradient, over a range of contiguous elements.

    relu_range(x, out, lo, hi)                out[i] = f(x[i])
    relu_backward_range(dy, x, out, lo, hi)   out[i] = dy[i] f'(x[i])    leaky_relu, elu: their parameter follows x

x, dy, out: contiguous 1-D arrays of one dtype, float32 or float64; out may be x or dy. Serial, without the GIL,
callable from other compiled code:

    @njit(parallel=True)
    def my_relu(x, out):
        for c in prange(8):
            relu_range(x, out, c * len(x) // 8, (c + 1) * len(x) // 8)

Other layouts are copied by the wrapper at the end of this file. What f is stands in functions.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.vector.door import mapped
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.ranges import note_copies, run_flat, scaled, unary, width

from . import functions as f


@njit
def relu_range(x, out, lo, hi):
    unary(f.relu, x, 0.0, out, lo, hi)


@njit
def leaky_relu_range(x, negative_slope, out, lo, hi):
    unary(f.leaky_relu, x, negative_slope, out, lo, hi)


@njit
def elu_range(x, alpha, out, lo, hi):
    unary(f.elu, x, alpha, out, lo, hi)


@njit
def gelu_range(x, out, lo, hi):
    unary(f.gelu, x, 0.0, out, lo, hi)


@njit
def gelu_tanh_range(x, out, lo, hi):
    unary(f.gelu_tanh, x, 0.0, out, lo, hi)


@njit
def silu_range(x, out, lo, hi):
    unary(f.silu, x, 0.0, out, lo, hi)


@njit
def sigmoid_range(x, out, lo, hi):
    unary(f.sigmoid, x, 0.0, out, lo, hi)


@njit
def tanh_range(x, out, lo, hi):
    unary(f.tanh, x, 0.0, out, lo, hi)


@njit
def softplus_range(x, out, lo, hi):
    unary(f.softplus, x, 0.0, out, lo, hi)


@njit
def hardswish_range(x, out, lo, hi):
    unary(f.hardswish, x, 0.0, out, lo, hi)


@njit
def relu_backward_range(dy, x, out, lo, hi):
    scaled(f.relu_slope, dy, x, 0.0, out, lo, hi)


@njit
def leaky_relu_backward_range(dy, x, negative_slope, out, lo, hi):
    scaled(f.leaky_relu_slope, dy, x, negative_slope, out, lo, hi)


@njit
def elu_backward_range(dy, x, alpha, out, lo, hi):
    scaled(f.elu_slope, dy, x, alpha, out, lo, hi)


@njit
def gelu_backward_range(dy, x, out, lo, hi):
    scaled(f.gelu_slope, dy, x, 0.0, out, lo, hi)


@njit
def gelu_tanh_backward_range(dy, x, out, lo, hi):
    scaled(f.gelu_tanh_slope, dy, x, 0.0, out, lo, hi)


@njit
def silu_backward_range(dy, x, out, lo, hi):
    scaled(f.silu_slope, dy, x, 0.0, out, lo, hi)


@njit
def sigmoid_backward_range(dy, x, out, lo, hi):
    scaled(f.sigmoid_slope, dy, x, 0.0, out, lo, hi)


@njit
def tanh_backward_range(dy, x, out, lo, hi):
    scaled(f.tanh_slope, dy, x, 0.0, out, lo, hi)


@njit
def softplus_backward_range(dy, x, out, lo, hi):
    scaled(f.softplus_slope, dy, x, 0.0, out, lo, hi)


@njit
def hardswish_backward_range(dy, x, out, lo, hi):
    scaled(f.hardswish_slope, dy, x, 0.0, out, lo, hi)


# forward, backward, the parameter's letter, about what one float32 takes in nanoseconds
TABLE: tuple[tuple[Any, Any, str, float], ...] = (
    (relu_range, relu_backward_range, "", 0.06),
    (leaky_relu_range, leaky_relu_backward_range, "f", 0.07),
    (elu_range, elu_backward_range, "f", 0.15),
    (gelu_range, gelu_backward_range, "", 0.4),
    (gelu_tanh_range, gelu_tanh_backward_range, "", 0.4),
    (silu_range, silu_backward_range, "", 0.25),
    (sigmoid_range, sigmoid_backward_range, "", 0.2),
    (tanh_range, tanh_backward_range, "", 0.2),
    (softplus_range, softplus_backward_range, "", 0.3),
    (hardswish_range, hardswish_backward_range, "", 0.07),
)
TANH_FORM = {gelu_range: gelu_tanh_range, gelu_backward_range: gelu_tanh_backward_range}


def _name(kernel: Any) -> str:
    return kernel.__name__.removesuffix("_range")


def _runner(kernel: Any, inputs: int) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        chosen = TANH_FORM[kernel] if call.attrs.get("approximate") == "tanh" else kernel
        parameters = [v for v in call.attrs.values() if not isinstance(v, str)]
        run_flat(chosen, "x" * inputs + "f" * len(parameters) + "yii", call, outs[0], *parameters)
    return run


def _describe(call: Call) -> str:
    note_copies(call, ("x",) if len(call.inputs) == 1 else ("dy", "x"))
    return width(call.dtype)


KERNELS = [Kernel(_name(kernel), "numba", _runner(kernel, inputs), describe=_describe)
           for pair in TABLE for inputs, kernel in enumerate(pair[:2], 1) if kernel not in TANH_FORM.values()]
DOORS = {_name(kernel): mapped(kernel, "x" * inputs + letter + "yii", ns)
         for *pair, letter, ns in TABLE for inputs, kernel in enumerate(pair, 1)}
