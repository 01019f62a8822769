"""matmul_maddubs: what an instruction that saturates makes of a product, held against plain Python, and its counter."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

import tilewright as tw
from calls import refused
from tilewright import errors


def by_hand(a: np.ndarray, b: np.ndarray) -> tuple[list[list[int]], int]:
    """Python's own integers, pair by pair."""
    clipped, y = 0, [[0] * b.shape[1] for _ in a]
    for (i, row), (j, column) in itertools.product(enumerate(a.tolist()), enumerate(b.T.tolist())):
        terms = [x * v for x, v in zip(row, column, strict=True)]
        for pair in (sum(terms[p:p + 2]) for p in range(0, len(terms), 2)):
            y[i][j] += min(max(pair, -32768), 32767)
            clipped += not -32768 <= pair <= 32767
    return y, clipped


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 9, 66])
def test_against_plain_integers(k: int, backend: str, rng: np.random.Generator) -> None:
    a = rng.choice([0, 1, 128, 129, 254, 255], (6, k)).astype(np.uint8)
    b = rng.choice([-128, -127, -1, 0, 1, 127], (k, 35)).astype(np.int8)
    y, clipped = tw.matmul_maddubs(a, b, backend=backend)
    assert (y.dtype, type(clipped)) == (np.int32, np.int64)
    assert (y.tolist(), clipped) == by_hand(a, b)
    assert k == 1 or clipped > 0


@pytest.mark.parametrize(("left", "right", "pair", "count"), [
    ((255, 255), (127, 127), 32767, 1), ((255, 191), (127, 2), 32767, 0), ((255, 255), (127, 2), 32767, 1),
    ((255, 1), (-128, -128), -32768, 0), ((255, 2), (-128, -128), -32768, 1), ((255, 255), (127, -128), -255, 0)])
def test_the_edges_of_16_bits(left: tuple, right: tuple, pair: int, count: int, backend: str) -> None:
    """A sum that just fits is not counted. It is the same wherever in a row it stands."""
    for before in (0, 2, 4, 6):
        a, b = np.zeros((1, 10), np.uint8), np.zeros((10, 1), np.int8)
        a[0, before:before + 2], b[before:before + 2, 0] = left, right
        y, clipped = tw.matmul_maddubs(a, b, backend=backend)
        assert (y.item(), clipped) == (pair, count)


def test_without_clipping_it_is_the_exact_product(backend: str, rng: np.random.Generator) -> None:
    """Numbers of 7 bits never overflow: the way out of programs that use the instruction."""
    a, b = rng.integers(0, 128, (2, 9, 70), np.uint8), rng.integers(-128, 128, (70, 20), np.int8)
    y, clipped = tw.matmul_maddubs(a, tw.pack(b), backend=backend)
    assert clipped == 0
    np.testing.assert_array_equal(y, tw.matmul_integer(a, b, backend=backend))


def test_many_counts_add_up(backend: str) -> None:
    """Over threads, panels and batches; more than 16 bits of them in one place."""
    a, b = np.full((3, 7, 140_000), 255, np.uint8), np.full((140_000, 40), 127, np.int8)
    y, clipped = tw.matmul_maddubs(a[:2, :2] if backend == "numpy" else a, b, backend=backend)
    assert clipped == y.size * 70_000
    assert (y == np.int64(70_000 * 32767).astype(np.int32)).all()  # it wraps


def test_it_refuses() -> None:
    a, b = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8)
    refused(errors.DTypeError, "matmul_maddubs", a.view(np.int8), b)
    refused(errors.DTypeError, "matmul_maddubs", a, b.view(np.uint8))
    refused(errors.DTypeError, "matmul_maddubs", a.astype(np.float32), b)
    refused(errors.ShapeError, "matmul_maddubs", a, b[:3])
