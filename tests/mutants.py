"""Kernels that lack one thing: a barrier, a wait for copies under way, or a guard around accesses to memory.

A mutant is PTX in which one statement is changed, named by what it lacks and the line of Python that the compiler says
it came from, the second of that name as "guard 2: …":

    barrier: cuda.syncthreads()      bar.sync, bar.warp.sync and barrier.sync, left out
    wait: ptx.cp_async_wait(1)       cp.async.wait_group or wait_all, left out
    fill: ptx.cp_async(…)            a cp.async that fills with zeros where the source ends copies all 16 bytes
    guard: if i < n:                 a branch around accesses, or the predicate of an access, is as if always true

A guard is a branch with accesses on one of its ways that the other way does not come to; that way is taken always.
Branches that decide whether a loop goes on are none: without them it never ends, whatever stands in it.
"""
from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.emulate import parse
from tilewright.emulate.parse import Instruction, Label, Statement

BARRIER = re.compile(r"(bar|barrier)(\.warp|\.cta)?\.sync\b")
WAIT = re.compile(r"cp\.async\.wait_(group|all)\b")
ACCESS = re.compile(r"(ld|st|atom|red)\.(volatile\.|relaxed\.)?(global|shared)\b|cp\.async\.c[ag]\b|ldmatrix\b")
ENDS = re.compile(r"(ret|exit|trap)\b")


@dataclass(frozen=True)
class Mutant:
    """A kernel's PTX without one thing; `name` is the same for all compute capabilities."""

    name: str
    line: int  # of the PTX
    ptx: str


def mutants(ptx: str) -> list[Mutant]:
    """All mutants of the one kernel in a module."""
    program = parse.parse(ptx)
    kernel = next(f for f in program.functions.values() if f.is_entry)
    body = [s for s in kernel.body or () if isinstance(s, (Instruction, Label))]
    lines = ptx.splitlines()
    found: list[Mutant] = []
    names: Counter[tuple[str, str]] = Counter()
    for i, s in enumerate(body):
        if not isinstance(s, Instruction):
            continue
        place = program.place(s.source)
        python = linecache.getline(*place).strip() if place else ""
        for kind, old, new in _changes(body, i, s):
            text = "\n".join([*lines[:s.line - 1], _changed(lines[s.line - 1], old, new), *lines[s.line:]])
            names[kind, python] += 1
            number = "" if names[kind, python] == 1 else f" {names[kind, python]}"
            found.append(Mutant(f"{kind}{number}: {python}", s.line, text + "\n"))
    return found


def _changes(body: Sequence[Statement], i: int, s: Instruction) -> Iterator[tuple[str, str, str]]:
    """(kind, pattern in the statement's line, what stands there instead)"""
    if BARRIER.match(s.opcode):
        yield "barrier", rf"(@!?%\w+\s+)?{re.escape(s.opcode)}[^;]*;", ""
    elif WAIT.match(s.opcode):
        yield "wait", rf"{re.escape(s.opcode)}[^;]*;", ""
    elif s.opcode.startswith(("cp.async.cg", "cp.async.ca")) and len(s.operands) == 4:
        yield "fill", rf"({re.escape(s.opcode)}[^;]*),[^,;]+;", r"\1;"
    if s.guard is not None and ACCESS.match(s.opcode):
        yield "guard", rf"@!?{re.escape(s.guard)}\s+({re.escape(s.opcode)})", r"\1"
    if s.guard is not None and s.opcode.startswith("bra"):
        ways = _reached(body, _label(body, s), i), _reached(body, i + 1, i)
        if (i in ways[0]) != (i in ways[1]):
            return
        branch = rf"@!?{re.escape(s.guard)}\s+(bra[^;]*;)"
        if _accesses(body, ways[0] - ways[1]):
            yield "guard", branch, r"\1"
        if _accesses(body, ways[1] - ways[0]):
            yield "guard", branch, ""


def _changed(line: str, old: str, new: str) -> str:
    changed, count = re.subn(old, new, line, count=1)
    assert count == 1, (line, old)
    return changed


def _label(body: Sequence[Statement], branch: Instruction) -> int:
    name = getattr(branch.operands[0], "text", "")
    return next(k for k, s in enumerate(body) if isinstance(s, Label) and s.name == name)


def _accesses(body: Sequence[Statement], where: set[int]) -> bool:
    return any(isinstance(s := body[k], Instruction) and bool(ACCESS.match(s.opcode)) for k in where)


def _reached(body: Sequence[Statement], start: int, branch: int) -> set[int]:
    """What can run from a statement on until it comes to the branch, if it does."""
    seen: set[int] = set()
    left = [start]
    while left:
        k = left.pop()
        if k in seen or k >= len(body):
            continue
        seen.add(k)
        if k == branch:
            continue
        s = body[k]
        if isinstance(s, Instruction) and s.opcode.startswith("bra"):
            left.append(_label(body, s))
            if s.guard is None:
                continue
        elif isinstance(s, Instruction) and ENDS.match(s.opcode) and s.guard is None:
            continue
        left.append(k + 1)
    return seen
