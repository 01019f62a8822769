"""Memory that one training step leaves to the next.

Results and gradients have the same shapes step after step. An array is free again when nobody but this file holds it:
tensors, views, memoryviews and DLPack capsules all hold a reference, so the number of references tells.

    Spare    the array of a leaf's gradient; the leaf holds it      room_for(leaf)
    Pool     all other arrays of more than a page                   empty(shape, dtype), empty_like(x)

The pool lives as long as one of the leaves that got their gradients beside it: with the last parameter of a model its
memory is given back. What no step took during KEEP backward passes is dropped, and so is what somebody held that long.
"""
from __future__ import annotations

from collections import deque
from math import prod
from sys import getrefcount
from typing import Any
from weakref import ref

import numpy as np

from ..core.replay import recorded

PAGE = 4096  # bytes; malloc keeps smaller blocks at hand by itself
KEEP = 64    # backward passes

Key = tuple[tuple[int, ...], np.dtype]  # shape and dtype
Ring = deque[np.ndarray]  # arrays of one key, the longest unused first
_UNKNOWN: Ring = deque()


def _free(ring: Ring) -> np.ndarray | None:
    """An array that nobody else holds, taken out of its ring; None where there is none.

    Threads share rings. Taking an array out is one step for the interpreter, so that whoever does has it alone; once it
    is put back, others see that it is held.
    """
    for _ in range(len(ring)):
        try:
            array = ring.popleft()
        except IndexError:  # other threads have the rest in their hands
            return None
        if getrefcount(array) == _ALONE:
            return array
        ring.append(array)
    return None


class Pool:
    """The rings of those arrays that were taken in this spell of KEEP passes, and of the spell before."""

    __slots__ = ("__weakref__", "before", "passes", "rings")

    def __init__(self) -> None:
        self.rings: dict[Key, Ring | None] = {}  # None: too small to be kept
        self.before: dict[Key, Ring | None] = {}
        self.passes = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array that nobody holds, or a new one."""
        key = shape, dtype
        ring = self.rings.get(key, _UNKNOWN)
        if ring is _UNKNOWN:
            small = dtype.itemsize * prod(shape) <= PAGE
            ring = self.rings.setdefault(key, None if small else deque())
        if ring is None:
            return np.empty(shape, dtype)
        array = _free(ring)
        if array is None and (before := self.before.get(key)):
            array = _free(before)
        if array is None or array.shape != shape or not array.flags.writeable:  # its last user has changed that
            array = np.empty(shape, dtype)
        ring.append(array)
        return array

    def end_pass(self) -> None:
        """Count a backward pass; at the end of a spell, let go what was not taken in it."""
        self.passes += 1
        if self.passes % KEEP == 0:
            self.before, self.rings = self.rings, {}


class Spare:
    """The array of a leaf's gradient, kept for the next; it keeps the pool alive."""

    __slots__ = ("array", "data", "pool")

    def __init__(self, array: np.ndarray, data: np.ndarray, pool: Pool):
        self.array = array
        self.data = data  # of the leaf, when the array was made in its likeness
        self.pool = pool

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copied or unpickled leaf starts without one


def _references() -> tuple[int, int]:
    """What getrefcount says of an array that only a name holds, and of one that only an attribute holds."""
    array, spare = np.empty(0), Spare(np.empty(0), np.empty(0), Pool())
    return getrefcount(array), getrefcount(spare.array)


_ALONE, _UNUSED = _references()
_pool = ref(Pool())  # the pool in use; dead until a leaf gets its gradient


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory for a result that will be written in full; the caller's until nobody holds it any more."""
    pool = _pool()
    return np.empty(shape, dtype) if pool is None else pool.take(shape, dtype)


def empty_like(x: np.ndarray) -> np.ndarray:
    """`empty` in the shape and dtype of x."""
    return empty(x.shape, x.dtype)


def current() -> Pool:
    """The pool in use; its life is in the caller's hands."""
    global _pool
    pool = _pool()
    if pool is None:
        pool = Pool()
        _pool = ref(pool)
    return pool


def end_pass() -> None:
    """A backward pass is over."""
    pool = _pool()
    if pool is not None:
        pool.end_pass()


def room_for(leaf: Any) -> tuple[np.ndarray, float]:
    """(array, beta): beta times what the array holds, plus a gradient, is what the leaf's `grad` should become.

    beta is 0 for a first gradient. It is 1 where there is one already: the array is `grad` itself unless somebody else
    holds it, else a copy. The caller writes into the array and sets `grad` to it.
    """
    spare, grad, data = leaf._spare, leaf.grad, leaf.data
    if spare is not None and spare.data is data and spare.array.flags.writeable:
        if grad is None:
            if getrefcount(spare.array) == _UNUSED:
                return spare.array, 0.0
        elif spare.array is grad and getrefcount(spare.array) == _UNUSED + 2:  # leaf.grad and the name here
            return grad, 1.0
    array = np.empty(data.shape, data.dtype)
    if grad is not None:
        recorded(_carry_over, (array,), grad)
    leaf._spare = Spare(array, data, current())
    return array, 0.0 if grad is None else 1.0


def _carry_over(array: np.ndarray, grad: np.ndarray) -> None:
    array[...] = grad
