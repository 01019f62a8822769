"""What softmax and log_softmax are.

softmax(x) = exp(x - max) / sum exp(x - max); log_softmax(x) = x - max - log sum exp(x - max), along one axis. Kernels
see that axis moved last. A row that holds +infinity or NaN, or nothing but -infinity, becomes NaN, as in PyTorch.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps, tiny, ulp
from tilewright.core.errors import ShapeError
from tilewright.core.registry import FLOATS, Call, Case, Spec


def _axis_last(axis: int) -> Any:
    return lambda out: np.moveaxis(out, axis, -1)


def _prepare(op: str, names: tuple[str, ...]) -> Callable[[tuple, dict], Call]:
    def prepare(inputs: tuple, attrs: dict) -> Call:
        copies: list[str] = []
        xs = arrays.operands(op, names, inputs, FLOATS, copies)
        if xs[0].ndim == 0:
            raise ShapeError(f"{op}: {names[0]} needs at least one dimension")
        if xs[0].shape != xs[-1].shape:
            raise ShapeError(f"{op}: {names[0]} {xs[0].shape} and {names[-1]} {xs[-1].shape} must have one shape")
        axis = arrays.normal_axis(attrs.get("axis", -1), xs[0].ndim, op)
        return Call(op, tuple(np.moveaxis(x, axis, -1) for x in xs), {}, ((xs[0].shape, xs[0].dtype),),
                    (_axis_last(axis),), copies)
    return prepare


# ---- oracles and bounds

def _shifted(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] == 0:
        return x
    return x - x.max(-1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    """The definition, along the last axis."""
    e = np.exp(_shifted(x))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """The definition, along the last axis."""
    s = _shifted(x)
    return s - np.log(np.exp(s).sum(-1, keepdims=True))


def _oracle(f: Callable[[np.ndarray], np.ndarray]) -> Callable[[Call], tuple]:
    def oracle(call: Call) -> tuple:
        with np.errstate(all="ignore"):
            return (f(call.inputs[0].astype(np.longdouble)).astype(np.float64),)
    return oracle


def _clean(bound: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.asarray(bound, np.float64), nan=0.0, posinf=0.0)


def _softmax_bound(call: Call, expected: tuple) -> tuple:
    """Relative errors: |x - max|·u, as x - max rounds once; exp 4 ULP; the sum n·u of positive terms; the quotient."""
    x = call.inputs[0].astype(np.float64)
    with np.errstate(all="ignore"):
        relative = (np.abs(_shifted(x)) + x.shape[-1] / 2 + 8) * eps(call.dtype)
        return (_clean(relative * np.abs(expected[0]) + 4 * ulp(expected[0], call.dtype)),)


def _log_softmax_bound(call: Call, expected: tuple) -> tuple:
    """Roundings of x - max and of the last difference; the sum's relative error, made absolute by the logarithm."""
    x = call.inputs[0].astype(np.float64)
    n = x.shape[-1]
    with np.errstate(all="ignore"):
        s = _shifted(x)
        weights = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
        # what the rounded x - max do to the sum
        inner = np.where(weights > 0, weights * np.abs(s), 0).sum(-1, keepdims=True)
        bound = eps(call.dtype) * (np.abs(s) + np.abs(expected[0]) + inner + n / 2 + 8 + 2 * np.log(max(n, 1)))
    return (_clean(bound),)


def _softmax_backward_oracle(call: Call) -> tuple:
    dy, y = (v.astype(np.longdouble) for v in call.inputs)
    return ((y * (dy - (dy * y).sum(-1, keepdims=True))).astype(np.float64),)


def _softmax_backward_bound(call: Call, expected: tuple) -> tuple:
    dy, y = (np.abs(v.astype(np.float64)) for v in call.inputs)
    n = dy.shape[-1]
    return ((n + 4) * eps(call.dtype) * (y * (dy + (dy * y).sum(-1, keepdims=True))) + (n + 4) * tiny(call.dtype),)


def _log_softmax_backward_oracle(call: Call) -> tuple:
    dy, y = (v.astype(np.longdouble) for v in call.inputs)
    return ((dy - np.exp(y) * dy.sum(-1, keepdims=True)).astype(np.float64),)


def _log_softmax_backward_bound(call: Call, expected: tuple) -> tuple:
    dy, y = (v.astype(np.float64) for v in call.inputs)
    n = dy.shape[-1]
    magnitude = np.abs(dy) + (n + 8) * np.exp(y) * np.abs(dy).sum(-1, keepdims=True)
    return (eps(call.dtype) * magnitude + (n + 4) * tiny(call.dtype),)


# ---- samples

LONG = (257, 519, 1031, 4099)  # of rows that no vectors fill, beyond what each of CUDA's teams of threads holds
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 127, 129, 255, 1000, *LONG)


def team_lengths(dtype: str) -> list[int]:
    """Of rows in whole vectors, a little longer than what CUDA's teams of threads hold; the first is of a warp."""
    return [size // np.dtype(dtype).itemsize for size in (48, 1040, 4112, 16400)]


def rows(rng: np.random.Generator, dtype: str) -> Iterator[tuple[tuple[int, ...], str]]:
    """Row lengths around the vectors, several rows, layouts, empty shapes; shared with the norms."""
    for n in LENGTHS:
        yield (5, n), sampling.any_layout(rng)
    for n in team_lengths(dtype):
        yield (2, n), "c"
    for shape in ((0, 5), (5, 0), (7,), (2, 3, 33), (2, 0, 4), (3, 4, 5, 6)):
        for layout in sampling.LAYOUTS:
            yield shape, layout


def _cases(op: str) -> Callable[[np.random.Generator, str], Iterator[Case]]:
    backward = op.endswith("_backward")
    forward = softmax if op.startswith("softmax") else log_softmax

    def make(rng: np.random.Generator, x: np.ndarray, axis: int, layout: str) -> tuple:
        if not backward:
            return (x,)
        with np.errstate(all="ignore"):
            y = np.moveaxis(forward(np.moveaxis(x.astype(np.float64), axis, -1)), -1, axis)
        return sampling.normal(rng, x.shape, x.dtype.name, layout), sampling.laid_out(y.astype(x.dtype), layout)

    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        for shape, layout in rows(rng, dtype):
            x = sampling.normal(rng, shape, dtype, layout, 3.0)
            yield Case(make(rng, x, -1, layout), {}, f"{shape} {layout}")
        for shape, axis in (((9, 5), 0), ((3, 17, 4), 1), ((3, 17, 4), -3), ((33, 65), 0), ((1, 6), 0)):
            x = sampling.normal(rng, shape, dtype, scale=5.0)
            yield Case(make(rng, x, axis, "c"), {"axis": axis}, f"{shape} axis {axis}")
        x = np.broadcast_to(sampling.normal(rng, (1, 33), dtype), (4, 33))
        yield Case(make(rng, x, -1, "c"), {}, "zero strides")
        if not backward:
            yield Case((sampling.normal(rng, (4, 50), dtype, scale=80.0),), {}, "wide range")
            offset = sampling.to_dtype(np.array(1e4), dtype)
            yield Case((sampling.normal(rng, (4, 50), dtype) + offset,), {}, "large offset")
            special = sampling.normal(rng, (6, 37), dtype)
            special[0, 3], special[1, 5] = np.nan, np.inf
            special[2, 7] = special[3, :] = special[4, :20] = -np.inf
            yield Case((special,), {}, "NaN and infinity")
    return cases


def _bench(count: int) -> Callable[[np.random.Generator, str, str], Iterator[Case]]:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        shape = {"small": (32, 32), "medium": (256, 1024), "large": (2048, 2048)}[size]
        yield Case(tuple(sampling.normal(rng, shape, dtype) for _ in range(count)), {}, f"{shape[0]}x{shape[1]}")
    return bench


def _gradient(op: str) -> Callable[..., tuple]:
    def gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
        return (run(f"{op}_backward", grads[0], outputs[0], **attrs),)
    return gradient


def _spec(op: str, summary: str, oracle: Any, bound: Any, flops: int) -> Spec:
    names = ("dy", "y") if op.endswith("_backward") else ("x",)
    return Spec(op, "softmax", summary, names, _prepare(op, names), oracle, bound,
                lambda call: float(flops * call.inputs[0].size),
                lambda call: float((len(names) + 1) * call.inputs[0].nbytes),
                _cases(op), _bench(len(names)), None if op.endswith("_backward") else _gradient(op),
                like=(0,))


SPECS = [
    _spec("softmax", "exp(x) / sum exp(x) along an axis", _oracle(softmax), _softmax_bound, 24),
    _spec("log_softmax", "x - log sum exp(x) along an axis", _oracle(log_softmax), _log_softmax_bound, 24),
    _spec("softmax_backward", "y · (dy - sum(dy · y))", _softmax_backward_oracle, _softmax_backward_bound, 4),
    _spec("log_softmax_backward", "dy - exp(y) · sum(dy)",
          _log_softmax_backward_oracle, _log_softmax_backward_bound, 23),
]
