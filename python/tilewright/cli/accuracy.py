"""`tilewright accuracy`: the largest error of the elementwise functions, over every float32 number there is."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..bench.ledger import Ledger
    from ..bench.sweep import Tally

SAVE_EVERY = 16  # blocks of a sweep: some seconds
PLACE = re.compile(r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)", re.DOTALL)


def accuracy(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Functions; all by default.")] = None,
    backend: Annotated[str, typer.Option(help="c or numba; several with commas.")] = "c",
    isa: Annotated[str | None, typer.Option(help="A lower instruction set than the machine's best.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, metavar="N", help="About N numbers, not all 2^32.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Forget what earlier runs found.")] = False,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Put the table of all that runs have found "
                                               "between the marks <!-- accuracy --> of a file.")] = None,
) -> None:
    """Hold every result for all 2^32 float32 inputs against the exact one; one to two minutes a function.

    What is found is kept on disk as it goes: an interrupted run goes on where it was, and a finished one is not
    repeated while the code is the same. Exits with 1 where a result is wrong, or off by more than 4 ULP.
    """
    if isa is not None:
        os.environ["TILEWRIGHT_ISA"] = isa  # read when the library is loaded, which has not happened yet
    from rich.console import Console

    from ..bench import ledger, sweep
    from ..core import dispatch, native, registry
    from ..kernels.activation.spec import ULPS
    from .progress import progress

    names, backends = ops or sweep.functions(), backend.split(",")
    registry.check_names("function", names, sweep.functions())
    for name in backends:
        dispatch.require(name)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    missed = False
    for b in backends:
        file = ledger.Ledger(b, native.isa(), again)
        for op in names:
            with progress(console) as bar:
                tally = _sweep(op, file, jobs, bar) if sample is None else sweep.sample(op, b, sample)
            file.keep(op, tally, sample is not None)
            missed |= tally.wrong > 0 or tally.ulp > ULPS["float32"]
            wrong = f", {tally.wrong_at:.9g} for one" if tally.wrong else ""
            console.print(f"{op:12s} {b:6s} {native.isa():9s} {ledger.cell(tally)}{wrong}")
    if write is not None:
        text, count = PLACE.subn(lambda m: f"{m[1]}{ledger.markdown(native.isas())}\n{m[2]}", write.read_text())
        if count != 1:
            raise typer.BadParameter(f"{write} has no place marked <!-- accuracy -->")
        write.write_text(text)
    raise typer.Exit(1 if missed else 0)


def _sweep(op: str, file: Ledger, jobs: int, bar: Callable[[int, int, str], None]) -> Tally:
    """Go on with one function until all numbers are done, keeping what is found now and then, and when interrupted."""
    from ..bench import sweep

    tally = so_far = file.swept.get(op, sweep.Tally())
    try:
        for k, tally in enumerate(sweep.sweep(op, file.backend, so_far, jobs)):
            bar(tally.inputs // sweep.BLOCK, sweep.INPUTS // sweep.BLOCK, f"{op} {file.backend}: {tally.ulp:.2f} ulp")
            if k % SAVE_EVERY == 0:
                file.keep(op, tally)
    finally:
        file.keep(op, tally)
    return tally
