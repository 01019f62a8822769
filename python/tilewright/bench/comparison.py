"""Run every operation on every backend, check it, and time the backends in turns; all enumerated from the table."""
from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import numpy as np

from ..core import capability, device, dispatch, registry, threads
from ..core.registry import Case, Kernel, Spec
from . import gpu
from .accuracy import Accuracy, Expectation, poisoned
from .gpu import DeviceTimes
from .host import machine
from .peaks import copy_peak, dot_peak, fma_peak, roof
from .timing import interleaved

SIZES = ("small", "medium", "large")
BASELINE = "numpy"
DTYPE = "float32"
SETTLE = 0.03  # seconds; idle BLAS and OpenMP threads spin about as long, on CPUs that the next contestant wants


@dataclass(frozen=True, slots=True)
class Result:
    """One kernel on one case. Times are seconds a call of the kernel itself, on a call already in normal form."""

    op: str
    case: str
    size: str
    dtype: str
    kernel: str  # "c", "c:naive", ...
    how: str
    accuracy: Accuracy
    seconds: float | None  # median over the turns; None where the result was wrong, and for what is emulated
    spread: float | None  # distance of the quartiles, relative to the median
    unit: str  # "GFLOP/s" | "GOP/s" | "GB/s"
    rate: float | None
    of_peak: float | None  # part of the measured peak that is the kernel's roof
    ratio: float | None  # NumPy's time divided by this one: above 1 is faster than NumPy
    part_of: str = ""  # the fused operation and its case, where this is one of the calls it stands for
    device: DeviceTimes | None = None  # of a CUDA kernel on a device; `seconds` is its time from end to end then

    @property
    def emulated(self) -> bool:
        """Whether the kernel was checked on the emulator, which gives no time."""
        return self.how.startswith("emulated")


@dataclass(frozen=True, slots=True)
class Skipped:
    """What did not run, and why. `op` is "" where a whole backend is missing."""

    op: str
    backend: str
    reason: str


@dataclass(slots=True)
class Comparison:
    """All results of one run, and what they were taken on."""

    machine: dict[str, Any]
    threads: int
    results: list[Result] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    peaks: dict[str, float | None] = field(default_factory=dict)
    first_calls: float = 0.0  # seconds of first runs, most of it Numba compiling
    seconds: float = 0.0

    @property
    def wrong(self) -> list[Result]:
        """Results out of their bounds."""
        return [r for r in self.results if r.accuracy.wrong]


def contestants(spec: Spec, ladder: bool = False) -> tuple[list[Kernel], list[Skipped]]:
    """The kernels of an operation that load here, NumPy's first, and what is missing. ladder: with the steps."""
    found: list[Kernel] = []
    missing: list[Skipped] = []
    order = sorted(capability.BACKENDS, key=lambda name: name != BASELINE)
    for name in order:
        reason = capability.BACKENDS[name].probe()
        try:
            rows = list(registry.variants(spec.name, name)) if reason is None else []
        except Exception as error:  # a tool that compares says what is broken and goes on
            rows, reason = [], f"its kernels do not load: {error}"
        if not rows:
            missing.append(Skipped(spec.name, name, reason or "no kernel of this operation"))
        found += [row for row in rows if ladder or not row.variant]
    return found, missing


def cases(ops: Sequence[str], sizes: Sequence[str],
          dtypes: Sequence[str] | None = None) -> list[tuple[Spec, str, str, Case]]:
    """(spec, size, dtype, case) of every benchmark; all operations where none is named."""
    registry.check_names("size", sizes, SIZES)
    registry.check_names("dtype", dtypes or (), {name: 0 for spec in registry.specs().values() for name in spec.dtypes})
    chosen = [registry.spec(op) for op in ops] if ops else list(registry.specs().values())
    rng = np.random.default_rng(0)
    return [(spec, size, dtype, case) for spec in chosen for dtype in _dtypes(spec, dtypes)
            for size in sizes for case in spec.bench(rng, dtype, size)]


def _dtypes(spec: Spec, asked: Sequence[str] | None) -> Sequence[str]:
    """Those asked for that the operation has; by default float32, or all that an operation on integers has."""
    if asked is None:
        return (DTYPE,) if DTYPE in spec.dtypes else spec.dtypes
    return [name for name in asked if name in spec.dtypes]


def compare(ops: Sequence[str] = (), *, size: str | Sequence[str] = "medium",
            dtype: str | Sequence[str] | None = None, threads: int = 1, ladder: bool = False,
            progress: Callable[[int, int, str], object] | None = None) -> Comparison:
    """Check and time every kernel of the named operations, or of all; `progress(done, total, what)` is told on the way.

    dtype: by default float32, and all that an operation on integers has. What a fused operation is made of follows it.

    >>> found = compare(["relu"], size="small")
    >>> found.wrong
    []
    """
    start = time.perf_counter()
    with one_number_of_threads(threads), dispatch.transfers():
        found = Comparison(machine(), threads)
        work = cases(ops, (size,) if isinstance(size, str) else size, (dtype,) if isinstance(dtype, str) else dtype)
        for done, (spec, size_, dtype_, case) in enumerate(work):
            if progress:
                progress(done, len(work), f"{spec.name} {case.label}")
            _one(found, spec, size_, dtype_, case, ladder)
            for op, part in spec.parts(*case.inputs, **case.attrs) if spec.parts else ():
                _one(found, registry.spec(op), size_, dtype_, part, False, f"{spec.name} {case.label}")
        found.peaks = _peaks_of(found.results)
    found.skipped = _summarised(found.skipped)
    found.seconds = time.perf_counter() - start
    return found


def _one(found: Comparison, spec: Spec, size: str, dtype: str, case: Case, ladder: bool, part_of: str = "") -> None:
    """Add the results of all kernels on one case."""
    expectation = Expectation(spec, case)
    kernels, missing = contestants(spec, ladder)
    found.skipped += missing
    checked: list[tuple[Kernel, Accuracy]] = []
    for kernel in kernels:
        reason = dispatch.why_not(kernel, expectation.fresh())
        if reason is not None:
            found.skipped.append(Skipped(spec.name, dispatch.row_name(kernel), reason))
            continue
        begin = time.perf_counter()
        checked.append((kernel, _checked(expectation, kernel)))
        found.first_calls += time.perf_counter() - begin
    right = [kernel for kernel, accuracy in checked if accuracy.wrong is None and not untimed(kernel)]
    on_device = {dispatch.row_name(kernel): gpu.measure(kernel, expectation)
                 for kernel in right if kernel.backend == "cuda"}
    right = [kernel for kernel in right if kernel.backend != "cuda"]
    turns = interleaved([_runner(expectation, kernel) for kernel in right], settle=SETTLE if found.threads > 1 else 0.0)
    times = dict(zip(map(dispatch.row_name, right), turns, strict=True))
    times |= {name: [parts.end_to_end] for name, parts in on_device.items()}
    under = roof(spec, expectation.fresh())
    baseline = median(times[BASELINE]) if BASELINE in times else None
    for kernel, accuracy in checked:
        name = dispatch.row_name(kernel)
        mine = times.get(name)
        seconds = median(mine) if mine else None
        found.results.append(Result(
            spec.name, case.label, size, dtype, name,
            dispatch.how(kernel, expectation.fresh()) if seconds or untimed(kernel) else "", accuracy, seconds,
            _spread(mine) if mine else None, under.unit, under.rate(seconds) if seconds else None,
            under.part(seconds) if seconds and name not in on_device else None,
            baseline / seconds if baseline and seconds else None, part_of, on_device.get(name)))


def untimed(kernel: Kernel) -> bool:
    """Whether a kernel is checked only: an emulated one's time says nothing about a device."""
    return kernel.backend == "cuda" and device.emulated()


def _checked(expectation: Expectation, kernel: Kernel) -> Accuracy:
    try:
        return expectation.check(kernel)
    except Exception as error:  # as above: named in the table, and the run goes on
        return Accuracy(np.inf, np.inf, np.inf, f"{type(error).__name__}: {error}")


def _runner(expectation: Expectation, kernel: Kernel) -> Callable[[], object]:
    """The kernel on a prepared call with outputs of its own; operations in place go on with their own copies."""
    call = expectation.fresh()
    outs = call.kernel_outs(poisoned(call))
    return lambda: dispatch.run(kernel, call, outs)


def _spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = quantiles(times, n=4)
    return (high - low) / median(times)


def _peaks_of(results: Iterable[Result]) -> dict[str, float | None]:
    """The peaks that the results are held against."""
    found: dict[str, float | None] = {}
    for r in results:
        if r.unit == "GFLOP/s":
            found[f"fma {r.dtype}"] = fma_peak(r.dtype)
        elif r.unit == "GOP/s":
            found["int8 dot products"] = dot_peak()
    return found | {"copy in memory": copy_peak()}


def _summarised(skipped: Iterable[Skipped]) -> list[Skipped]:
    """Each once; a backend that no operation could use becomes one line."""
    reasons = {name: reason for name, reason in capability.reasons().items() if reason is not None}
    gone = [Skipped("", name, reason) for name, reason in reasons.items()]
    rest = {(s.op, s.backend, s.reason): s for s in skipped if s.backend not in reasons}
    return gone + list(rest.values())


@contextmanager
def one_number_of_threads(n: int) -> Iterator[None]:
    """Every contestant on `n` threads: the kernels of the table, and NumPy's BLAS where threadpoolctl is installed.

    Without it BLAS keeps the number it was loaded with; the command line sets that before NumPy is imported.
    """
    with threads.threads(n):
        if importlib.util.find_spec("threadpoolctl") is None:
            yield
            return
        with importlib.import_module("threadpoolctl").threadpool_limits(n, "blas"):
            yield
