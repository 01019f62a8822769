"""`tilewright cuda-report`: what the assembler makes of the CUDA kernels, on a machine that needs no device."""
from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..emulate import Report
    from ..kernels.ptx.assembler import Assembled

HEADINGS = ("cc", "registers", "spills", "stack", "shared", "local", "double", "global", "in shared", "barriers",
            "hot loop", "FFMA", "matrix", "conflicts", "sectors")
WIDTH = 200  # of a line where there is no terminal to ask


def cuda_report(
    cc: Annotated[str, typer.Option(help="Compute capabilities, with commas.")] = "8.0,9.0,10.0",
    kernel: Annotated[str, typer.Option(help="Only kernels with this in their names.")] = "",
    trace: Annotated[bool, typer.Option("--trace", help="Count bank conflicts and sectors on the emulator.")] = False,
) -> None:
    """Assemble every CUDA kernel and hold its machine code to its bars: registers, spills, widths, the hot loop.

    Exits with 1 where a bar is missed, with 2 where the assembler is missing.
    """
    from rich.console import Console

    from ..core.errors import ArgumentError, BackendUnavailable

    if importlib.util.find_spec("numba_cuda") is None:
        raise BackendUnavailable("numba-cuda is not installed: pip install 'tilewright[cuda]'")
    from ..kernels.ptx import assembler, bars, launch, samples
    from .progress import progress

    if (gone := assembler.missing()) is not None:
        raise BackendUnavailable(gone)
    ccs = [capability(text) for text in re.split(r"[\s,]+", cc.strip())]
    kernels = [k for k in launch.declared() if kernel in k.name]
    if not kernels:
        raise ArgumentError(f"no kernel has {kernel!r} in its name")
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    rows, wrong = [], []
    with progress(console) as tell:
        calls = list(samples.calls()) if trace else []
        for i, k in enumerate(kernels):
            tell(i, len(kernels), k.name)
            report = samples.trace(k.name, calls) if trace else None
            wrong += [f"{k.name}: {what}" for what in (bars.missed_in_trace(k, report) if report else ())]
            for version in ccs:
                if version < k.needs:
                    continue
                made = assembler.assemble(k.name, k.ptx(version), version)
                missed = bars.missed(k, made)
                wrong += [f"{k.name} on sm_{version[0]}{version[1]}: {what}" for what in missed]
                rows.append((k.name, row(made, report), bool(missed)))
    console.print(table(rows))
    for line in wrong:
        console.print(f"MISSED  {line}", soft_wrap=True)
    launched = {name for sample in calls for name, _, _ in sample.launches}
    for k in kernels if trace else ():
        if k.name not in launched:
            console.print(f"not traced, no sample call launches it: {k.name}", soft_wrap=True)
    console.print(f"\n{len(kernels)} kernels, {len(rows)} assembled, {len(wrong)} bars missed", soft_wrap=True)
    raise typer.Exit(1 if wrong else 0)


def capability(text: str) -> tuple[int, int]:
    """(9, 0) of "9.0", "90" or "sm_90"."""
    from ..core.errors import ArgumentError

    if (found := re.fullmatch(r"(?:sm_)?(\d+)\.?(\d)", text)) is None:
        raise ArgumentError(f"{text} is no compute capability; one is 9.0")
    return int(found[1]), int(found[2])


def row(made: Assembled, report: Report | None) -> list[str]:
    """The columns of HEADINGS."""
    from ..kernels.ptx import bars, sass

    code, hot = made.code, made.code.hot
    return [f"{made.cc[0]}.{made.cc[1]}", str(made.registers), _or_dash(made.spills), _or_dash(made.stack),
            _or_dash(made.shared), _or_dash(code.count(sass.LOCAL)), _or_dash(code.count(sass.DOUBLE)),
            " ".join(_widths(code.accesses, ("LDG", "LD", "LDGSTS", "STG", "ST"))),
            " ".join(_widths(code.accesses, ("LDS", "STS", "LDSM"))), _or_dash(code.count(sass.BARRIER)),
            str(len(hot.opcodes)) if hot else "-", f"{hot.ffma:.0%}" if hot and hot.ffma else "-",
            f"1 in {len(hot.opcodes) / hot.matrix:.1f}" if hot and hot.matrix else "-",
            *(_times(bars.factor(found)) for found in ((report.shared, report.global_) if report else ((), ())))]


def _widths(accesses: Any, kinds: tuple[str, ...]) -> Iterator[str]:
    """ "LDG 4x128": how many of which width in bits."""
    for kind in kinds:
        found = sorted(((bits, n) for (name, bits), n in accesses.items() if name == kind), reverse=True)
        if found:
            yield f"{kind} " + ",".join(f"{n}x{bits}" for bits, n in found)


def _or_dash(n: int) -> str:
    return str(n) if n else "-"


def _times(factor: float | None) -> str:
    return "-" if factor is None else f"{factor:.2f}"


def table(rows: list[tuple[str, list[str], bool]]) -> Table:
    """A row for each kernel and compute capability; red where a bar is missed."""
    from rich.table import Table

    t = Table(box=None, header_style="bold", pad_edge=False)
    t.add_column("kernel", no_wrap=True)
    for heading in HEADINGS:
        t.add_column(heading, justify="right")
    last = ""
    for name, columns, missed in rows:
        t.add_row("" if name == last else name.removeprefix("tw_"), *columns, style="red" if missed else "")
        last = name
    return t
