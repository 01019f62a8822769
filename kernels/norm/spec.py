"""What layer_norm and rms_norm are, over the last axis of length n.

layer_norm: r = 1 / sqrt(mean((x - mean x)²) + eps), y = (x - mean x)·r·weight + bias (Ba 2016);
rms_norm:   r = 1 / sqrt(mean(x²) + eps), y = x·r·weight (Zhang 2019).

With x̂ = (x - mean x)·r (or x·r) and g = dy·weight: dx = r·(g - mean(g) - x̂·mean(g·x̂)), without mean(g) for rms_norm;
dweight = sum over rows of dy·x̂; dbias = sum over rows of dy.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps, tiny
from tilewright.core.errors import ArgumentError, ShapeError
from tilewright.core.registry import FLOATS, Call, Case, Spec
from tilewright.kernels.softmax.spec import LONG, rows, team_lengths


def _prepare(op: str, names: tuple[str, ...]) -> Callable[[tuple, dict], Call]:
    """names: (dy,) x, weight(, bias)"""
    backward = names[0] == "dy"

    def prepare(inputs: tuple, attrs: dict) -> Call:
        copies: list[str] = []
        xs = arrays.operands(op, names, inputs, FLOATS, copies, optional=("weight", "bias"))
        x = xs[names.index("x")]
        if x.ndim == 0:
            raise ShapeError(f"{op}: x needs at least one dimension")
        for name, v in zip(names, xs, strict=True):
            want = x.shape if name in ("dy", "x") else x.shape[-1:]
            if v is not None and v.shape != want:
                raise ShapeError(f"{op}: {name} {v.shape} must have the shape {want}, x being {x.shape}")
        epsilon = float(attrs.get("eps", 1e-5))
        if not epsilon >= 0:
            raise ArgumentError(f"{op}: eps must be 0 or more, not {epsilon}")
        parameter = (x.shape[-1:], x.dtype)
        outputs: tuple = ((x.shape, x.dtype),)
        if backward:
            outputs += (parameter,) if op.startswith("rms") else (parameter, parameter)
        return Call(op, tuple(xs), {"eps": epsilon}, outputs, copies=copies)
    return prepare


# ---- oracles and bounds

def normalized(x: np.ndarray, epsilon: float, centre: bool) -> tuple[np.ndarray, np.ndarray]:
    """x̂ and r of the definition."""
    if x.shape[-1] == 0:
        return x, np.ones(x.shape[:-1] + (1,), x.dtype)
    if centre:
        x = x - x.mean(-1, keepdims=True)
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)
    return x * r, r


def forward(x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, epsilon: float,
            centre: bool) -> np.ndarray:
    """The definition."""
    y, _ = normalized(x, epsilon, centre)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def backward(epsilon: float, centre: bool, dy: np.ndarray, x: np.ndarray,
             weight: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """dx, dweight and, for layer_norm, dbias."""
    y, r = normalized(x, epsilon, centre)
    g = dy if weight is None else dy * weight
    flat = (-1, x.shape[-1]) if x.size else (0, x.shape[-1])
    dweight = (dy * y).reshape(flat).sum(0)
    if x.shape[-1] == 0:
        return (g, dweight, dweight)[:3 if centre else 2]
    dx = r * (g - y * (g * y).mean(-1, keepdims=True) - (g.mean(-1, keepdims=True) if centre else 0))
    return (dx, dweight, dy.reshape(flat).sum(0)) if centre else (dx, dweight)


def _wide(xs: tuple, dtype: Any = np.longdouble) -> list[Any]:
    return [None if x is None else x.astype(dtype) for x in xs]


def _oracle(op: str) -> Callable[[Call], tuple]:
    centre = op.startswith("layer")

    def oracle(call: Call) -> tuple:
        with np.errstate(all="ignore"):
            if op.endswith("backward"):
                return tuple(d.astype(np.float64) for d in backward(call.attrs["eps"], centre, *_wide(call.inputs)))
            x, weight, bias = (*_wide(call.inputs), None)[:3]
            return (forward(x, weight, bias, call.attrs["eps"], centre).astype(np.float64),)
    return oracle


def _clean(bound: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.asarray(bound, np.float64), nan=0.0, posinf=0.0)


def _condition(x: np.ndarray, r: np.ndarray, dtype: np.dtype, centre: bool) -> np.ndarray:
    """Absolute error of x̂ apart from its own relative roundings.

    The mean of n terms errs by at most n·u·mean|x| and its rounding by u·|mean|; both shift x - mean, and r scales the
    shift. The shift enters the variance squared, and so does no more harm there than it does here.
    """
    if not centre or x.shape[-1] == 0:
        return np.zeros_like(r)
    return (x.shape[-1] / 2 + 2) * eps(dtype) * np.abs(x).mean(-1, keepdims=True) * r


def _forward_bound(op: str) -> Callable[[Call, tuple], tuple]:
    centre = op.startswith("layer")

    def bound(call: Call, expected: tuple) -> tuple:
        x, weight, bias = (*_wide(call.inputs, np.float64), None)[:3]
        n = x.shape[-1]
        with np.errstate(all="ignore"):
            y, r = normalized(x, call.attrs["eps"], centre)
            shift = _condition(x, r, call.dtype, centre)
            # r: half of the n·u of the sum of squares
            error = (n / 4 + 6) * eps(call.dtype) * np.abs(y) + shift * (1 + np.abs(y))
            if weight is not None:
                error = error * np.abs(weight)
            error = error + eps(call.dtype) * np.abs(expected[0]) + tiny(call.dtype)
            if bias is not None:
                error = error + eps(call.dtype) * np.abs(bias)
        return (_clean(error),)
    return bound


def _backward_bound(op: str) -> Callable[[Call, tuple], tuple]:
    centre = op.startswith("layer")

    def bound(call: Call, expected: tuple) -> tuple:
        dy, x, weight = _wide(call.inputs, np.float64)
        n, u = x.shape[-1], eps(call.dtype)
        m = x.size // max(n, 1)
        with np.errstate(all="ignore"):
            y, r = normalized(x, call.attrs["eps"], centre)
            shift = _condition(x, r, call.dtype, centre)
            y_error = (n / 4 + 6) * u * np.abs(y) + shift * (1 + np.abs(y))
            g, a = np.abs(dy if weight is None else dy * weight), np.abs(y)
            flat = (-1, n) if x.size else (0, n)
            dweight = ((m + 2) * u * np.abs(dy * y) + np.abs(dy) * y_error).reshape(flat).sum(0)
            dbias = (m + 2) * u * np.abs(dy).reshape(flat).sum(0)
            if n == 0:
                return tuple(np.zeros(e.shape) for e in expected)
            mean = (g * a).mean(-1, keepdims=True)
            dx = (n + 8) * u * (g + a * mean + g.mean(-1, keepdims=True))
            dx = dx + y_error * mean + a * (g * y_error).mean(-1, keepdims=True)
            dx = r * dx + (n / 4 + 6) * u * np.abs(expected[0]) + shift * np.abs(expected[0]) * (1 + a)
        return tuple(_clean(e + 4 * tiny(call.dtype)) for e in ((dx, dweight, dbias) if centre else (dx, dweight)))
    return bound


# ---- samples

def _cases(op: str, names: tuple[str, ...]) -> Callable[[np.random.Generator, str], Iterator[Case]]:
    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        def make(x: np.ndarray, layout: str, absent: int = 0) -> tuple:
            fill = {"x": lambda: x, "dy": lambda: sampling.normal(rng, x.shape, dtype, layout)}
            new = [fill.get(name, lambda: sampling.normal(rng, x.shape[-1:], dtype, layout))() for name in names]
            return tuple(v if i < len(names) - absent else None for i, v in enumerate(new))
        optional = sum(name in ("weight", "bias") for name in names)
        for i, (shape, layout) in enumerate(rows(rng, dtype)):
            yield Case(make(sampling.normal(rng, shape, dtype, layout), layout, i % (1 + optional)),
                       {"eps": (1e-5, 1e-3)[i % 2]}, f"{shape} {layout}")
        for n, absent in product((*team_lengths(dtype), *LONG), range(1 + optional)):
            yield Case(make(sampling.normal(rng, (2, n), dtype), "c", absent), {}, f"(2, {n}) without {absent}")
        far = sampling.normal(rng, (6, 300), dtype) + sampling.to_dtype(np.array(1e4), dtype)
        yield Case(make(far, "c"), {}, "mean far above the deviation")
        yield Case(make(np.full((3, 17), 2.5, dtype), "c"), {}, "constant rows")
        yield Case(make(sampling.normal(rng, (200, 9), dtype), "c"), {}, "many rows")
        special = sampling.normal(rng, (3, 37), dtype)
        special[0, 3], special[1, 5] = np.nan, np.inf
        if not op.endswith("_backward"):
            yield Case(make(special, "c"), {}, "NaN and infinity")
    return cases


def _bench(names: tuple[str, ...]) -> Callable[[np.random.Generator, str, str], Iterator[Case]]:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        shape = {"small": (32, 32), "medium": (256, 1024), "large": (2048, 2048)}[size]
        inputs = tuple(sampling.normal(rng, shape if name in ("dy", "x") else shape[-1:], dtype) for name in names)
        yield Case(inputs, {}, f"{shape[0]}x{shape[1]}")
    return bench


def _gradient(op: str) -> Callable[..., tuple]:
    def gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
        found = run(f"{op}_backward", grads[0], inputs[0], inputs[1], **attrs)
        return tuple(None if x is None else d for x, d in zip(inputs, found, strict=True))
    return gradient


def _spec(op: str, summary: str, names: tuple[str, ...], bound: Any, flops: int) -> Spec:
    return Spec(op, "norm", summary, names, _prepare(op, names), _oracle(op), bound(op),
                lambda call: float(flops * call.inputs[0].size),
                lambda call: float((3 if names[0] == "dy" else 2) * call.inputs[0].nbytes),
                _cases(op, names), _bench(names), None if op.endswith("_backward") else _gradient(op),
                like=(0,) if names[0] == "x" else (1, None, None) if op == "layer_norm_backward" else (1, None))


SPECS = [
    _spec("layer_norm", "(x - mean)/sqrt(var + eps) · weight + bias", ("x", "weight", "bias"), _forward_bound, 8),
    _spec("rms_norm", "x/sqrt(mean(x²) + eps) · weight", ("x", "weight"), _forward_bound, 5),
    _spec("layer_norm_backward", "dx, dweight, dbias of layer_norm", ("dy", "x", "weight"), _backward_bound, 18),
    _spec("rms_norm_backward", "dx, dweight of rms_norm", ("dy", "x", "weight"), _backward_bound, 14),
]
