"""Observers: what range of its inputs a layer should represent, found by looking at some of them.

All keep only extremes or a histogram, so that any number of batches may pass. A range always holds 0, which is then a
quantized value of its own; zeros, which cost nothing at any range, are not counted.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import ArgumentError

BINS = 2048  # on each side of 0, as TensorRT counts them
EMPTY = 1e-4  # numbers in a bin that quantizing leaves empty though it has some: what it costs stays finite


class Observer:
    """Base: knows the smallest and the largest number that was seen. bits: of the integers that the range is for."""

    name = ""

    def __init__(self, bits: int = 8):
        self.bits = bits
        self.low = self.high = 0.0
        self.count = 0

    def observe(self, x: Any) -> None:
        """Take note of an array of any shape; ArgumentError, with nothing noted, if it holds a NaN or an infinity."""
        x = np.asarray(x)
        bad = x.size - int(np.count_nonzero(np.isfinite(x)))
        if bad:
            raise ArgumentError(f"{bad} of {x.size} values are NaN or infinite; calibration needs finite numbers")
        self.low = min(self.low, float(x.min(initial=0)))
        self.high = max(self.high, float(x.max(initial=0)))
        self.count += x.size

    def range(self) -> tuple[float, float]:
        """(low, high) with low <= 0 <= high. ArgumentError if nothing was observed."""
        if not self.count:
            raise ArgumentError("nothing was observed; calibration needs at least one row")
        return self._chosen() if self.high > self.low else (0.0, 0.0)

    def _chosen(self) -> tuple[float, float]:
        raise NotImplementedError

    def _within(self, low: float, high: float) -> tuple[float, float]:
        """The part of these limits that was seen, and 0."""
        return min(max(self.low, low), 0.0), max(min(self.high, high), 0.0)


class MinMax(Observer):
    """The smallest and the largest number that was seen.

    >>> import tilewright as tw
    >>> seen = tw.quant.MinMax()
    >>> seen.observe([[0.5, 2.0], [-1.0, 0.0]])
    >>> seen.range()
    (-1.0, 2.0)
    """

    name = "minmax"

    def _chosen(self) -> tuple[float, float]:
        return self.low, self.high


class Histogram(Observer):
    """Base of the observers that look at how often which magnitudes occur.

    counts[BINS + i] numbers were seen in [i, i + 1) * width, i from -BINS to BINS - 1. Where a batch goes beyond, the
    width doubles: two bins become one, and 0 stays an edge.
    """

    def __init__(self, bits: int = 8):
        super().__init__(bits)
        self.counts = np.zeros(2 * BINS, np.int64)
        self.width = 0.0

    def observe(self, x: Any) -> None:
        super().observe(x)
        x = np.asarray(x, np.float64)
        x = x[x != 0]
        top = max(-self.low, self.high)
        if self.width == 0:
            self.width = top / BINS
        while top > self.width * BINS:
            self.counts = np.pad(self.counts.reshape(BINS, 2).sum(axis=1), BINS // 2)
            self.width *= 2
        if x.size:
            at = np.clip(np.floor(x / self.width), -BINS, BINS - 1).astype(np.int64)
            self.counts += np.bincount(at + BINS, minlength=2 * BINS)

    def _magnitudes(self) -> np.ndarray:
        """How often each magnitude occurs: BINS counts, without the empty ones at the end."""
        both = self.counts[BINS:] + self.counts[BINS - 1::-1]
        return both[:int(both.nonzero()[0][-1]) + 1]


class Percentile(Histogram):
    """The range without the share of 100 - percentile on each side, to a bin. Zeros are not counted.

    >>> import numpy as np, tilewright as tw
    >>> seen = tw.quant.Percentile(percentile=99.0)
    >>> seen.observe(np.append(np.linspace(0, 1, 1000), 50))
    >>> seen.range()[1] < 1.1
    True
    """

    name = "percentile"

    def __init__(self, bits: int = 8, percentile: float = 99.99):
        if not 50 < percentile <= 100:
            raise ArgumentError(f"Percentile: percentile lies above 50 and up to 100, not {percentile}")
        super().__init__(bits)
        self.percentile = percentile

    def _chosen(self) -> tuple[float, float]:
        most = self.counts.sum() * (1 - self.percentile / 100)  # that may lie beyond each end
        kept = np.flatnonzero((np.cumsum(self.counts) > most) & (np.cumsum(self.counts[::-1])[::-1] > most))
        return self._within(float(kept[0] - BINS) * self.width, float(kept[-1] + 1 - BINS) * self.width)


class Entropy(Histogram):
    """The range whose quantized distribution tells most about the one that was seen: least Kullback-Leibler divergence.

    The search of TensorRT (Migacz, 8-bit inference with TensorRT, 2017): for each threshold the magnitudes beyond it
    count as the last bin within; against them stand the bins within, merged into as many as there are levels.

    >>> import numpy as np, tilewright as tw
    >>> seen = tw.quant.Entropy()
    >>> seen.observe(np.append(np.random.default_rng(0).standard_normal(100_000), 100.0))
    >>> seen.range()[1] < 20
    True
    """

    name = "entropy"

    def _chosen(self) -> tuple[float, float]:
        p = self._magnitudes().astype(np.float64)
        levels = round((1 << self.bits) * max(-self.low, self.high) / (self.high - self.low))  # on the longer side
        tries = range(len(p), min(levels, len(p)) - 1, -1)  # of equals the widest: a few numbers fit many
        best = min(tries, key=lambda n: _divergence(p, n, levels))
        return self._within(-best * self.width, best * self.width)


def _divergence(counts: np.ndarray, n: int, levels: int) -> float:
    """KL(P || Q): P is the first n bins with all beyond them in the last; Q the first n bins in `levels` steps."""
    p = counts[:n].copy()
    edges = np.arange(min(levels, n) + 1) * n // min(levels, n)
    within = np.add.reduceat(p, edges[:-1])
    if not within.any():
        return np.inf  # all that was seen would be clipped; the one bin left of P tells nothing
    filled = np.add.reduceat(p > 0, edges[:-1], dtype=np.int64)
    q = np.repeat(within / np.maximum(filled, 1), np.diff(edges))  # evenly over the bins that are not empty
    p[-1] += counts[n:].sum()
    seen = p > 0
    p, q = p[seen], np.maximum(q[seen], EMPTY)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


class MSE(Histogram):
    """The range with the least mean square error of quantizing what was seen: min and max shrunk alike, by search.

    >>> import numpy as np, tilewright as tw
    >>> seen = tw.quant.MSE(bits=4)
    >>> seen.observe(np.random.default_rng(0).standard_normal(10_000))
    >>> seen.range()[1] < seen.high
    True
    """

    name = "mse"
    SHRINK = np.linspace(0.1, 1.0, 91)

    def _chosen(self) -> tuple[float, float]:
        at = self.counts.nonzero()[0]
        x, weight = (at - BINS + 0.5) * self.width, self.counts[at]
        steps = (1 << self.bits) - 1

        def error(shrink: float) -> float:
            low, high = self.low * shrink, self.high * shrink
            scale = (high - low) / steps
            zero = np.rint(-low / scale)
            back = (np.clip(np.rint(x / scale) + zero, 0, steps) - zero) * scale
            return float((weight * (x - back) ** 2).sum())

        best = min(map(float, self.SHRINK[::-1]), key=error)
        return self.low * best, self.high * best


OBSERVERS: dict[str, type[Observer]] = {c.name: c for c in (MinMax, Percentile, Entropy, MSE)}
