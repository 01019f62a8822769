"""Elementary functions on arrays and their derivatives: one row a function, all of it NumPy, which arrays on a device
answer with their own kernels.

`forward(a, *attrs)` or `forward(a, b)` computes the result y; `gradients[i](dy, a, b, y, *attrs)` is the gradient for
operand i, before broadcasting is undone. `reads[i]` names the values among a, b, y that it reads: those must not change
between the two; what is not read may, and y is not kept unless it is read.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.device_arithmetic import ones_where_equal
from ..core.device_arrays import DeviceArray, full_like


@dataclass(frozen=True, slots=True)
class Rule:
    """One elementary function."""

    forward: Callable[..., Any]
    gradients: tuple[Callable[..., Any], ...]
    reads: tuple[str, ...]


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the axes along which the operand of this shape was repeated."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    if extra:
        g = g.sum(axis=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=stretched, keepdims=True) if stretched else g


def _spread(reduced: Any, like: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    """The result of a reduction repeated over the axes that it removed."""
    reduced = reduced if isinstance(reduced, DeviceArray) else np.asarray(reduced)
    if axis is not None and not keepdims:
        axes = sorted(i % like.ndim for i in (axis if isinstance(axis, tuple) else (axis,)))
        reduced = np.expand_dims(reduced, tuple(axes))
    return np.broadcast_to(reduced, like.shape)


def _max_gradient(dy: Any, a: np.ndarray, b: None, y: Any, axis: Any, keepdims: bool) -> np.ndarray:
    """Shared equally by all elements that are the largest."""
    largest = ones_where_equal(a, _spread(y, a, axis, keepdims))
    share = largest / largest.sum(axis=axis, keepdims=True)
    return (_spread(dy, a, axis, keepdims) * share).astype(a.dtype)


def _mean_gradient(dy: Any, a: np.ndarray, b: None, y: Any, axis: Any, keepdims: bool) -> np.ndarray:
    return _spread(dy / a.dtype.type(a.size // max(np.size(dy), 1)), a, axis, keepdims)


def _is_basic(index: Any) -> bool:
    """Whether indexing gives a view in which no element stands twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) and not isinstance(p, bool)
               for p in parts)


def _index_gradient(dy: Any, a: np.ndarray, b: None, y: Any, index: Any) -> np.ndarray:
    g = full_like(a, 0) if isinstance(a, DeviceArray) else np.zeros(a.shape, np.asarray(dy).dtype)
    if _is_basic(index):
        g[index] = dy
    else:
        np.add.at(g, index, dy)
    return g


def _set_value_gradient(dy: Any, a: np.ndarray, b: Any, y: Any, index: Any) -> Any:
    """Where an element was set several times, the last value is the one that stayed."""
    g = dy[index]
    if _is_basic(index):
        return g
    turn = np.arange(g.size).reshape(g.shape)
    last = np.zeros(a.shape, np.intp)
    last[index] = turn
    return np.where(last[index] == turn, g, 0)


def _pow_exponent_gradient(dy: Any, a: Any, b: Any, y: Any) -> Any:
    """dy y log(a), which is 0 where a == 0 (and b >= 0); on a device exponents are numbers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return dy * np.where((np.asarray(a) == 0) & (np.asarray(b) >= 0), 0, y * np.log(a))


def _pow_base_gradient(dy: Any, a: Any, b: Any, y: Any) -> Any:
    """dy b a^(b-1), which is 0 where b == 0, even for a == 0."""
    if isinstance(a, DeviceArray):
        return dy * 0 if b == 0 else dy * (b * a ** (b - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return dy * np.where(np.asarray(b) == 0, 0, b * np.power(a, b - 1)).astype(dy.dtype)


RULES: dict[str, Rule] = {
    "add": Rule(np.add, (lambda dy, a, b, y: dy, lambda dy, a, b, y: dy), ("", "")),
    "subtract": Rule(np.subtract, (lambda dy, a, b, y: dy, lambda dy, a, b, y: -dy), ("", "")),
    "multiply": Rule(np.multiply, (lambda dy, a, b, y: dy * b, lambda dy, a, b, y: dy * a), ("b", "a")),
    "divide": Rule(np.true_divide, (lambda dy, a, b, y: dy / b, lambda dy, a, b, y: -dy * y / b), ("b", "by")),
    "power": Rule(np.power, (_pow_base_gradient, _pow_exponent_gradient), ("ab", "aby")),
    "negative": Rule(np.negative, (lambda dy, a, b, y: -dy,), ("",)),
    "abs": Rule(np.abs, (lambda dy, a, b, y: dy * np.sign(a),), ("a",)),
    "exp": Rule(np.exp, (lambda dy, a, b, y: dy * y,), ("y",)),
    "log": Rule(np.log, (lambda dy, a, b, y: dy / a,), ("a",)),
    "sqrt": Rule(np.sqrt, (lambda dy, a, b, y: dy * 0.5 / y,), ("y",)),
    "sum": Rule(lambda a, axis, keepdims: a.sum(axis=axis, keepdims=keepdims),
                (lambda dy, a, b, y, axis, keepdims: _spread(dy, a, axis, keepdims),), ("",)),
    "mean": Rule(lambda a, axis, keepdims: a.mean(axis=axis, keepdims=keepdims), (_mean_gradient,), ("",)),
    "max": Rule(lambda a, axis, keepdims: a.max(axis=axis, keepdims=keepdims), (_max_gradient,), ("ay",)),
    "reshape": Rule(lambda a, shape: a.reshape(shape), (lambda dy, a, b, y, shape: dy.reshape(a.shape),), ("",)),
    "transpose": Rule(lambda a, axes: a.transpose(axes),
                      (lambda dy, a, b, y, axes: dy.transpose(np.argsort([i % a.ndim for i in axes])),), ("",)),
    "index": Rule(lambda a, index: a[index], (_index_gradient,), ("",)),
    "set": Rule(lambda a, b, index: _with_item(a, index, b),
                (lambda dy, a, b, y, index: _with_item(dy, index, 0), _set_value_gradient), ("", "")),
    "cast": Rule(lambda a, dtype: a.astype(dtype), (lambda dy, a, b, y, dtype: dy.astype(a.dtype),), ("",)),
}


def _with_item(a: np.ndarray, index: Any, value: Any) -> np.ndarray:
    a = a.copy()
    a[index] = value
    return a
