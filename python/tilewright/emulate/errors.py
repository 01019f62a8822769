"""What goes wrong in a kernel, and what the emulator does not know."""
from __future__ import annotations

from typing import Any

# in the order of the FAULT_ constants of runtime/emulate.h; "launch" and "unsupported" are found before anything runs
KINDS = ("none", "out-of-bounds", "misaligned", "race", "barrier", "uninitialised", "divergent", "deadlock", "async",
         "undefined", "stack", "trap", "memory", "endless")

Place = tuple[str, int]  # a file and a line of it
Index = tuple[int, int, int]


class Fault(RuntimeError):
    """A kernel did what no kernel may do, or cannot be run at all.

    kind       one of KINDS, "launch" (a launch that no device would accept) or "unsupported"
    ptx_line   line of the PTX text, from 1; None where no instruction is to blame
    source     (file, line) of the source, where the PTX has .loc directives; else None
    block, thread    indices (x, y, z), or None
    """

    def __init__(self, kind: str, message: str, ptx_line: int | None = None, source: Place | None = None,
                 block: Index | None = None, thread: Index | None = None) -> None:
        place = [] if ptx_line is None else [f"PTX line {ptx_line}"]
        if source is not None:
            place.append(f"{source[0]}:{source[1]}")
        if block is not None and thread is not None:
            place.append(f"block {block}, thread {thread}")
        super().__init__(f"{kind}: {message}" + (f" [{'; '.join(place)}]" if place else ""))
        self.kind, self.message, self.ptx_line, self.source = kind, message, ptx_line, source
        self.block, self.thread = block, thread

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a fault in a worker process reaches its parent: the arguments are not those of __init__."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[Fault], args: tuple[Any, ...], state: dict[str, Any]) -> Fault:
    fault = kind.__new__(kind, *args)
    fault.__dict__.update(state)
    return fault


class Unsupported(Fault):
    """PTX that the emulator does not know; raised before anything runs."""

    def __init__(self, message: str, ptx_line: int | None = None, source: Place | None = None) -> None:
        super().__init__("unsupported", message, ptx_line, source)
