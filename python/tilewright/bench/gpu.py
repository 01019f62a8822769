"""CUDA's kernels on a real device: checked, then timed part by part.

Kernels are timed by events on the device, behind writes that keep it busy while the host queues them, so that what
stands between the events is the device's time and not Python's. Copies and whole calls are timed by the host's clock,
each until the device has nothing left to do.
"""
from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import device, device_arrays, dispatch, registry
from ..core.registry import Kernel
from .accuracy import Expectation, poisoned

if TYPE_CHECKING:
    from .comparison import Result

FLUSH = 1 << 28  # bytes written to empty the device's cache; the largest has some 100 MB
BUSY = 4  # such writes, so that the device is busy for longer than the host needs to queue a round
ROUNDS = 15
IN_A_ROW = 10  # calls between two events
PARTS = ("kernel", "cold", "launch", "to_device", "to_host", "end_to_end")
HEADINGS = dict(zip(PARTS, ("kernel", "kernel, cold", "launch", "to device", "to host", "end to end"), strict=True))


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Medians in seconds of the parts of one call.

    kernel, cold     on the device, its operands in its cache where they fit, or not in it
    launch           until the host has queued the call
    to_device, to_host    copies of all inputs, and of all results
    end_to_end       inputs on the host to results on the host, in memory that the call has not seen before
    """

    kernel: float
    cold: float
    launch: float
    to_device: float
    to_host: float
    end_to_end: float


def measure(kernel: Kernel, expectation: Expectation) -> DeviceTimes:
    """Time a kernel of CUDA on the device in use; raises RuntimeError where its results go wrong in between."""
    here = device.current()
    call = expectation.fresh()
    outs = call.kernel_outs(poisoned(call))
    run, results = resident(kernel, expectation)
    room = here.empty((FLUSH,), np.uint8)
    run()
    here.synchronize()
    times = DeviceTimes(
        kernel=median(queued(run, room, IN_A_ROW, warm=True) for _ in range(ROUNDS)),
        cold=median(queued(run, room, 1, warm=False) for _ in range(ROUNDS)),
        launch=median(_host(run, wait=False) for _ in range(ROUNDS)),
        to_device=median(_host(lambda: _upload(call.inputs)) for _ in range(ROUNDS)),
        to_host=median(_host(lambda: [here.download(x) for x in results]) for _ in range(ROUNDS)),
        end_to_end=median(_host(_whole(kernel, expectation)) for _ in range(ROUNDS)))
    if not expectation.spec.mutates:
        for host, x in zip(outs, results, strict=True):
            host[...] = here.download(x)
        if wrong := expectation.judge(outs).wrong:
            raise RuntimeError(f"{call.op}: wrong after it was timed: {wrong}")
    return times


def resident(kernel: Kernel, expectation: Expectation) -> tuple[Callable[[], None], tuple[Any, ...]]:
    """A kernel's call on arrays that are on the device, and its results there."""
    call = expectation.fresh()
    there = dataclasses.replace(call, inputs=_upload(call.inputs))
    results = tuple(device.current().empty(x.shape, x.dtype) for x in call.kernel_outs(poisoned(call)))
    return lambda: kernel.run(there, results), results


def queued(run: Callable[[], None], room: Any, times: int, warm: bool) -> float:
    """Seconds a call on the device, of several in a row."""
    here = device.current()
    for _ in range(BUSY):
        here.overwrite(room)
    if warm:
        run()
    first = here.mark()
    for _ in range(times):
        run()
    return here.between(first, here.mark()) / times


def _host(run: Callable[[], object], wait: bool = True) -> float:
    """Seconds by the host's clock, on a device that has nothing else to do."""
    here = device.current()
    here.synchronize()
    start = time.perf_counter()
    run()
    if wait:
        here.synchronize()
    return time.perf_counter() - start


def _whole(kernel: Kernel, expectation: Expectation) -> Callable[[], None]:
    """A call with its copies, on inputs and results of its own: they are made now, not when it is run."""
    call = expectation.fresh()
    fresh, outs = dataclasses.replace(call, inputs=_fresh(call.inputs)), call.kernel_outs(poisoned(call))

    def run() -> None:
        device_arrays.lend(kernel, fresh, expectation.spec.mutates, outs)
    return run


def _fresh(inputs: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_fresh(x) if isinstance(x, tuple) else x.copy() if isinstance(x, np.ndarray) else x for x in inputs)


def _upload(inputs: Iterable[Any]) -> tuple[Any, ...]:
    """Inputs on the device; copies where they have gaps."""
    return tuple(_upload(x) if isinstance(x, tuple) else
                 device.current().upload(np.array(x, order="C")) if isinstance(x, np.ndarray) else x for x in inputs)


def wins(results: Iterable[Result]) -> list[tuple[str, str | None, str | None]]:
    """For each operation timed on a device: the first case from which on it beats every CPU kernel, without copies
    (kernel and launch) and with them (end to end); None where it does not at the largest."""
    groups: dict[str, dict[tuple[str, str, str], list[Result]]] = {}
    for r in results:
        groups.setdefault(r.op, {}).setdefault((r.case, r.size, r.dtype), []).append(r)
    found = []
    for op, cases in groups.items():
        rows = []
        for (case, _, dtype), same in cases.items():
            on = next((r.device for r in same if r.device is not None), None)
            cpu = min((r.seconds for r in same if r.seconds is not None and r.device is None), default=None)
            if on is not None and cpu is not None:
                rows.append((cpu, f"{case} {dtype}", max(on.kernel, on.launch) < cpu, on.end_to_end < cpu))
        if rows:
            rows.sort()
            found.append((op, _from_on([(label, won) for _, label, won, _ in rows]),
                          _from_on([(label, won) for _, label, _, won in rows])))
    return found


def _from_on(rows: Sequence[tuple[str, bool]]) -> str | None:
    """The label of the first case from which on all are won."""
    first = None
    for label, won in reversed(rows):
        if not won:
            break
        first = label
    return first


# ---- correctness on the device


@dataclass
class Checked:
    """One kernel and dtype: cases that ran, what was wrong, and how many gave the emulator's bits."""

    op: str
    kernel: str
    dtype: str
    ran: int = 0
    compared: int = 0  # with the emulator
    same_bits: int = 0
    of_bound: float = 0.0  # the worst error, as a part of what is allowed
    wrong: list[str] = field(default_factory=list)


EMULATED = 2  # cases of a kernel and dtype that run on the emulator too
MOST_EMULATED = 1e6  # operations and bytes of such a case


def check(ops: Sequence[str] = (), most: int | None = None,
          progress: Callable[[int, int, str], object] | None = None) -> list[Checked]:
    """Hold every CUDA kernel on the device in use against its operation's oracle, on `most` of its conformance cases
    (None: all), and the first small ones against the emulator as well. A fault there, or other bits, is not an error:
    instructions that approximate may differ; results out of their bounds are."""
    rows = [(k, dtype) for op in ops or registry.specs() for k in registry.variants(op, "cuda") for dtype in k.dtypes
            if dtype in registry.spec(op).dtypes]
    found = []
    emulator = device.emulation(device.current().cc)
    with dispatch.transfers():
        for i, (kernel, dtype) in enumerate(rows):
            if progress:
                progress(i, len(rows), f"{kernel.op} {dtype}")
            found.append(_check(kernel, dtype, most, emulator))
    return found


def _check(kernel: Kernel, dtype: str, most: int | None, emulator: Any) -> Checked:
    spec = registry.spec(kernel.op)
    outcome = Checked(kernel.op, dispatch.row_name(kernel), dtype)
    rng = np.random.default_rng(zlib.crc32(f"{kernel.op} {dtype}".encode()))
    for case in islice(spec.cases(rng, dtype), most):
        expectation = Expectation(spec, case)
        call = expectation.fresh()
        if dispatch.why_not(kernel, call) is not None:
            continue
        outcome.ran += 1
        try:
            here = _results(kernel, expectation)
            accuracy = expectation.judge(here)
        except Exception as error:  # named in the table; the others still have to be checked
            outcome.wrong.append(f"{case.label}: {type(error).__name__}: {error}")
            continue
        if accuracy.wrong:
            outcome.wrong.append(f"{case.label}: {accuracy.wrong}")
        outcome.of_bound = max(outcome.of_bound, accuracy.of_bound)
        if outcome.compared < EMULATED and spec.flops(call) + spec.nbytes(call) <= MOST_EMULATED:
            with device.using(emulator):
                there = _results(kernel, expectation)
            outcome.compared += 1
            outcome.same_bits += all(a.tobytes() == b.tobytes() for a, b in zip(here, there, strict=True))
    return outcome


def _results(kernel: Kernel, expectation: Expectation) -> tuple[np.ndarray, ...]:
    """What a kernel writes, in the shapes of the oracle's results: those that kernels see."""
    call = expectation.fresh()
    outs = call.kernel_outs(poisoned(call))
    dispatch.run(kernel, call, outs)
    return expectation.results(call, outs)
