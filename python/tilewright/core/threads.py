"""One knob for the threads of all backends, and the pool that runs Numba's kernels over ranges.

With the C library there, its number is the number: TILEWRIGHT_NUM_THREADS, `set_num_threads`, `threads` and
threadpoolctl all act on it, and Numba's kernels follow it too. Without it this module keeps one of its own.

The pool is Python threads running compiled code that holds no GIL. Work is cut into ranges; whoever is free takes the
next one. No result depends on the cuts: kernels that run here compute each element alike in any range. The caller
takes part, so concurrent and nested callers cannot wait for each other in a circle, and a forked child starts with an
empty pool.
"""
from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from . import native
from .errors import ArgumentError

RANGES_PER_THREAD = 4  # more, shorter ranges even out threads that run at unequal speed


def _default() -> int:
    asked = os.environ.get("TILEWRIGHT_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_number = _default()
_local = threading.local()


def get_num_threads() -> int:
    """How many threads a call made by this thread may use.

    >>> get_num_threads() >= 1
    True
    """
    if native.lib is not None:
        return native.get_num_threads()
    return getattr(_local, "number", None) or _number


def _check(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
        raise ArgumentError(f"the number of threads must be an integer of at least 1, not {n!r}")
    return n.__index__()


def set_num_threads(n: int) -> None:
    """Use up to `n` threads in every call of this process, on every CPU backend; results keep their bits.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global _number
    n = _check(n)
    native.set_num_threads(n)
    _number = n


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use up to `n` threads in the calls that this thread makes inside the block.

    >>> with threads(1):
    ...     get_num_threads()
    1
    """
    n = _check(n)
    if native.lib is not None:
        before = native.set_local_threads(n)
        try:
            yield
        finally:
            native.set_local_threads(before)
        return
    outer = getattr(_local, "number", None)
    _local.number = n
    try:
        yield
    finally:
        _local.number = outer


class _Job:
    """One call of run_ranges: the ranges still to be taken, and how many are not finished."""

    __slots__ = ("_fn", "_starts", "_n", "_step", "_left", "_lock", "finished", "error")

    def __init__(self, fn: Callable[[int, int], object], n: int, step: int):
        self._fn, self._n, self._step = fn, n, step
        self._starts = itertools.count(0, step)  # next() is atomic
        self._left = -(-n // step)
        self._lock = threading.Lock()
        self.finished = threading.Event()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Take and run ranges until none is left."""
        while (start := next(self._starts)) < self._n:
            try:
                if self.error is None:
                    self._fn(start, min(start + self._step, self._n))
            except BaseException as error:
                self.error = error
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self.finished.set()


class _Pool:
    """Threads that wait for jobs; grows to the largest number ever asked for."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._workers = 0
        self._lock = threading.Lock()

    def run(self, job: _Job, helpers: int) -> None:
        """Run a job on the calling thread and up to `helpers` others; returns when it is finished."""
        with self._lock:
            while self._workers < helpers:
                threading.Thread(target=self._serve, name="tilewright", daemon=True).start()
                self._workers += 1
        for _ in range(helpers):
            self._jobs.put(job)
        job.work()
        job.finished.wait()
        if job.error is not None:
            raise job.error

    def _serve(self) -> None:
        while True:
            self._jobs.get().work()


_pool = _Pool()


def _forget() -> None:
    """In a forked child: the parent's threads are not there."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run_ranges(fn: Callable[[int, int], object], n: int, grain: int) -> None:
    """Call fn(lo, hi) over half-open ranges that together are range(n).

    Each range but the last is a multiple of `grain` long, the least that is worth a thread: with n < 2 * grain, or one
    thread, this is fn(0, n). fn must release the GIL for threads to pay, and may not care which range comes first.
    The first exception that fn raises is raised here, once all running ranges have ended.

    >>> run_ranges(lambda lo, hi: print(lo, hi), 10, grain=100)
    0 10
    """
    most = n // grain
    workers = min(get_num_threads(), most) if most > 1 else 1
    if workers <= 1:
        if n > 0:
            fn(0, n)
        return
    step = grain * max(1, most // (workers * RANGES_PER_THREAD))
    _pool.run(_Job(fn, n, step), workers - 1)
