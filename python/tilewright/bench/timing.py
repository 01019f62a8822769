"""Time several contestants so that the ratios between them can be trusted on a machine that is not quiet.

They take turns, A B C A B C, so that a clock that drifts or a neighbour that wakes up meets all of them alike. A turn
is as many calls as fill a few milliseconds.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

TURN = 0.003  # seconds that a turn should last: thousands of timer ticks
ROUNDS = 15
SHARE = 0.4  # seconds for all turns of one contestant, where its single call allows
FEWEST = 3  # turns of a contestant that exceeds it


def interleaved(contestants: Sequence[Callable[[], object]], *, rounds: int = ROUNDS,
                settle: float = 0.0) -> list[list[float]]:
    """Seconds a call, one number a turn, for each contestant. All must have run before: first calls cost more.

    settle: seconds of sleep before each turn, for the idle threads of the one before to stop spinning.
    """
    if not contestants:
        return []
    once = [min(seconds_a_call(run, 1) for _ in range(2)) for run in contestants]
    counts = [max(1, round(TURN / max(t, 1e-9))) for t in once]
    turns = [max(FEWEST, min(rounds, int(SHARE / max(t, TURN)))) for t in once]
    times: list[list[float]] = [[] for _ in contestants]
    for number in range(max(turns)):
        for run, count, most, mine in zip(contestants, counts, turns, times, strict=True):
            if number < most:
                if settle:
                    time.sleep(settle)
                    run()  # its own threads awake again
                mine.append(seconds_a_call(run, count))
    return times


def under(settings: Sequence[Callable[[], object]], run: Callable[[], object], rounds: int) -> list[list[float]]:
    """The same for one piece of work under several settings, each of which is a call that puts it in force."""
    run()
    count = max(1, round(TURN / max(seconds_a_call(run, 1), 1e-9)))
    times: list[list[float]] = [[] for _ in settings]
    for _ in range(rounds):
        for put_in_force, mine in zip(settings, times, strict=True):
            put_in_force()
            run()
            mine.append(seconds_a_call(run, count))
    return times


def speedup(base: Sequence[float], times: Sequence[float]) -> float:
    """How many times as fast as the base, as the median over the rounds."""
    return median(b / t for b, t in zip(base, times, strict=True))


def seconds_a_call(run: Callable[[], object], count: int) -> float:
    """The mean of `count` calls in a row."""
    calls = range(count)
    start = time.perf_counter()
    for _ in calls:
        run()
    return (time.perf_counter() - start) / count
