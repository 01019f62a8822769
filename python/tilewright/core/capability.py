"""Which backends there are, in the order in which `auto` prefers them, and whether each can run here."""
from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import device, native
from .errors import BackendUnavailable


@dataclass(frozen=True, slots=True)
class Backend:
    """One row: the name users type, the stem of its kernel files, and a probe (None, or why it cannot run here)."""

    name: str
    stem: str
    title: str
    probe: Callable[[], str | None]


def _probe_numba() -> str | None:
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed: pip install numba"
    asked = os.environ.get("TILEWRIGHT_ISA")
    if asked and native.lib is not None and asked not in native.int8_isas():  # C says which it knows
        return native.missing_reason()
    return None


def _probe_cuda() -> str | None:
    missing: list[str] = []
    if device.chosen() is not None:
        return None
    if importlib.util.find_spec("numba_cuda") is None:
        missing.append("numba-cuda is not installed: pip install 'tilewright[cuda]'")
    if not device.emulated():
        missing += device.missing()
    return "; ".join(missing) or None


BACKENDS: dict[str, Backend] = {b.name: b for b in (
    Backend("c", "c_cpu", "C, one variant for each ISA", native.missing_reason),
    Backend("numba", "numba_cpu", "Numba with explicit vectors", _probe_numba),
    Backend("numpy", "numpy_ref", "NumPy and SciPy, the reference", lambda: None),
    Backend("cuda", "cuda", "numba.cuda", _probe_cuda),
)}


_found: dict[tuple[str, Any], str | None] = {}


def unavailable(backend: str) -> str | None:
    """Why a backend cannot run here (None: it can); probed once, or once for each device."""
    key = backend, device.chosen()
    if key not in _found:
        _found[key] = BACKENDS[backend].probe()
    return _found[key]


def require(backend: str) -> None:
    """Raise BackendUnavailable, with the reason, where a backend cannot run here."""
    reason = unavailable(backend)
    if reason is not None:
        raise BackendUnavailable(f"backend {backend!r} cannot run here: {reason}")


def manner(backend: str) -> str:
    """How a backend that can run here runs."""
    return device.current().name if backend == "cuda" and device.emulated() else "available"


def reasons() -> dict[str, str | None]:
    """Every backend with None where it can run here, else the reason why it cannot.

    >>> reasons()["numpy"] is None
    True
    """
    return {name: backend.probe() for name, backend in BACKENDS.items()}


def backends() -> list[str]:
    """The backends that can run here, in the order in which `auto` prefers them.

    >>> "numpy" in backends()
    True
    """
    return [name for name, reason in reasons().items() if reason is None]
