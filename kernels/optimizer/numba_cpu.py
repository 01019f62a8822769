"""Optimizer steps in Numba: one fused pass over each parameter's arrays, in place, over a range of contiguous elements.

    sgd_range(grad, param, lr, weight_decay, lo, hi)
    momentum_range(grad, param, buffer, lr, momentum, nesterov, weight_decay, lo, hi)
    adam_range(grad, param, mean, square, step_size, root_scale, beta1, rest1, beta2, rest2, eps, weight_decay, decay,
               lo, hi)
    squares_range(grad, parts, lo, hi)       parts[b] = the sum of squares of block b of BLOCK elements, lo <= b < hi
    scale_range(grad, factor, lo, hi)

Contiguous 1-D arrays of one dtype, float32 or float64 (parts: float64). Serial, without the GIL, callable from other
compiled code. adam: step_size = lr / (1 - beta1^t), root_scale = 1 / sqrt(1 - beta2^t), rest = 1 - beta (a float32
beta has lost its digits), weight_decay goes to the gradient, decay = 1 - lr * wd to the parameter (AdamW). Squares
are summed in float64: gradients whose squares would overflow float32 still have a norm.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.core.threads import run_ranges
from tilewright.kernels.optimizer.spec import clip_factor
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.memory import filled, lanes, load_n, reduce_add, store_n, widened
from tilewright.kernels.vector.ranges import GRAIN, compiled, width
from tilewright.kernels.vector.simd import fma, sqrt

BLOCK = 4096  # elements in one partial sum of squares


@njit
def sgd_range(grad, param, lr, weight_decay, lo, hi):
    for i in range(lo, hi, lanes(param)):
        k = min(lanes(param), hi - i)
        p = load_n(param, i, k)
        store_n(param, i, fma(fma(p, weight_decay, load_n(grad, i, k)), -lr, p), k)


@njit
def momentum_range(grad, param, buffer, lr, momentum, nesterov, weight_decay, lo, hi):
    for i in range(lo, hi, lanes(param)):
        k = min(lanes(param), hi - i)
        p = load_n(param, i, k)
        g = fma(p, weight_decay, load_n(grad, i, k))
        b = fma(load_n(buffer, i, k), momentum, g)
        store_n(buffer, i, b, k)
        store_n(param, i, fma(fma(b, momentum, g) if nesterov != 0 else b, -lr, p), k)


@njit
def adam_range(grad, param, mean, square, step_size, root_scale, beta1, rest1, beta2, rest2, eps, weight_decay, decay,
               lo, hi):
    for i in range(lo, hi, lanes(param)):
        k = min(lanes(param), hi - i)
        p = load_n(param, i, k)
        g = fma(p, weight_decay, load_n(grad, i, k))
        m = fma(load_n(mean, i, k), beta1, g * rest1)
        v = fma(load_n(square, i, k), beta2, g * g * rest2)
        store_n(mean, i, m, k)
        store_n(square, i, v, k)
        store_n(param, i, p * decay - m * step_size / fma(sqrt(v), root_scale, eps), k)


@njit
def squares_range(grad, parts, lo, hi):
    w = lanes(grad)
    for block in range(lo, hi):
        end = min((block + 1) * BLOCK, len(grad))
        total = widened(filled(grad, 0.0))
        for i in range(block * BLOCK, end, w):
            g = widened(load_n(grad, i, min(w, end - i)))
            total = fma(g, g, total)
        parts[block] = reduce_add(total)


@njit
def scale_range(grad, factor, lo, hi):
    for i in range(lo, hi, lanes(grad)):
        k = min(lanes(grad), hi - i)
        store_n(grad, i, load_n(grad, i, k) * factor, k)


def _in_place(kernel: Any, letters: str, group: Sequence[np.ndarray], *parameters: float) -> None:
    """Run kernel(grad, changed..., parameters..., lo, hi) over one parameter's arrays; odd layouts by copies."""
    if not all(x.flags.c_contiguous for x in group) and all(x.flags.f_contiguous for x in group):
        group = [x.T for x in group]
    copies = [x if x.flags.c_contiguous else np.ascontiguousarray(x) for x in group]
    function, arguments = compiled(kernel, letters, group[0].dtype), (*(x.reshape(-1) for x in copies), *parameters)
    run_ranges(lambda lo, hi: function(*arguments, lo, hi), group[0].size, GRAIN // 2)
    for x, copy in zip(group[letters.startswith("x"):], copies[letters.startswith("x"):], strict=True):
        if copy is not x:
            x[...] = copy


def _sgd(call: Call, outs: Sequence[np.ndarray]) -> None:
    params, grads, buffers = call.inputs
    a = call.attrs
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if buffers is None:
            _in_place(sgd_range, "xyffii", (grad, param), a["lr"], a["weight_decay"])
        else:
            _in_place(momentum_range, "xyyffifii", (grad, param, buffers[i]),
                      a["lr"], a["momentum"], int(a["nesterov"]), a["weight_decay"])


def _adam(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, decoupled = call.attrs, call.op == "adamw_step"
    numbers = (a["lr"] / (1 - a["beta1"] ** a["step"]), 1 / math.sqrt(1 - a["beta2"] ** a["step"]),
               a["beta1"], 1 - a["beta1"], a["beta2"], 1 - a["beta2"], a["eps"],
               0.0 if decoupled else a["weight_decay"], 1 - a["lr"] * a["weight_decay"] if decoupled else 1.0)
    for param, grad, mean, square in zip(*call.inputs, strict=True):
        _in_place(adam_range, "xyyyfffffffffii", (grad, param, mean, square), *numbers)


def _norm(grad: np.ndarray) -> float:
    """The sum of squares of one array."""
    flat = (grad if grad.flags.c_contiguous else np.ascontiguousarray(grad)).reshape(-1)
    parts = np.empty(-(-flat.size // BLOCK))
    function = compiled(squares_range, "xdii", flat.dtype)
    run_ranges(lambda lo, hi: function(flat, parts, lo, hi), len(parts), GRAIN // BLOCK)
    return float(parts.sum())


def _clip(call: Call, outs: Sequence[np.ndarray]) -> float:
    norm = math.sqrt(sum(map(_norm, call.inputs[0])))
    factor = clip_factor(norm, call.attrs["max_norm"])
    if factor != 1:
        for grad in call.inputs[0]:
            _in_place(scale_range, "yfii", (grad,), factor)
    return norm


def _describe(call: Call) -> str:
    odd = sum(not x.flags.c_contiguous for many in call.inputs if many is not None for x in many)
    if odd:
        call.note_copy(f"{odd} arrays: not contiguous, copied and written back")
    return width(call.dtype)


KERNELS = [Kernel(op, "numba", run, describe=_describe) for op, run in (
    ("sgd_step", _sgd), ("adam_step", _adam), ("adamw_step", _adam), ("clip_grad_norm", _clip))]
