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
from sys import getrefcount
from typing import Any
from weakref import ref

import numpy as np

from ..core.replay import recorded

PAGE = 4096  # bytes; malloc keeps smaller blocks at hand by itself
KEEP = 64    # backward passes


class Pool:
    """Rings of arrays by shape and dtype, each with the pass in which it was last taken.

    Threads share it: who takes an array out of its ring, which is one step for the interpreter, has it alone until it
    is put back, and from then on whoever looks at it sees that it is held.
    """

    __slots__ = ("__weakref__", "passes", "rings")

    def __init__(self) -> None:
        self.rings: dict[tuple[tuple[int, ...], np.dtype], deque[tuple[np.ndarray, int]]] = {}
        self.passes = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array that nobody holds, or a new one."""
        ring = self.rings.get((shape, dtype))
        if ring is None:
            ring = self.rings.setdefault((shape, dtype), deque())
        for _ in range(len(ring)):
            try:
                entry = ring.popleft()
            except IndexError:  # other threads have the rest in their hands
                break
            if getrefcount(entry[0]) == _FREE:
                array = entry[0]
                if array.shape == shape and array.flags.writeable:  # its last user may have changed that
                    ring.append((array, self.passes))
                    return array
            else:
                ring.append(entry)
        array = np.empty(shape, dtype)
        ring.append((array, self.passes))
        return array

    def end_pass(self) -> None:
        """Count a backward pass; now and then, let go what was not taken for long."""
        self.passes += 1
        if self.passes % KEEP == 0:
            since = self.passes - KEEP
            rings = {key: deque(e for e in ring.copy() if e[1] >= since) for key, ring in self.rings.copy().items()}
            self.rings = {key: ring for key, ring in rings.items() if ring}


class Spare:
    """The array of a leaf's gradient, kept for the next; it keeps the pool alive."""

    __slots__ = ("array", "pool")

    def __init__(self, array: np.ndarray, pool: Pool):
        self.array = array
        self.pool = pool

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copied or unpickled leaf starts without one


_one_place = [np.empty(0)]
_FREE = getrefcount(_one_place[0])  # references to an array that stands in one place, as seen from there
_pool = ref(Pool())  # the pool in use; dead until a leaf gets its gradient


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory for a result that will be written in full; the caller's until nobody holds it any more."""
    pool = _pool()
    if pool is not None:
        size = dtype.itemsize
        for n in shape:
            size *= n
        if size > PAGE:
            return pool.take(shape, dtype)
    return np.empty(shape, dtype)


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
    if grad is None:
        if spare is not None and getrefcount(spare.array) == _FREE:
            array = spare.array
            if array.shape == data.shape and array.dtype == data.dtype and array.flags.writeable:
                return array, 0.0
        array, beta = np.empty(data.shape, data.dtype), 0.0
    else:
        if spare is not None and spare.array is grad and getrefcount(spare.array) == _FREE + 2:  # leaf.grad, our name
            return grad, 1.0
        array, beta = np.empty(data.shape, data.dtype), 1.0
        recorded(_carry_over, (array,), grad)
    leaf._spare = Spare(array, current())
    return array, beta


def _carry_over(array: np.ndarray, grad: np.ndarray) -> None:
    array[...] = grad
