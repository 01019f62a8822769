"""`tilewright tune`: measure how products are best computed on this machine, and keep what is better for later."""
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..bench.tune import Tuned


def tune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, but keep nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the library's own numbers.")] = False,
) -> None:
    """Try other numbers in the C library's choice of ways and blocks, and keep those that are measurably better.

    Takes some twenty seconds, and wants the machine to itself. Every process that starts later uses what is found.
    """
    from rich.console import Console

    from ..core import native, tuning

    console = Console(highlight=False, markup=False, soft_wrap=True)
    file = tuning.path(native.isa())
    if reset:
        console.print(f"{file} is gone" if file.exists() else f"there is no {file}")
        file.unlink(missing_ok=True)
        return
    from ..bench.tune import tune
    from .progress import progress

    with progress(console) as bar:
        found = tune(progress=bar)
    console.print(table(found))
    if not found.changed:
        console.print("nothing is better here than the library's own numbers, by more than noise")
    if dry_run:
        console.print(f"not written: {file}")
        return
    native.set_gemm_tuning(None)
    console.print(f"written: {tuning.write(native.isa(), native.gemm_tuning(), found.changed)}")


def table(found: Tuned) -> Table:
    """A row for each value that was tried."""
    from rich.table import Table

    t = Table(box=None, header_style="bold", pad_edge=False)
    t.add_column("number")
    for heading in ("before", "tried", "old / new time", "worst product", "noise", ""):
        t.add_column(heading, justify="right", no_wrap=True)
    for trial in [*found.trials, *([found.together] if found.together else [])]:
        taken = found.changed.get(trial.name) == trial.value or (trial is found.together and trial.better)
        values = ("", "") if trial is found.together else (f"{trial.before:.10g}", f"{trial.value:.10g}")
        t.add_row(trial.name, *values, f"{trial.gain:.3f}", f"{trial.worst:.3f}", f"{trial.scatter:.3f}",
                  "taken" if taken else "", style="bold" if taken else "")
    return t
