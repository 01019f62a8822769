"""The accuracy of the elementwise functions over all 2^32 float32 numbers, or over a sample of them.

An error is |result - exact| in units in the last place of the exact value: 2^(e - 23) for |exact| in [2^e, 2^(e + 1)),
and 2^-149, the distance of denormals, below 2^-126. "Exact" is the spec's oracle, float64 arithmetic good to some 1e-15
(1e-7 of such a unit), with range to spare. Wrong is what no number of units can tell: NaN or an infinity where the
exact result is none, or the other way round, and a zero of the other sign. Every NaN is an input too.

    for tally in sweep("gelu", "c"): ...     a Tally after each block; given back as so_far, it goes on from there
    sample("gelu", "c", 10**6)               one Tally
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..core import checking, registry, threads
from ..core.errors import ArgumentError
from .accuracy import poisoned

INPUTS = 2**32
BLOCK = 2**22  # inputs between two Tallies: 0.05 to 0.2 s
CHUNK = 2**15  # inputs at a time: their float64 temporaries fit L2

# Where sweeps found the largest errors, on one backend or another; a sample looks at these numbers and beside them.
HARD: dict[str, tuple[float, ...]] = {
    "elu": (-0.284443676,), "gelu": (-0.0658853576, -2.19115901, -10.4435091), "gelu_tanh": (-1.83790648,),
    "hardswish": (0.00194513809,), "sigmoid": (-4.1572938,), "silu": (-5.93889332,), "softplus": (0.0147124818,),
    "tanh": (0.0603440516, -4.10287571),
}


@dataclass(frozen=True, slots=True)
class Tally:
    """What the inputs so far have shown; `at` is the input of the largest error, `wrong_at` one of a wrong result."""

    inputs: int = 0
    ulp: float = 0.0
    at: float | None = None
    wrong: int = 0
    wrong_at: float | None = None

    def __add__(self, other: Tally) -> Tally:
        worse = other if other.ulp > self.ulp else self
        return Tally(self.inputs + other.inputs, worse.ulp, worse.at, self.wrong + other.wrong,
                     self.wrong_at if self.wrong else other.wrong_at)


def functions() -> list[str]:
    """The operations on one array, element by element; gelu's other form has a name of its own.

    >>> functions()[:4]
    ['elu', 'gelu', 'gelu_tanh', 'hardswish']
    """
    unary = [s.name for s in registry.specs().values() if s.family == "activation" and s.inputs == ("x",)]
    return sorted([*unary, "gelu_tanh"])


def measure(name: str, backend: str, x: np.ndarray) -> Tally:
    """Run one kernel on x and hold every element against the oracle."""
    if name not in functions():
        raise ArgumentError(f"{name!r} is none of {', '.join(functions())}")
    op, attrs = ("gelu", {"approximate": "tanh"}) if name == "gelu_tanh" else (name, {})
    spec, kernel = registry.spec(op), next(registry.variants(op, backend))
    with np.errstate(invalid="ignore"), threads.threads(1):
        call = spec.prepare((x,), attrs)
        (exact,), (y,) = spec.oracle(call), poisoned(call)
        kernel.run(call, (y,))
        error = checking.errors(y, exact)
        wrong = ~(error < np.inf) | ((y == 0) & (np.signbit(y) != np.signbit(exact)))
        ulps = np.where(wrong, 0.0, error / checking.ulp(exact, np.float32))
    worst, bad = int(np.argmax(ulps)), int(np.argmax(wrong))
    return Tally(x.size, float(ulps[worst]), float(x[worst]), int(wrong.sum()), float(x[bad]) if wrong[bad] else None)


def _numbers(name: str, backend: str, bits: Iterable[np.ndarray]) -> Tally:
    total = Tally()
    for some in bits:
        total += measure(name, backend, some.astype(np.uint32).view(np.float32))
    return total


def _block(name: str, backend: str, first: int) -> Tally:
    return _numbers(name, backend, (np.arange(k, k + CHUNK) for k in range(first, first + BLOCK, CHUNK)))


def sweep(name: str, backend: str, so_far: Tally | None = None, jobs: int = 1) -> Iterator[Tally]:
    """All 2^32 numbers in the order of their bits, from `so_far` on: a Tally after each block, on `jobs` threads."""
    total = so_far or Tally()
    with ThreadPoolExecutor(jobs) as pool:
        ahead: list[Future] = []
        for first in range(total.inputs, INPUTS + jobs * BLOCK, BLOCK):  # one block more under way than is waited for
            if first < INPUTS:
                ahead.append(pool.submit(_block, name, backend, first))
            if len(ahead) > jobs or first >= INPUTS and ahead:
                total += ahead.pop(0).result()
                yield total


def sample(name: str, backend: str, count: int, seed: int = 0) -> Tally:
    """About `count` numbers: as many of every sign and exponent, and half of them beside the places known as hard."""
    rng = np.random.default_rng(seed)
    spread = np.arange(512)[:, None] << 23 | rng.integers(0, 2**23, (512, max(count // 1024, 1)))
    places = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, *HARD.get(name, ())], np.float32).view(np.uint32)
    half = max(count // (4 * places.size), 8)
    beside = places.astype(np.int64)[:, None] + np.arange(-half, half)
    bits = np.concatenate([spread.ravel(), beside.ravel() % INPUTS])
    return _numbers(name, backend, np.array_split(bits, bits.size // CHUNK + 1))
