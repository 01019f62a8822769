"""Observers: what they choose, however the data comes in batches, and what they refuse."""
from __future__ import annotations

import numpy as np
import pytest

from tilewright.core.errors import ArgumentError
from tilewright.quant import MSE, OBSERVERS, Entropy, Grid, MinMax, Percentile
from tilewright.quant.observers import BINS


def chosen(observer, *batches) -> tuple[float, float]:
    for x in batches:
        observer.observe(x)
    return observer.range()


def heavy_tailed(rng: np.random.Generator, n: int = 20_000) -> np.ndarray:
    return np.append(rng.standard_normal(n), [60.0, -45.0])


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_range_holds_zero_and_lies_within_what_was_seen(name, rng):
    for x in (rng.standard_normal(3000), rng.random(3000) + 2, -rng.random(3000) - 2, [5.0], [-1e-30, 0.0]):
        low, high = chosen(OBSERVERS[name](), x)
        assert isinstance(low, float) and isinstance(high, float)
        assert min(0, np.min(x)) <= low <= 0 <= high <= max(0, np.max(x)) and low < high, (name, low, high)


@pytest.mark.parametrize("name", OBSERVERS)
def test_nothing_but_zeros(name):
    assert chosen(OBSERVERS[name](), np.zeros((3, 4))) == (0.0, 0.0)
    assert Grid.over(0.0, 0.0) == Grid(np.float32(1), np.uint8(0))


@pytest.mark.parametrize("name", OBSERVERS)
def test_nothing_and_what_is_not_finite(name):
    observer = OBSERVERS[name]()
    with pytest.raises(ArgumentError, match="nothing was observed"):
        observer.range()
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ArgumentError, match="1 of 3 values"):
            observer.observe([1.0, bad, 2.0])
    with pytest.raises(ArgumentError, match="nothing was observed"):
        observer.range()


@pytest.mark.parametrize("name", OBSERVERS)
def test_batches_are_as_good_as_one(name, rng):
    """To a bin, which may be twice as wide where the range grew."""
    x = heavy_tailed(rng)
    whole, parts = chosen(OBSERVERS[name](), x), chosen(OBSERVERS[name](), *np.array_split(x, 7))
    np.testing.assert_allclose(parts, whole, atol=6 * 60 / BINS)


def test_extremes(rng):
    assert chosen(MinMax(), [[1.0, -3.0]], [2.0]) == (-3.0, 2.0)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentiles_to_a_bin(percentile, rng):
    x = rng.standard_normal(50_021)
    low, high = chosen(Percentile(percentile=percentile), x, np.zeros(70_000))
    assert np.mean(x < low) <= 1 - percentile / 100 and np.mean(x > high) <= 1 - percentile / 100 + 1e-12
    expected = np.percentile(x, (100 - percentile, percentile))
    np.testing.assert_allclose((low, high), expected, atol=1.01 * np.abs(x).max() / BINS)
    with pytest.raises(ArgumentError):
        Percentile(percentile=50)


def error(x: np.ndarray, low: float, high: float, bits: int = 8) -> float:
    """Mean square error of x on a grid over [low, high]."""
    scale = (high - low) / (2 ** bits - 1)
    zero = np.rint(-low / scale)
    return float(np.mean((x - (np.clip(np.rint(x / scale) + zero, 0, 2 ** bits - 1) - zero) * scale) ** 2))


@pytest.mark.parametrize("bits", [4, 8])
def test_the_least_square_error(bits, rng):
    x = rng.standard_normal(20_000)
    observer = MSE(bits)
    found = error(x, *chosen(observer, x), bits)
    tries = [error(x, observer.low * f, observer.high * f, bits) for f in MSE.SHRINK]
    assert found <= 1.02 * min(tries) and found < error(x, observer.low, observer.high, bits)


def test_entropy_leaves_far_outliers_out_and_keeps_an_even_range_whole(rng):
    low, high = chosen(Entropy(), heavy_tailed(rng))
    assert 3 < high < 20 and -20 < low < -3
    low, high = chosen(Entropy(), rng.random(100_000))
    assert low == 0 and high > 0.95


@pytest.mark.parametrize("bits", [8, 4])
def test_entropy_keeps_a_few_equal_numbers(bits):
    """A calibration of one row, and a unit that is always the same: what is clipped altogether shows no divergence."""
    for seen in ([0.7], [0.7] * 1000, [0.5, 0.7, 0.7], [0.5, 2.0], [-0.7, 0.68], [-3.0] * 5):
        low, high = chosen(Entropy(bits), np.array(seen))
        assert low <= min(seen) and max(seen) <= high, (seen, low, high)


def test_a_grid_represents_zero_and_its_ends():
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-3.0, 0.0), (-1e-3, 1e3), (-2e38, 1e38)):
        grid = Grid.over(low, high)
        ends = (np.array([0, 255]) - float(grid.zero)) * float(grid.scale)
        np.testing.assert_allclose(ends, (low, high), atol=0.51 * float(grid.scale))
    for bad in (0, np.nan, np.inf, -1):
        with pytest.raises(ArgumentError, match="finite and positive"):
            Grid(np.float32(bad), np.uint8(0))
    for zero in (256, -1, 0.5, np.nan):
        with pytest.raises(ArgumentError, match="zero point is an integer in 0 ... 255"):
            Grid(np.float32(1), zero)
    for low, high in ((1.0, 3.0), (-3.0, -1.0), (3.0, -1.0), (np.nan, 1.0), (-1.0, np.inf)):
        with pytest.raises(ArgumentError, match="a range is finite and holds 0"):
            Grid.over(low, high)
    with pytest.raises(ArgumentError, match="bits is 8 or 4, not 3"):
        Grid.over(-1.0, 1.0, 3)
