"""`explain`: the steps of a call put into words, without computing anything."""
from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from . import ops
from .core import capability, device, dispatch, registry
from .core.dispatch import row_name
from .core.registry import Call, Kernel


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a call would do; `print` it. `kernel` is the row chosen; `rejected` holds the others with their reasons."""

    op: str
    shapes: str
    kernel: Kernel
    how: str
    copies: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.op}({self.shapes})",
                 f"  runs on   {row_name(self.kernel)}: {self.how}",
                 f"  copies    {'; '.join(self.copies) or 'none'}"]
        lines += [f"  not on    {name}: {why}" for name, why in self.rejected]
        return "\n".join(lines)


def explain(op: str, *args: Any, backend: str | None = None, **kwargs: Any) -> Explanation:
    """Which kernel a call would run, with which ISA, tile and threads, what it would copy, and why not the others.

    Takes the arguments of the public call `op`, and raises what that call would raise.

    >>> import numpy as np, tilewright as tw
    >>> x = np.ones((2, 3), np.float32)
    >>> tw.explain("relu", x, backend="numpy").kernel.backend
    'numpy'
    """
    spec = registry.spec(op)
    bound = inspect.signature(getattr(ops, op)).bind(*args, **kwargs)
    bound.apply_defaults()
    attrs = {name: value for name, value in bound.arguments.items() if name not in ("out", "backend")}
    call = dispatch.prepared(op, tuple(attrs.pop(name) for name in spec.inputs), attrs, bound.arguments.get("out"))
    chosen = dispatch.select(call, backend)
    how = dispatch.how(chosen, call)
    return Explanation(op, dispatch.shapes(call), chosen, how, tuple(call.copies),
                       tuple(_rejected(call, chosen, backend or dispatch.active())))


def _rejected(call: Call, chosen: Kernel, asked: str | None) -> list[tuple[str, str]]:
    """Every other row of the operation, and why it would not run."""
    rejected = []
    for name in capability.BACKENDS:
        reason = dispatch.unavailable(name)
        rows = list(registry.variants(call.op, name)) if reason is None else []
        if not rows:
            rejected.append((name, reason or "no kernel of this operation"))
        for row in rows:
            if row is not chosen:
                rejected.append((row_name(row), dispatch.why_not(row, call) or _why_later(row, chosen, asked)))
    return rejected


def _why_later(row: Kernel, chosen: Kernel, asked: str | None) -> str:
    """Why a row that could run the call is not the one that does."""
    if row.backend == "cuda" and device.emulated():
        return "emulated, runs only when asked for by name"
    if row.variant:
        return "a step of the ladder, runs only when asked for by name"
    return f"{row_name(chosen)} {'comes first' if asked in (None, 'auto') else 'was asked for'}"
