"""Time tilewright beside the libraries that its users would call instead, where installed.

    pip install '.[peers]' && python bench/peers.py [SUITE ...] [--threads 1 2] [--backend c numba] [--write]

NumPy, MKL and PyTorch; for products of integers onnxruntime, and FBGEMM and oneDNN, the engines of PyTorch.

Each contestant lives in a process of its own, so that no two OpenMP runtimes meet, and has its result checked before
anything is timed. They take turns, A B C A B C: a round is one turn of each, of some milliseconds, after the idle
threads of the one before have gone to sleep. A ratio is the median over the rounds of the best peer's time by
tilewright's: above 1 no peer is faster. --write puts each suite's tables into docs/PERFORMANCE.md. All takes some six
minutes.
"""
from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import Any
from unittest.mock import patch

import peer_calls
from report import PERFORMANCE, put
from rich.console import Console
from rich.markdown import Markdown

from tilewright.bench import report
from tilewright.bench.comparison import SETTLE
from tilewright.bench.timing import TURN, seconds_a_call, speedup
from tilewright.cli.blas import set_blas
from tilewright.cli.progress import progress

WIDTH = 150  # of the tables on a terminal, at least
LEAST = 5  # rounds, however long a call takes
NUMBERS = ("OMP", "TILEWRIGHT")  # _NUM_THREADS, read when a library is loaded
PARKING = {"KMP_BLOCKTIME": "5", "OPENBLAS_THREAD_TIMEOUT": "18"}  # ms, 2^18 cycles; then idle threads sleep
BINDING = {"OMP_PROC_BIND": "close"}  # woken OpenMP teams else share one CPU for a while


@dataclass(frozen=True, slots=True)
class Row:
    """One backend of tilewright on one case."""

    suite: str
    case: str
    threads: int
    backend: str
    peer: str  # the best one
    ratio: float  # its time by ours
    seconds: float  # ours


class Contestant:
    """A process that holds one library, prepares cases and takes its turns."""

    def __init__(self, who: str, suite: str, threads: int):
        self.who = who
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(there, who, suite, threads), daemon=True)
        openmp = BINDING if who.startswith(("mkl", "torch")) else {}  # a pool of plain threads would inherit one CPU
        with patch.dict(os.environ, {f"{name}_NUM_THREADS": str(threads) for name in NUMBERS} | PARKING | openmp):
            set_blas(threads)
            self._process.start()
        there.close()

    def ask(self, order: str | int) -> float | str:
        """A case to prepare, or how often to call it -> seconds a call, or why there are none."""
        try:
            self._pipe.send(order)
            return self._pipe.recv()
        except (EOFError, OSError):
            return "its process has ended"

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(20)


def serve(pipe: Any, who: str, suite: str, threads: int) -> None:
    """A contestant's process: orders come in, times or reasons go out, until the pipe is closed."""
    run = None
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        try:
            if isinstance(order, str):
                run = peer_calls.prepare(who, suite, order, threads)
            run()  # awake, and its data in the cache
            pipe.send(seconds_a_call(run, 1 if isinstance(order, str) else order))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def measure(suite: str, threads: int, backends: Sequence[str], seconds: float, missing: dict[str, str],
            tell: Callable[[str], object] = str, cases: Sequence[str] = ()) -> list[Row]:
    """All cases of a suite, or those given. Who cannot run a case goes into `missing` with the first reason.

    A turn is as many calls for one contestant as for another, so that none is helped by what a longer turn keeps warm.
    """
    names = [*(f"tilewright:{backend}" for backend in backends), *peer_calls.PEERS[suite]]
    contestants = [Contestant(who, suite, threads) for who in names]
    rows: list[Row] = []
    for case in cases or peer_calls.SUITES[suite]:
        tell(case)
        once: dict[Contestant, float] = {}
        for c in contestants:
            answer = c.ask(case)
            if isinstance(answer, str):
                missing.setdefault(f"{c.who}, {suite}", answer)
            else:
                once[c] = answer
        peers = [c.who for c in once if not c.who.startswith("tilewright")]
        if not peers:
            continue
        count = max(1, round(TURN / median(once.values())))
        times = rounds(list(once), count, SETTLE if threads > 1 else 0.0, seconds)
        best = min(peers, key=lambda who: median(times[who]))
        for backend in backends:
            if mine := times.get(f"tilewright:{backend}"):
                rows.append(Row(suite, case, threads, backend, best, speedup(times[best], mine), median(mine)))
    for c in contestants:
        c.close()
    return rows


def rounds(contestants: Sequence[Contestant], count: int, settle: float, seconds: float) -> dict[str, list[float]]:
    """Seconds a call of each contestant, round after round; `count` calls make a turn."""
    times: dict[str, list[float]] = {c.who: [] for c in contestants}
    stop, number = time.perf_counter() + seconds, 0
    while number < LEAST or time.perf_counter() < stop:
        for c in contestants:
            time.sleep(settle)
            answer = c.ask(count)
            if isinstance(answer, str):
                raise RuntimeError(f"{c.who}: {answer}")
            times[c.who].append(answer)
        number += 1
    return times


# ---- words


def summary(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each suite, backend and number of threads."""
    lines = [("suite", "backend", "threads", "cases", "geometric mean", "worst", "of")]
    for key in dict.fromkeys((r.suite, r.backend, r.threads) for r in rows):
        mine = [r for r in rows if (r.suite, r.backend, r.threads) == key]
        worst = min(mine, key=lambda r: r.ratio)
        mean = report.ratio_text(geometric_mean([r.ratio for r in mine]))
        lines.append((key[0], key[1], str(key[2]), str(len(mine)), mean, report.ratio_text(worst.ratio), worst.case))
    return lines


def by_case(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each case, a column for each backend and number of threads."""
    columns = list(dict.fromkeys((r.backend, r.threads) for r in rows))
    lines = [("suite", "case", *(f"{backend}, {n} thread{'s' * (n > 1)}" for backend, n in columns))]
    for suite, case in dict.fromkeys((r.suite, r.case) for r in rows):
        cells = {(r.backend, r.threads): f"{report.time_text(r.seconds)}, **{report.ratio_text(r.ratio)}** {r.peer}"
                 for r in rows if (r.suite, r.case) == (suite, case)}
        lines.append((suite, case, *(cells.get(column, "-") for column in columns)))
    return lines


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """The first line is the heading."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ("---",) * len(lines[0]), *lines[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(peer_calls.SUITES)}; all by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backend", nargs="+", default=["c", "numba"])
    parser.add_argument("--seconds", type=float, default=0.8, help="of rounds for each case")
    parser.add_argument("--write", action="store_true", help="the tables into docs/PERFORMANCE.md")
    args = parser.parse_args()
    if unknown := set(args.suites) - set(peer_calls.SUITES):
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    suites = args.suites or list(peer_calls.SUITES)
    console, missing, rows = Console(), {}, []
    console.width = max(console.width, WIDTH)
    work = [(suite, n) for suite in suites for n in args.threads]
    total = sum(len(peer_calls.SUITES[suite]) for suite, _ in work)
    with progress(console) as bar:
        count = itertools.count()
        for suite, n in work:
            rows += measure(suite, n, args.backend, args.seconds, missing,
                            lambda case: bar(next(count), total, case))
    for suite in suites:
        mine = [row for row in rows if row.suite == suite]
        tables = f"{markdown(summary(mine))}\n\n{markdown(by_case(mine))}"
        console.print(Markdown(tables))
        if args.write and mine:
            put(PERFORMANCE, f"peers-{suite}", tables)
    for who, why in missing.items():
        console.print(f"not here  {who}: {why}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
