"""The tape: what was computed from what, and the walk back over it.

A Node stands for one result. It is made while results are computed, so its number `order` is larger than those of the
nodes it was computed from; walking the reachable nodes from the largest number to the smallest meets each one after all
of its uses. Nothing recurses, so that the depth of a graph has no limit.

    leaf (Tensor)  <-parents-  Node  <-parents-  Node  <-  loss
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import wraps
from itertools import count
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from ..core.device_arrays import DeviceArray, shares_memory
from ..core.errors import GradientError
from ..core.replay import recorded
from . import buffers

_recording: ContextVar[bool] = ContextVar("tilewright_recording", default=True)
recording = _recording.get  # recording() -> bool; a bound method, because every operation asks
_numbers = count()
_order = attrgetter("order")


class Version:
    """How often the memory under a tensor was changed in place; tensors that are views of one another share one."""

    count = 0
    shared = False


Guard = tuple[Version, int]  # a saved value, and the version it had


class Leaf(Protocol):
    """What the tape ends in: a tensor that was not computed and wants a gradient."""

    data: np.ndarray
    grad: np.ndarray | None
    _spare: buffers.Spare | None


class Node:
    """One result on the tape.

    backward(dy, saved, parents) -> gradients, one for each parent; parents that want none are None. It may also add to
    the `grad` of a leaf by itself, and return None for it. `saved` is None once it was used up. `guards` are the saved
    tensors whose memory must not have changed since.
    """

    __slots__ = ("name", "backward", "parents", "saved", "guards", "order", "__weakref__")

    def __init__(self, name: str, backward: Callable[[Any, Any, Any], Iterable[Any]],
                 parents: tuple[Node | Leaf | None, ...], saved: Any, guards: tuple[Guard, ...]):
        self.name = name
        self.backward = backward
        self.parents = parents
        self.saved = saved
        self.guards = guards
        self.order = next(_numbers)


class no_grad:
    """Nothing computed in a `with no_grad():` block, or in a function decorated `@no_grad()`, goes on the tape.

    >>> import tilewright as tw
    >>> x = tw.Tensor([1.0, 2.0], requires_grad=True)
    >>> with tw.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: list[Any] = []

    def __enter__(self) -> no_grad:
        self._tokens.append(_recording.set(False))
        return self

    def __exit__(self, *exc: object) -> None:
        _recording.reset(self._tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def quiet(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return function(*args, **kwargs)
        return quiet


def changed_in_place(name: str) -> GradientError:
    """The error for a saved value that is not what it was."""
    return GradientError(f"a tensor that {name} needs for its gradient was modified in place after it was computed; "
                         f"use an operation that makes a new tensor, or call backward before the modification")


def _reachable(root: Node) -> list[Node]:
    """The nodes under `root`, each after all of its uses; raises if any of them cannot be walked."""
    seen = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.saved is None:
            raise GradientError(f"backward went through this graph before, and what {node.name} saved is gone; "
                                f"call the first backward with retain_graph=True, or compute the result again")
        for version, number in node.guards:
            if version.count != number:
                raise changed_in_place(node.name)
        for parent in node.parents:
            if isinstance(parent, Node) and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_order, reverse=True)


def backward(root: Node, gradient: np.ndarray, retain_graph: bool) -> None:
    """Add d(root) . gradient to the `grad` of every leaf under `root`."""
    grads: dict[Node, Any] = {root: gradient}
    for node in _reachable(root):
        dy = grads.pop(node, None)
        saved = node.saved
        if not retain_graph:
            node.saved = None
        if dy is None:  # no gradient flowed into this node
            continue
        if not is_array(dy):  # NumPy turns results without dimensions into scalars
            dy = np.asarray(dy)
        parents = node.parents
        for parent, g in zip(parents, node.backward(dy, saved, parents), strict=True):
            if parent is None or g is None:
                continue
            if isinstance(parent, Node):
                before = grads.get(parent)
                grads[parent] = g if before is None else _sum(before, g)
            else:
                accumulate(parent, g, dy)
    buffers.end_pass()


def is_array(x: Any) -> bool:
    """Whether x is what a tensor holds: an ndarray, or an array on a device."""
    return type(x) is np.ndarray or isinstance(x, DeviceArray)


def _add(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    np.add(a, b, out=total)


def _sum(a: Any, b: Any) -> Any:
    if type(a) is np.ndarray and type(b) is np.ndarray and a.shape == b.shape and a.dtype == b.dtype:
        total = buffers.empty_like(a)
        recorded(_add, (total,), a, b)
        return total
    return a + b


def accumulate(leaf: Leaf, g: Any, dy: Any = None) -> None:
    """Add to a leaf's gradient. The first one is kept without a copy, unless someone else may hold its memory."""
    if isinstance(g, DeviceArray):
        if g.dtype != leaf.data.dtype:
            g = g.astype(leaf.data.dtype)
        elif leaf.grad is None and shares_memory(g, dy):
            g = g.copy()
        leaf.grad = g if leaf.grad is None else leaf.grad + g
        return
    if type(g) is not np.ndarray:
        g = np.array(g)
    elif g is dy or g.base is not None:
        g = g.copy()
    if g.dtype != leaf.data.dtype:
        g = g.astype(leaf.data.dtype)
    leaf.grad = g if leaf.grad is None else np.asarray(leaf.grad + g)
