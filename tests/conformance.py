"""The conformance check: kernels of the table against the oracles of their operations, case by case.

A result passes if every element is within the bound that the spec derives, if no byte outside it was written, if no
input changed, and if 1, 2 and 3 threads give the same bits. CUDA's kernels run on a device if there is one, else on the
emulator, whose threads take turns in three orders. test_conformance.py runs this for the instruction set of the
process, and as a program (`python conformance.py FAMILY BACKEND ...`) for the others, each in its own process.
"""
from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import sys
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tilewright import ops
from tilewright.core import capability, checking, device, dispatch, native, registry, sampling, threads

POISON = 0xFF  # every byte of floats to be written: a NaN in all dtypes, and not the NaN that arithmetic makes
INTEGER_POISON = 0x5A  # of integers, whose saturated results are bytes of 0x00, 0x7F, 0x80 and 0xFF
GUARD = 128    # elements on both sides of it, more than any kernel writes at once
THREADS = (1, 2, 3)
MOST_EMULATED = 3e7  # operations and bytes of a case; larger ones are left out where a device is emulated, as are
                     # those that others stand for there (Case.product)
SEED = int(os.environ.get("TILEWRIGHT_TEST_SEED", "0"))


def installed(package: str) -> bool:
    """Whether a package could be imported."""
    return importlib.util.find_spec(package) is not None


def expected_backends() -> list[str]:
    """The backends whose absence fails the run: TILEWRIGHT_EXPECT, else all that this machine has the means for."""
    if "TILEWRIGHT_EXPECT" in os.environ:
        return os.environ["TILEWRIGHT_EXPECT"].split()
    return ["numpy", "numba"] + ["c"] * has_compiler() + ["cuda"] * (no_emulator() is None)


def has_compiler() -> bool:
    """Whether there is a C compiler."""
    commands = (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang")
    return any(shutil.which(command.split()[0]) for command in commands if command)


def no_emulator() -> str | None:
    """Why CUDA's kernels cannot be emulated here."""
    if not installed("numba_cuda"):
        return "numba-cuda is not installed"
    return None if has_compiler() else "the emulator needs a C compiler"


def why_not(backend: str) -> str | None:
    """Why a backend's kernels can be checked neither here nor, those of CUDA, on the emulator."""
    reason = capability.reasons()[backend]
    return no_emulator() if backend == "cuda" and reason is not None else reason


def backends() -> list[str]:
    """Those whose kernels can be checked."""
    return [name for name in capability.BACKENDS if why_not(name) is None]


@contextmanager
def runnable(backend: str) -> Iterator[None]:
    """Where a backend's kernels run: CUDA's on the device, which gets copies, or else on the emulator."""
    if backend != "cuda":
        yield
    elif capability.reasons()["cuda"] is None:
        with dispatch.transfers():
            yield
    else:
        with device.using(emulated_device()):
            yield


@cache
def emulated_device() -> Any:
    """One for all tests: what it has compiled stays."""
    return device.emulation()


@contextmanager
def order(backend: str, n: int) -> Iterator[None]:
    """On n threads; the threads of an emulated device take turns in another order for each n."""
    if backend == "cuda" and device.emulated():
        here = device.current()
        here.seed = n - 1
        try:
            yield
        finally:
            here.seed = 0
    else:
        with threads.threads(n):
            yield


class Guarded:
    """Poisoned memory for one array in a layout of `sampling.LAYOUTS`, with guards around and between its elements."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, layout: str = "c"):
        last = shape[-1] if shape else 0
        base, cut = {
            "f": (shape[::-1], np.transpose),
            "step": ((*shape[:-1], 2 * last + 1), lambda b: b[..., 1::2]),
            "negative": (shape, lambda b: b[(slice(None, None, -1),) * len(shape)]),
            "offset": ((*shape[:-1], last + 3), lambda b: b[..., 1:-2]),
        }.get(layout if shape else "c", (shape, lambda b: b))
        size = math.prod(base)
        self.memory = np.empty(size + 2 * GUARD, dtype)
        self._bytes = self.memory.view(np.uint8)
        self._poison = INTEGER_POISON if self.memory.dtype.kind in "iu" else POISON
        self._bytes[:] = self._poison
        self.array = cut(self.memory[GUARD:GUARD + size].reshape(base))
        assert self.array.shape == shape

    def take(self) -> tuple[np.ndarray, str | None]:
        """What was written into the array, and a complaint about what was written beside it."""
        result = self.array.copy()
        self.array[...] = np.full(self.memory.itemsize, self._poison, np.uint8).view(self.memory.dtype)
        wrong = np.flatnonzero(self._bytes != self._poison) - GUARD * self.memory.itemsize
        return result, f"wrote outside the result, at byte {wrong[0]} of its memory" if wrong.size else None


def unwritten(x: np.ndarray) -> int:
    """How many elements still hold the poison (floats only: the poison is no number that a kernel would give)."""
    if x.dtype.kind in "iub" or not x.size:
        return 0
    return int((np.ascontiguousarray(x).reshape(-1, 1).view(np.uint8) == POISON).all(axis=1).sum())


def root(x: np.ndarray) -> np.ndarray:
    """The array that owns the memory of a view."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def flat(inputs: Sequence[Any]) -> Iterator[np.ndarray]:
    """The arrays among inputs and lists of inputs."""
    for x in inputs:
        if isinstance(x, np.ndarray):
            yield x
        elif isinstance(x, (tuple, list)):
            yield from x


@dataclasses.dataclass
class Sample:
    """One case in normal form with its exact results; `saved` is what its inputs' memory held before any kernel ran."""

    case: registry.Case
    call: registry.Call
    expected: tuple[np.ndarray, ...]
    bound: tuple[np.ndarray, ...]
    saved: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        roots = {id(r): r for x in (*flat(self.case.inputs), *flat(self.call.inputs)) if (r := root(x)).size}
        self.saved = [(r, r.copy()) for r in roots.values()]

    def changed(self) -> bool:
        """Whether any input was written to; if so, it gets its values back."""
        found = [(r, was) for r, was in self.saved if np.asarray(r).tobytes() != np.asarray(was).tobytes()]
        for r, was in found:
            r[...] = was
        return bool(found)


def sample(spec: registry.Spec, case: registry.Case) -> Sample:
    """A case with its oracle's answers."""
    call = spec.prepare(case.inputs, case.attrs)
    expected = spec.oracle(call)
    return Sample(case, call, expected, spec.bound(call, expected))


@lru_cache(maxsize=1)  # the kernels of one operation and dtype are checked one after the other
def samples(op: str, dtype: str) -> list[Sample]:
    """The conformance cases of an operation, and its smaller benchmark cases, large enough for several threads."""
    spec = registry.spec(op)
    rng = np.random.default_rng([SEED, zlib.crc32(f"{op} {dtype}".encode())])
    cases = list(spec.cases(rng, dtype))
    for size in ("small", "medium"):
        cases += [dataclasses.replace(case, label=f"bench {case.label}") for case in spec.bench(rng, dtype, size)]
    return [sample(spec, case) for case in cases]


def work(s: Sample) -> float:
    """About what a case takes: operations and bytes."""
    spec = registry.spec(s.call.op)
    return spec.flops(s.call) + spec.nbytes(s.call)


def guarded_copy(x: Any, layout: str) -> tuple[Any, list[Guarded]]:
    """An array, or a list of them, copied into guarded memory."""
    many = [x] if isinstance(x, np.ndarray) else list(x)
    guards = [Guarded(v.shape, v.dtype, layout) for v in many]
    for guard, v in zip(guards, many, strict=True):
        guard.array[...] = v
    arrays = [guard.array for guard in guards]
    return arrays[0] if isinstance(x, np.ndarray) else type(x)(arrays), guards


class Check:
    """One kernel on one sample, called in several ways; `complaints` says what went wrong in which of them."""

    def __init__(self, kernel: registry.Kernel, sample: Sample, layout: str, public: bool = True):
        self.spec, self.kernel, self.sample = registry.spec(kernel.op), kernel, sample
        self.complaints: list[str] = []
        self._threads(sample.call)
        self._judge(f"writing {layout}", self._run(sample.call, layout))
        if public and not kernel.variant:
            self._public(layout)
        if sample.changed():
            self._complain("some call", "wrote into an input")

    def _complain(self, how: str, what: str) -> None:
        name = f"{dispatch.row_name(self.kernel)} {self.spec.name} [{self.sample.case.label}]"
        self.complaints.append(f"{name} {how}: {what}")

    def _judge(self, how: str, results: Sequence[Any]) -> None:
        triples = zip(results, self.sample.expected, self.sample.bound, strict=True)
        for i, (result, expected, bound) in enumerate(triples):
            which = f"{how}, result {i}" if len(results) > 1 else how
            if left := unwritten(result):
                self._complain(which, f"{left} of {result.size} elements were never written")
            elif wrong := checking.mismatch(result, expected, bound):
                self._complain(which, wrong)

    def _collect(self, how: str, guards: Sequence[Guarded]) -> list[np.ndarray]:
        results = []
        for guard in guards:
            result, complaint = guard.take()
            results.append(result)
            if complaint:
                self._complain(how, complaint)
        return results

    def _mutable(self, inputs: Sequence[Any], layout: str) -> tuple[tuple, list[Guarded]]:
        """The inputs with guarded copies of those that the operation changes in place."""
        new, guards = list(inputs), []
        for i in self.spec.mutates:
            if inputs[i] is not None:
                new[i], more = guarded_copy(inputs[i], layout)
                guards += more
        return tuple(new), guards

    def _run(self, call: registry.Call, layout: str) -> list[np.ndarray]:
        """The kernel itself, on guarded results in the shape that kernels see."""
        how = f"writing {layout}"
        if self.spec.mutates:
            inputs, guards = self._mutable(call.inputs, layout)
            dispatch.run(self.kernel, dataclasses.replace(call, inputs=inputs), ())
        else:
            seen = call.kernel_outs([np.empty(shape, dtype) for shape, dtype in call.outputs])
            guards = [Guarded(out.shape, out.dtype, layout) for out in seen]
            dispatch.run(self.kernel, call, tuple(guard.array for guard in guards))
        return self._collect(how, guards)

    def _threads(self, call: registry.Call) -> None:
        first = None
        for n in THREADS:
            with order(self.kernel.backend, n):
                results = self._run(call, "c")
            if first is None:
                first = results
                self._judge("contiguous", results)
            elif any(a.tobytes() != b.tobytes() for a, b in zip(first, results, strict=True)):
                self._complain(f"{n} threads", "other bits than with 1 thread")

    def _public(self, layout: str) -> None:
        """The public call: without out, with out in some layout, and in place where that is allowed."""
        f, case, row = getattr(ops, self.spec.name), self.sample.case, dispatch.row_name(self.kernel)
        if self.spec.mutates:
            inputs, guards = self._mutable(case.inputs, layout)
            f(*inputs, backend=row, **case.attrs)
            self._judge("public call", self._collect("public call", guards))
            return
        result = f(*case.inputs, backend=row, **case.attrs)
        self._judge("public call", self._seen(result if isinstance(result, tuple) else (result,)))
        if len(self.sample.call.outputs) > 1 or "out" not in f.__kwdefaults__:
            return
        (shape, dtype), = self.sample.call.outputs
        guard = Guarded(shape, dtype, layout)
        returned = f(*case.inputs, out=guard.array, backend=row, **case.attrs)
        if returned is not guard.array:
            self._complain("public call", "did not return out")
        self._judge(f"public call, out {layout}", self._seen(self._collect(f"public call, out {layout}", [guard])))
        for i in self.spec.may_alias:
            x = case.inputs[i]
            if isinstance(x, np.ndarray) and x.shape == shape and x.dtype == dtype:
                y, guards = guarded_copy(x, layout)
                f(*case.inputs[:i], y, *case.inputs[i + 1:], out=y, backend=row, **case.attrs)
                self._judge(f"in place of input {i}", self._seen(self._collect(f"in place of input {i}", guards)))

    def _seen(self, results: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """Results in the caller's shape as the oracle gives them; a wrong shape stays as it is, and will be found."""
        arrays = tuple(map(np.asarray, results))
        if [(a.shape, a.dtype) for a in arrays] != [(tuple(s), d) for s, d in self.sample.call.outputs]:
            self._complain("public call", f"gave {[(a.dtype.name, a.shape) for a in arrays]}")
        return self.sample.call.kernel_outs(arrays)


@dataclasses.dataclass
class Outcome:
    """What one kernel did on the cases of one dtype."""

    op: str
    row: str
    isa: str
    dtype: str
    ran: int = 0
    left_out: int = 0
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    complaints: list[str] = dataclasses.field(default_factory=list)


def conform(kernel: registry.Kernel, dtype: str) -> Outcome:
    """Check one kernel on every case of one dtype."""
    with runnable(kernel.backend):
        return _conform(kernel, dtype)


def _conform(kernel: registry.Kernel, dtype: str) -> Outcome:
    isa = isa_of(kernel.backend, registry.spec(kernel.op).family)
    outcome = Outcome(kernel.op, dispatch.row_name(kernel), isa, dtype)
    refused: Counter[str] = Counter()
    for i, s in enumerate(samples(kernel.op, dtype)):
        reason = dispatch.why_not(kernel, s.call)
        if reason is None and kernel.backend == "cuda" and device.emulated() and (
                s.case.product or work(s) > MOST_EMULATED):
            outcome.left_out += 1
            continue
        if reason is not None:
            refused[reason] += 1
            continue
        try:
            outcome.complaints += Check(kernel, s, sampling.LAYOUTS[i % len(sampling.LAYOUTS)]).complaints
        except Exception as error:  # one more way to fail, not the end of the run
            outcome.complaints.append(f"{outcome.row} {kernel.op} [{s.case.label}] raised {error!r:.300}")
        outcome.ran += 1
    outcome.refused = dict(refused)
    return outcome


def has_integer_isas(family: str) -> bool:
    """Whether the kernels of a family tell apart the instruction sets that have dot products of integers."""
    return any((Path(__file__).parents[1] / "csrc" / family).glob("*.int.isa.c"))


def isa_of(backend: str, family: str) -> str:
    """The instruction set that a backend's kernels use in this process."""
    if backend == "numba":
        from tilewright.kernels.vector import host
        return host.INT8_ISA if has_integer_isas(family) else host.ISA
    if backend == "cuda":
        return "emulated" if device.emulated() else "sm_{}{}".format(*device.current().cc)
    if backend != "c":
        return ""
    return native.int8_isa() if has_integer_isas(family) else native.isa()


def rows(op: str, which: Sequence[str] | None = None) -> Iterator[registry.Kernel]:
    """Every kernel of an operation, steps of the ladder included, on the backends whose kernels can be checked."""
    for backend in which if which is not None else backends():
        yield from registry.variants(op, backend)


def main(family: str, *which: str) -> None:
    """Check one family on some backends; one line of JSON for each kernel and dtype."""
    for op, spec in registry.specs().items():
        if spec.family == family:
            for dtype in spec.dtypes:
                for kernel in rows(op, which):
                    if dtype in kernel.dtypes:
                        print(json.dumps(dataclasses.asdict(conform(kernel, dtype))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
