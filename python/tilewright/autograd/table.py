"""The operations of the table on the tape: their gradients are what the table says."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np

from .. import ops
from ..core import registry
from ..core.errors import GradientError
from . import buffers
from .elementary import unbroadcast
from .tape import changed_in_place


def run(op: str, *inputs: Any, **attrs: Any) -> Any:
    """Call a public operation by name; large results that look like an input go into reused memory."""
    like = _like(op)
    if like and type(x := inputs[like[0]]) is np.ndarray and x.nbytes > buffers.PAGE and _of_one_dtype(inputs, x.dtype):
        out = buffers.empty_like(x)
        rest = [None if i is None else buffers.empty_like(inputs[i]) for i in like[1:]]
        attrs["out"] = (out, *rest) if rest else out
    return getattr(ops, op)(*inputs, **attrs)


@cache
def _like(op: str) -> tuple[Any, ...]:
    return registry.spec(op).like


def _of_one_dtype(inputs: tuple, dtype: np.dtype) -> bool:
    """Whether a result has this dtype: floats are promoted, foreign byte orders are not kept."""
    for x in inputs:
        if type(x) is np.ndarray and x.dtype is not dtype and x.dtype != dtype and x.dtype.kind not in "iub":
            return False
    return dtype.isnative


def runner(backend: str | None) -> Callable[..., Any]:
    """`run`, on the backend that was named where the operation was called; its gradient runs there too."""
    return run if backend is None else partial(run, backend=backend)


def gradient_of(op: str) -> Callable[..., tuple]:
    """The table's gradient of an operation; GradientError where it has none."""
    gradient = registry.spec(op).gradient
    if gradient is None:
        raise GradientError(f"{op} has no gradient; detach() its tensors, or call it in `with tw.no_grad():`")
    return gradient


class _Stale:
    """Stands in for a saved array that was changed in place: its shape can be read, and anything else raises."""

    def __init__(self, op: str, array: np.ndarray):
        self.op = op
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getattr__(self, name: str) -> NoReturn:
        raise changed_in_place(self.op)

    def __tilewright_function__(self, *args: Any) -> NoReturn:
        raise changed_in_place(self.op)


def backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> list[Any]:
    """The gradients for the inputs of one operation of the table."""
    op, gradient, inputs, output, attrs, run, guards = saved
    sources = inputs
    for i, version, number in guards:
        if version.count != number:
            if i < 0:
                output = _Stale(op, output)
            else:
                sources = (*sources[:i], _Stale(op, inputs[i]), *sources[i + 1:])
    grads = gradient(run, sources, (output,), (dy,), attrs)
    return [None if parent is None or g is None else unbroadcast(g, x.shape)
            for parent, g, x in zip(parents, grads, inputs, strict=True)]
