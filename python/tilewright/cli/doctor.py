"""`tilewright doctor`: what is wrong with this installation, and what mends it."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

VARIABLES = tuple(f"TILEWRIGHT_{name}" for name in ("BACKEND", "ISA", "NUM_THREADS", "VERBOSE", "CACHE_DIR",
                                                    "CUDA"))
OLDEST_NUMBA = (0, 62)
REBUILD = "pip install --force-reinstall --no-deps .   (in a checkout: pip install -e .)"
SELF_TEST = {"matmul": "float32", "matmul_integer": "uint8", "gelu": "float32"}
FORK = """
import os, sys, numpy as np, tilewright as tw
tw.set_num_threads(2)
a = np.ones((400, 400), np.float32)
tw.matmul(a, a)
child = os.fork()
if child == 0:
    os._exit(0 if tw.matmul(a, a)[0, 0] == 400 else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. level: "ok", "note" (works, but worth knowing) or "wrong" (something needed does not)."""

    level: str
    what: str
    mend: str = ""


def doctor() -> None:
    """Look for what is wrong and say which command mends it. Exits with 1 where something needed does not work."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    found = []
    for finding in examine():
        found.append(finding)
        console.print(f"{finding.level:5} {finding.what}", style={"wrong": "red", "note": "yellow"}.get(finding.level))
        if finding.mend:
            console.print(f"      mend: {finding.mend}")
    wrong = sum(f.level == "wrong" for f in found)
    console.print(f"\n{wrong} wrong" if wrong else "\nall that is needed works")
    raise typer.Exit(1 if wrong else 0)


def examine() -> Iterator[Finding]:
    """Every check in turn; one that fails itself is a finding too. A wrong environment would make all others wrong."""
    found = list(environment())
    yield from found
    if any(f.level == "wrong" for f in found):
        return
    for check in (c_library, tuned_numbers, build_age, self_test, numba, threads, team, denormals, fork, cuda):
        try:
            yield from check()
        except Exception as error:
            what = check.__name__.replace("_", " ")
            yield Finding("wrong", f"the check of {what} failed: {type(error).__name__}: {error}")


def environment() -> Iterator[Finding]:
    """Variables that nobody reads, or whose value nothing understands."""
    for name in sorted(os.environ):
        if name.startswith("TILEWRIGHT_") and name not in VARIABLES:
            known = ", ".join(VARIABLES)
            yield Finding("note", f"{name} is set, but means nothing", f"unset {name}   (there are: {known})")
    from ..core.capability import BACKENDS
    from ..core.device import emulated
    from ..core.errors import ArgumentError

    try:
        emulated()
    except ArgumentError as error:
        yield Finding("wrong", str(error), "unset TILEWRIGHT_CUDA")
        return
    backend = os.environ.get("TILEWRIGHT_BACKEND", "").partition(":")[0]
    if backend and backend not in (*BACKENDS, "auto"):
        known = ", ".join(BACKENDS)
        yield Finding("wrong", f"TILEWRIGHT_BACKEND={backend}: there are auto, {known}", "unset TILEWRIGHT_BACKEND")
    elif backend and backend != "auto" and (reason := BACKENDS[backend].probe()):
        yield Finding("wrong", f"TILEWRIGHT_BACKEND={backend} cannot run here: {reason}", "unset TILEWRIGHT_BACKEND")
    number = os.environ.get("TILEWRIGHT_NUM_THREADS", "")
    if number and not (number.isdigit() and int(number) > 0):
        yield Finding("wrong", f"TILEWRIGHT_NUM_THREADS={number} is no number", "unset TILEWRIGHT_NUM_THREADS")
    reason = BACKENDS["c"].probe()
    if reason is not None and "TILEWRIGHT_ISA" in reason:
        yield Finding("wrong", reason, "unset TILEWRIGHT_ISA")


def c_library() -> Iterator[Finding]:
    """Is the C backend there, for which instruction set, and does its library load without Python?"""
    from ..core import native

    reason = native.missing_reason()
    if reason is not None:
        first = "" if "compiler" not in reason else "install gcc or clang, then "
        yield Finding("wrong", f"no C backend: {reason}", first + REBUILD)
        return
    best, used = native.int8_isas()[0], native.int8_isa()
    lower = f", though {best} would run: TILEWRIGHT_ISA asks for it" if used != best else ""
    yield Finding("note" if lower else "ok", f"C backend for {native.isa()}, integer products by {used}{lower}")
    files = {"header": Path(native.get_include()) / "tilewright.h", "library": Path(native.get_library())}
    for what, path in files.items():
        if not path.exists():
            yield Finding("wrong", f"the C {what} {path} is missing: C programs cannot be built", REBUILD)


def tuned_numbers() -> Iterator[Finding]:
    """Does a file of `tilewright tune` decide how products are computed?"""
    from ..core import native, tuning

    if native.tuning_complaint():
        yield Finding("note", f"{native.tuning_complaint()}", "tilewright tune   (or tilewright tune --reset)")
    elif native.tuned is not None:
        yield Finding("ok", f"products follow {tuning.path(native.isa())}")


def build_age() -> Iterator[Finding]:
    """In a checkout: is the library older than its sources?"""
    from ..core import native

    sources, library = Path(__file__).resolve().parents[3] / "csrc", Path(native.get_library())
    if not (sources / "tilewright.h").exists() or not library.exists():
        return
    newest = max((p for p in sources.rglob("*.[ch]")), key=lambda p: p.stat().st_mtime)
    if newest.stat().st_mtime > library.stat().st_mtime:
        yield Finding("note", f"the C library is older than csrc/{newest.relative_to(sources)}",
                      "pip install -e .")


def self_test() -> Iterator[Finding]:
    """A small case of some operations on every backend, against the oracle."""
    import numpy as np

    from ..bench import Expectation
    from ..core import capability, dispatch, registry

    rng = np.random.default_rng(0)
    for op, dtype in SELF_TEST.items():
        spec = registry.spec(op)
        expectation = Expectation(spec, next(iter(spec.bench(rng, dtype, "small"))))
        for backend in capability.backends():
            kernel = registry.kernels(spec.family, backend).get((op, ""))
            with dispatch.transfers():
                reason = "no kernel" if kernel is None else dispatch.why_not(kernel, expectation.fresh())
            if kernel is None or reason is not None:
                yield Finding("wrong", f"{op} on {backend}: {reason}", REBUILD)
                continue
            with dispatch.transfers():
                accuracy = expectation.check(kernel)
            error = f"{accuracy.of_bound:.0%} of its error bound" if accuracy.absolute else "exact"
            yield (Finding("wrong", f"{op} on {backend} computes nonsense: {accuracy.wrong}", REBUILD) if accuracy.wrong
                   else Finding("ok", f"{op} on {backend}: {error}"))


def numba() -> Iterator[Finding]:
    """Is Numba there, new enough, and can it keep what it compiles?"""
    from ..bench.host import versions
    from ..core.capability import BACKENDS

    reason = BACKENDS["numba"].probe()
    if reason is not None:
        yield Finding("note", f"no Numba backend: {reason}", "pip install numba")
        return
    version = versions()["numba"] or "0"
    parts = tuple(int(p) for p in version.split(".")[:2] if p.isdigit())
    if parts < OLDEST_NUMBA:
        oldest = ".".join(map(str, OLDEST_NUMBA))
        yield Finding("wrong", f"Numba {version} is older than {oldest}", "pip install --upgrade numba")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        yield Finding("wrong", "NUMBA_DISABLE_JIT is set: Numba kernels cannot compile", "unset NUMBA_DISABLE_JIT")
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).resolve().parents[1])
    if not os.access(folder, os.W_OK):
        yield Finding("note", f"Numba cannot keep compiled kernels in {folder}: it uses another cache or compiles anew",
                      "export NUMBA_CACHE_DIR=FOLDER, one that can be written to")


def threads() -> Iterator[Finding]:
    """Does the number of threads fit the CPUs?"""
    from ..bench.host import cpu_quota, cpus
    from ..core.threads import get_num_threads

    n, here, quota = get_num_threads(), cpus(), cpu_quota()
    yield Finding("ok", f"{n} threads on {here} CPUs")
    if n > here:
        yield Finding("note", f"{n} threads share {here} CPUs", f"export TILEWRIGHT_NUM_THREADS={here}")
    if quota is not None and quota < n:
        yield Finding("note", f"{n} threads, but the container's quota is {quota:.3g} CPUs",
                      f"export TILEWRIGHT_NUM_THREADS={max(1, int(quota))}")


def team() -> Iterator[Finding]:
    """Are several threads faster than one? On CPUs that others use they need not be."""
    import numpy as np

    from .. import ops
    from ..bench import interleaved
    from ..core.threads import get_num_threads, threads

    n = get_num_threads()
    a, out = np.ones((384, 384), np.float32), np.empty((384, 384), np.float32)

    def one() -> None:
        with threads(1):
            ops.matmul(a, a, out=out)

    def all_of_them() -> None:
        ops.matmul(a, a, out=out)

    if n == 1:
        return
    one()
    all_of_them()
    alone, together = (float(np.median(t)) for t in interleaved([one, all_of_them], rounds=9))
    if together > 1.5 * alone:
        longer = f"{together / alone:.0f} times as long as one"
        yield Finding("note", f"{n} threads take {longer}: something else uses the CPUs",
                      "export TILEWRIGHT_NUM_THREADS=1")
    else:
        yield Finding("ok", f"{n} threads are {alone / together:.1f} times as fast as one")


def denormals() -> Iterator[Finding]:
    """Does something in this process flush denormals to zero?"""
    import numpy as np

    smallest = np.full(16, 1e-40, np.float32)
    if not (smallest * np.float32(1.0)).all():
        yield Finding("wrong", "this process flushes denormals to zero, so results in the far tails are lost",
                      "find the library built with -ffast-math that sets it: python -X importtime shows what is loaded")


def fork() -> Iterator[Finding]:
    """Can a child compute on threads after its parent did?"""
    if not hasattr(os, "fork"):
        return
    try:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        yield Finding("wrong", "a forked child hangs in its first product on threads",
                      "multiprocessing.set_start_method('spawn'), and please report it")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("wrong", f"a forked child cannot compute: {last}", "multiprocessing.set_start_method('spawn')")
    else:
        yield Finding("ok", "a forked child computes on threads")


def cuda() -> Iterator[Finding]:
    """Why there is no CUDA here; nothing needs it."""
    from ..core import device
    from ..core.capability import BACKENDS, manner

    reason = BACKENDS["cuda"].probe()
    if reason:
        yield Finding("ok", f"no CUDA backend, which nothing needs: {reason}")
    else:
        yield Finding("ok", f"CUDA backend {manner('cuda') if device.emulated() else f'on {device.current().name}'}")
