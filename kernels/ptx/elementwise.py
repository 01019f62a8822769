"""Where the elements of several arrays of one shape lie, for kernels that take them one by one: host side only.

    for xs in flat(x, out): ...          the arrays as long vectors, where they are that
    for g in strided(x, out): ...        else three axes with their strides, as few as there are gaps
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tilewright.core.arrays import address

MOST = 1 << 31  # elements of a launch, so that kernels count them in 32 bits
AXES = 3
ALIGNMENT = 16  # bytes of the accesses of vector kernels


class Strided(NamedTuple):
    """Arrays of one shape over three axes; `steps` are the strides of each array in turn, in bytes."""

    arrays: tuple[np.ndarray, ...]
    elements: int
    sizes: tuple[int, int, int]
    steps: tuple[int, ...]


def flat(*arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The arrays as vectors without gaps that begin at multiples of 16 bytes, in pieces; [] where they are not that."""
    ordered = _by_stride(arrays)
    if not all(x.flags.c_contiguous and address(x) % ALIGNMENT == 0 for x in ordered):
        return []
    vectors = tuple(x.reshape(-1) for x in ordered)
    return [tuple(x[at:at + MOST] for x in vectors) for at in range(0, vectors[0].size, MOST)]


def strided(*arrays: np.ndarray) -> Iterator[Strided]:
    """The arrays over at most three axes; of those that need more, or are very large, one part after the other."""
    ordered = _by_stride(arrays)
    shape, steps = _merged(ordered)
    count = ordered[0].size
    if len(shape) <= AXES and count <= MOST:
        yield _over_axes(ordered, shape, steps)
        return
    middle = ordered[0].shape[0] // 2
    halves = ([x[i] for x in ordered] for i in range(ordered[0].shape[0])) if len(shape) > AXES else (
        [x[:middle] for x in ordered], [x[middle:] for x in ordered])
    for part in halves:
        yield from strided(*part)


def in_order(*arrays: np.ndarray, first: int = 0) -> Iterator[tuple[int, Strided]]:
    """As `strided`, for kernels that need to know the index of an element in C order: that of each part's first one."""
    single = tuple(slice(None) if size != 1 else 0 for size in arrays[0].shape)
    kept = tuple(x[(*single, ...)] for x in arrays)
    shape, steps = _merged(kept)
    count = kept[0].size
    if len(shape) <= AXES and count <= MOST:
        yield first, _over_axes(kept, shape, steps)
        return
    for i in range(kept[0].shape[0]):
        yield from in_order(*(x[i] for x in kept), first=first + i * (count // kept[0].shape[0]))


def _over_axes(arrays: tuple[np.ndarray, ...], shape: tuple[int, ...], steps: list[tuple[int, ...]]) -> Strided:
    pad = AXES - len(shape)
    return Strided(arrays, arrays[0].size, (1,) * pad + shape,  # type: ignore[arg-type]
                   tuple(s for own in steps for s in (0,) * pad + own))


def _by_stride(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Axes ordered from the largest stride of the last array, the result, to the smallest; those of size 1 dropped."""
    shape, steps = arrays[-1].shape, arrays[-1].strides
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    order = sorted(kept, key=lambda axis: -abs(steps[axis]))
    if order == list(range(len(shape))):
        return arrays
    single = tuple(slice(None) if size != 1 else 0 for size in shape)
    among = sorted(range(len(kept)), key=lambda axis: -abs(steps[kept[axis]]))
    return tuple(x[(*single, ...)].transpose(among) for x in arrays)  # ...: a view also where no axis is left


def _merged(arrays: tuple[np.ndarray, ...]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Shape and strides after neighbouring axes that every array steps through evenly have become one."""
    shape: list[int] = []
    steps: list[list[int]] = [[] for _ in arrays]
    for axis, size in enumerate(arrays[0].shape):
        if shape and all(own[-1] == size * x.strides[axis] for own, x in zip(steps, arrays, strict=True)):
            shape[-1] *= size
            for own, x in zip(steps, arrays, strict=True):
                own[-1] = x.strides[axis]
        else:
            shape.append(size)
            for own, x in zip(steps, arrays, strict=True):
                own.append(x.strides[axis])
    return tuple(shape), [tuple(own) for own in steps]


class Rows(NamedTuple):
    """Rows of arrays whose axes but the last agree, over planes and rows of a plane.

    `steps` are, of each array in turn, the bytes from plane to plane, from row to row and along a row.
    """

    arrays: tuple[np.ndarray, ...]
    total: int
    rows: int
    steps: tuple[int, ...]

    def vectors(self, lanes: int) -> bool:
        """Whether 128-bit accesses of `lanes` numbers take every row, in whole."""
        own = [self.steps[i:i + 3] for i in range(0, len(self.steps), 3)]
        return all(x.shape[-1] % lanes == 0 and step == x.itemsize and not any(
            v % ALIGNMENT for v in (address(x), plane, row)) for x, (plane, row, step)
            in zip(self.arrays, own, strict=True))


def rows(*arrays: np.ndarray) -> Iterator[Rows]:
    """The rows of arrays along their last axes, which are not empty; of those with many gaps, one part after the other.

    The order of the rows is that of the indices, which counts where results depend on it.
    """
    single = tuple(slice(None) if size != 1 else 0 for size in arrays[0].shape[:-1])
    kept = tuple(x[(*single, slice(None))] for x in arrays)
    count = kept[0][..., 0].size
    if count == 0:
        return
    shape, steps = _merged(tuple(x[..., 0] for x in kept))
    if len(shape) < AXES and count <= MOST:
        pad = (0,) * (AXES - 1 - len(shape))
        yield Rows(kept, count, shape[-1] if shape else 1,
                   tuple(s for x, own in zip(kept, steps, strict=True) for s in (*pad, *own, x.strides[-1])))
        return
    for i in range(kept[0].shape[0]):
        yield from rows(*(x[i] for x in kept))
