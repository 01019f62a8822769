"""How long Numba compiles each function. What is read from the cache on disk is not compiled."""
from __future__ import annotations

from . import host  # noqa: F401  # before Numba itself: host.py says where its cache is

# isort: split
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event

PASS = "numba:run_pass"  # njit and cfunc both go through passes; only njit tells of a compilation as a whole


class _Passes(event.Listener):
    """Adds up the outermost passes: those of a function compiled on the way are part of the one that calls it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began: list[float] = []

    def on_start(self, event: Any) -> None:
        self._began.append(time.perf_counter())

    def on_end(self, event: Any) -> None:
        began = self._began.pop()
        if not self._began:
            function = f"{event.data['qualname']}{event.data['args']}"
            self.seconds[function] = self.seconds.get(function, 0.0) + time.perf_counter() - began


@contextmanager
def compile_seconds() -> Iterator[dict[str, float]]:
    """Seconds by function and argument types, of all that is compiled in this block; filled as it goes."""
    passes = _Passes()
    with event.install_listener(PASS, passes):
        yield passes.seconds
