"""`tilewright compare`: every operation on every backend, checked and timed, in one table."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .blas import set_blas

if TYPE_CHECKING:
    from rich.table import Table

    from ..bench import Comparison

PLAIN_WIDTH = 130  # of a line where there is no terminal to ask


def compare(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Operations; all by default.")] = None,
    size: Annotated[str, typer.Option(help="small, medium or large.")] = "medium",
    threads: Annotated[int, typer.Option(min=1, help="For every contestant, NumPy's BLAS included.")] = 1,
    dtype: Annotated[str | None, typer.Option(help="float32, float64, float16, bfloat16, int8 ...; by default float32, "
                                                   "and all of operations on integers.")] = None,
    ladder: Annotated[bool, typer.Option("--ladder", help="Also the steps that lead to the kernels: c:naive.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all; - is stdout.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table instead.")] = False,
) -> None:
    """Run operations on every backend, check each result against the oracle, and time the backends in turns.

    Exits with 1 where a result is out of its derived bound.
    """
    set_blas(threads)  # NumPy is not loaded yet
    from rich.console import Console

    from .. import bench
    from .progress import progress

    quiet = markdown or str(json_file) == "-"
    console = Console(stderr=quiet)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    with progress(console) as tell:
        found = bench.compare(ops or (), size=size, dtype=dtype, threads=threads, ladder=ladder, progress=tell)
    if json_file is not None:
        text = json.dumps(bench.to_json(found), indent=1) + "\n"
        sys.stdout.write(text) if str(json_file) == "-" else json_file.write_text(text)
    if markdown:
        typer.echo(bench.markdown(found))
    if not quiet:
        for part in (bench.conditions(found), "", table(found), "", device_table(found), *footer(found)):
            console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
    raise typer.Exit(1 if found.wrong else 0)


def table(found: Comparison) -> Table:
    """A block of rows for each case, NumPy's first."""
    from rich.table import Table

    from ..bench import report

    t = Table(box=None, header_style="bold", pad_edge=False)
    t.add_column("operation")
    t.add_column("kernel")
    for heading in ("time", "rate", "to NumPy", "of peak", "worst error", "of bound"):
        t.add_column(heading, justify="right", no_wrap=True)
    for heading, rows in report.groups(found.results):
        for i, r in enumerate(rows):
            style = "red" if r.accuracy.wrong else "dim" if r.kernel == "numpy" else ""
            error = ("WRONG", "") if r.accuracy.wrong else (str(r.accuracy), f"{r.accuracy.of_bound:.0%}")
            t.add_row(heading if i == 0 else "", r.kernel, "emulated" if r.emulated else report.time_text(r.seconds),
                      report.rate_text(r.rate, r.unit), report.ratio_text(r.ratio), report.part_text(r.of_peak),
                      *error, style=style)
    return t


def device_table(found: Comparison) -> Table:
    """The parts of each case's time on a CUDA device."""
    from rich.table import Table

    from ..bench import report

    (first, *headings), *rows = report.device_rows(found)
    t = Table(box=None, header_style="bold", pad_edge=False)
    t.add_column(first)
    for heading in headings:
        t.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        t.add_row(*row, style="dim" if row[1] == "no device" else "")
    return t


def footer(found: Comparison) -> list[str]:
    """What the table means, what is wrong, what is missing, and how long it took."""
    from ..bench import report

    lines = [""]
    for r in found.wrong:
        lines.append(f"WRONG  {r.op} {r.case} on {r.kernel}: {r.accuracy.wrong}")
    for name, (ratio, count) in report.mean_ratios(found.results).items():
        lines.append(f"{name}: {ratio:.3g} times NumPy's speed, the geometric mean of {count} cases")
    lines += report.win_lines(found)
    lines += report.peak_lines(found)
    for s in found.skipped:
        lines.append(f"not here  {s.op + ' on ' if s.op else ''}{s.backend}: {s.reason}")
    lines.append(f"{found.seconds:.0f} s in all, {found.first_calls:.1f} s of them first calls (Numba compiles), "
                 "which are in no time above")
    return lines
