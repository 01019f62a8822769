"""What a kernel's machine code is held to: one general bar for all, and what its declaration adds.

General: no spill, no stack, no local memory, no double precision in a kernel that has no float64 among its constants
and arguments. A float32 product, say, adds `bars=Bars(registers=128, ffma=0.88, loads=128, conflicts=1.0)`.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import sass

if TYPE_CHECKING:
    from tilewright.emulate import Accesses, Report

    from .assembler import Assembled
    from .launch import Kernel

CCS = ((8, 0), (9, 0), (10, 0))  # what reports and tests assemble for
ROUNDING = 1e-6  # of a mean over requests


@dataclass(frozen=True, slots=True)
class Bars:
    """What one kernel is held to beside the general bar; None: to nothing.

    registers    at most, of a thread
    ffma         at least, the part of the hot loop that multiplies and adds float32
    per_matrix   at most, instructions of the hot loop for each matrix instruction, of which there must be some
    loads        bits that each load of the hot loop has at least
    widest       bits of the widest load and of the widest store of global memory, at least
    conflicts    at most, wavefronts of shared loads as a multiple of the least, in the emulator's trace
    sectors      at most, sectors of global accesses as a multiple of the least, in the emulator's trace
    double       double precision is meant
    """

    registers: int | None = None
    ffma: float | None = None
    per_matrix: float | None = None
    loads: int | None = None
    widest: int | None = None
    conflicts: float | None = None
    sectors: float | None = None
    double: bool = False


def means_double(kernel: Kernel) -> bool:
    """Whether double precision has a place in a kernel."""
    return (kernel.bars.double or "float64" in map(str, _flat(kernel.constants))
            or any(a.kind == "f64" for a in kernel.signature))


def missed(kernel: Kernel, made: Assembled) -> list[str]:
    """The bars that the assembled kernel misses, in words. Code is taken apart only for those that need it."""
    bars, found = kernel.bars, []
    found += [f"{n} bytes of {what}" for what, n in (("spills", made.spills), ("stack", made.stack)) if n]
    if bars.registers is not None and made.registers > bars.registers:
        found.append(f"{made.registers} registers, at most {bars.registers}")
    if made.spills or made.stack or ".local" in made.ptx:
        found += [f"{n} local-memory accesses" for n in (made.code.count(sass.LOCAL),) if n]
    if ".f64" in made.ptx and not means_double(kernel):
        found += [f"{n} double-precision instructions" for n in (made.code.count(sass.DOUBLE),) if n]
    if bars.widest is not None:
        found += _narrow(made.code, bars.widest)
    if any(bar is not None for bar in (bars.ffma, bars.per_matrix, bars.loads)):
        found += ["no loop with arithmetic"] if made.code.hot is None else _loop(bars, made.code.hot)
    return found


def _narrow(code: sass.Code, bits: int) -> Iterator[str]:
    for what, kinds in (("load", ("LDG", "LD", "LDGSTS")), ("store", ("STG", "ST"))):
        widest = max((width for (kind, width) in code.accesses if kind in kinds), default=0)
        if widest < bits:
            yield f"the widest global {what} has {widest} bits, at least {bits}"


def _loop(bars: Bars, hot: sass.Loop) -> Iterator[str]:
    if bars.ffma is not None and hot.ffma < bars.ffma:
        yield f"{hot.ffma:.1%} FFMA in the hot loop, at least {bars.ffma:.0%}"
    if bars.per_matrix is not None and len(hot.opcodes) > bars.per_matrix * hot.matrix:
        yield (f"{len(hot.opcodes)} instructions in the hot loop for {hot.matrix} matrix instructions, "
               f"at most {bars.per_matrix:g} for each")
    if bars.loads is not None:
        for (kind, bits), n in hot.loads.items():
            if bits < bars.loads:
                yield f"{n} {kind} of {bits} bits in the hot loop, at least {bars.loads}"


def factor(accesses: Iterable[Accesses], opcode: str = "") -> float | None:
    """How many times the least the accesses take together; None where there are none."""
    chosen = [a for a in accesses if a.opcode.startswith(opcode) and a.requests]
    if not chosen:
        return None
    return sum(a.requests * a.moved for a in chosen) / sum(a.requests * a.ideal for a in chosen)


def missed_in_trace(kernel: Kernel, report: Report) -> Iterator[str]:
    """The bars that a traced launch misses, in words."""
    for what, bar, found in (("wavefronts of shared loads", kernel.bars.conflicts, factor(report.shared, "ld")),
                             ("sectors of global accesses", kernel.bars.sectors, factor(report.global_))):
        if bar is not None and found is not None and found > bar + ROUNDING:
            yield f"{found:.2f} times the least {what}, at most {bar:g}"


def _flat(constants: Any) -> Iterator[Any]:
    for x in constants:
        if isinstance(x, tuple):
            yield from _flat(x)
        else:
            yield x
