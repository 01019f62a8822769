"""Find better numbers for the C library's products on this machine than its own, where there are any.

One number after the other: other values are timed in turns with the one in force, on products that it matters to, and
with that value's twin, which shows what noise alone makes of a ratio. A value is taken where it gains more than noise
explains and where no product loses more than noise explains; and in the end all of them together, by the same rule, on
the products of the numbers that changed.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean

import numpy as np

from ..core import native, registry, threads
from ..core.errors import BackendUnavailable
from ..core.tuning import Numbers
from . import timing

ROUNDS = 11
GAIN, LOSS = 0.015, 0.03  # beyond noise: of the mean, to be taken; of one product, to be borne
Shape = tuple[int, int, int]  # m, n, k


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of tw_gemm_tuning, by what to multiply it, and products near the border that it draws."""

    name: str
    factors: tuple[float, ...]
    shapes: tuple[Shape, ...]
    parallel: bool = False  # it decides about threads, and is timed on all of them

    @property
    def products(self) -> list[tuple[Shape, bool]]:
        return [(shape, self.parallel) for shape in self.shapes]


MIDDLE = ((96, 96, 96), (192, 192, 192), (256, 256, 256), (320, 320, 320), (448, 448, 448), (8, 256, 512),
          (64, 64, 4096))
FEW_ROWS = ((1, 1024, 1024), (4, 4096, 1024), (8, 4096, 1024), (16, 1024, 1024), (32, 1024, 1024), (64, 768, 1000))
LARGE = ((512, 512, 512), (1024, 1024, 1024), (128, 512, 784), (64, 3072, 768), (511, 513, 1023))
SHORT = ((32, 32, 32), (48, 48, 48), (64, 64, 64), (96, 96, 96), (128, 128, 128), (8, 256, 256), (1024, 10, 64))
KNOBS = (
    Knob("direct_bytes", (0.125, 0.25, 0.5, 2), MIDDLE),
    Knob("stream_rows", (0.25, 0.5, 0.75), (*FEW_ROWS[3:], (24, 1024, 1024), (48, 1024, 1024), (64, 1024, 1024))),
    Knob("stream_bytes", (0.5, 2), FEW_ROWS),
    Knob("stream_depth", (0.25, 0.5, 2), FEW_ROWS),
    Knob("column_bytes", (0.5, 2 / 3, 4 / 3), LARGE),
    Knob("block_bytes", (0.5, 0.75, 1.5), LARGE),
    Knob("parallel_ns", (0.5, 2, 4), SHORT, parallel=True),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A value beside the one in force. Ratios are old time by new time: above 1 the value is better."""

    name: str
    before: float
    value: float
    gain: float  # the geometric mean of the products' ratios
    worst: float
    noise: float  # how far from 1 a twin of the value in force came: its mean,
    scatter: float  # and the farthest product

    @property
    def better(self) -> bool:
        return self.gain > 1 + GAIN + self.noise and self.worst > 1 - LOSS - self.scatter


@dataclass(frozen=True, slots=True)
class Tuned:
    """The numbers that are better than the library's own, what was tried, and the verdict on all of them together."""

    changed: Numbers
    trials: list[Trial]
    together: Trial | None  # None where no value was better


def tune(knobs: Sequence[Knob] = KNOBS, progress: Callable[[int, int, str], object] | None = None) -> Tuned:
    """Try all knobs, from the library's own numbers on; afterwards those in force before are in force again.

    `progress(done, total, what)` is told before each step. Raises BackendUnavailable without the C library.
    """
    if native.lib is None:
        raise BackendUnavailable(f"there is nothing to tune: {native.missing_reason()}")
    tell = progress or (lambda done, total, what: None)
    knobs = [knob for knob in knobs if not knob.parallel or threads.get_num_threads() > 1]
    changed: Numbers = {}
    trials: list[Trial] = []
    together = None
    before = native.gemm_tuning()
    try:
        for done, knob in enumerate(knobs):
            tell(done, len(knobs) + 1, knob.name)
            found = _tried(knob, changed)
            if best := max((t for t in found if t.better), key=lambda t: t.gain, default=None):
                changed[knob.name] = best.value
            trials += found
        tell(len(knobs), len(knobs) + 1, "all together")
        if changed:
            products = [product for knob in knobs if knob.name in changed for product in knob.products]
            twin, ours = _ratios(products, [{}, {}, changed])
            together = _trial("all together", 0, 0, twin, ours)
    finally:
        native.set_gemm_tuning(before)
    return Tuned(changed if together and together.better else {}, trials, together)


def _tried(knob: Knob, changed: Numbers) -> list[Trial]:
    """Every value of a knob beside the one in force, with what has been changed so far."""
    _put(changed)
    before = native.gemm_tuning()[knob.name]
    values = [type(before)(before * factor) for factor in knob.factors]  # bytes and rows stay integers
    values = [value for value in values if _is_valid(changed | {knob.name: value})]
    twin, *found = _ratios(knob.products, [changed, changed, *(changed | {knob.name: value} for value in values)])
    return [_trial(knob.name, before, value, twin, mine) for value, mine in zip(values, found, strict=True)]


def _trial(name: str, before: float, value: float, twin: list[float], mine: list[float]) -> Trial:
    return Trial(name, before, value, geometric_mean(mine), min(mine), abs(geometric_mean(twin) - 1),
                 max(abs(ratio - 1) for ratio in twin))


def _ratios(products: Iterable[tuple[Shape, bool]], sets: Sequence[Numbers]) -> list[list[float]]:
    """For each set of numbers but the first, a ratio for each product: the first's time by the set's."""
    rng = np.random.default_rng(0)
    spec, kernel = registry.spec("matmul"), registry.kernels("gemm", "c")["matmul", ""]
    found: list[list[float]] = [[] for _ in sets]
    for (m, n, k), parallel in dict.fromkeys(products):
        call = spec.prepare((rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)), {})
        run = partial(kernel.run, call, [np.empty((m, n), np.float32)])
        with threads.threads(threads.get_num_threads() if parallel else 1):
            times = timing.under([partial(_put, changed) for changed in sets], run, ROUNDS)
        for mine, theirs in zip(found, times, strict=True):
            mine.append(timing.speedup(times[0], theirs))
    return found[1:]


def _is_valid(changed: Numbers) -> bool:
    try:
        _put(changed)
    except ValueError:
        return False
    return True


def _put(changed: Numbers) -> None:
    """The library's own numbers with some of them changed."""
    native.set_gemm_tuning(None)
    native.set_gemm_tuning(changed)
