"""`tilewright train`: learn digits, MNIST or a table of the user's with an MLP."""
from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .train_run import Options

MAY_CHANGE = ("epochs", "backend")  # on resuming; all else is what the checkpoint says


def train(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(help="digits, mnist, or a .csv, .csv.gz or .npy FILE.")],
    backend: Annotated[str, typer.Option(help="auto, c, numba or numpy.")] = "auto",
    layers: Annotated[str, typer.Option(help="Sizes of the hidden layers.")] = "256,128",
    activation: Annotated[str, typer.Option(help="relu, gelu, silu, tanh, ...")] = "gelu",
    norm: Annotated[str, typer.Option(help="none, layer or rms, before each activation.")] = "layer",
    dropout: Annotated[float, typer.Option(help="Probability, after each activation.")] = 0.2,
    optimizer: Annotated[str, typer.Option(help="sgd (momentum 0.9), adam or adamw.")] = "adam",
    lr: Annotated[float | None,
                  typer.Option(help="Learning rate; 0.05 for sgd and 0.002 for the others if not given.")] = None,
    schedule: Annotated[str, typer.Option(help="none, step, exponential or cosine (with warm-up).")] = "cosine",
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 25,
    batch: Annotated[int, typer.Option(help="Rows in a step.")] = 32,
    seed: Annotated[int, typer.Option(help="Of weights, split, order and dropout.")] = 0,
    target: Annotated[str, typer.Option(help="FILE's column of labels: its name or number, -1 is the last.")] = "-1",
    save: Annotated[str | None, typer.Option(help="Write a checkpoint here after every epoch (safetensors).")] = None,
    resume: Annotated[str | None, typer.Option(help="Continue from a checkpoint, with its options.")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw loss and accuracy into this .png file.")] = None,
) -> None:
    """Train an MLP and report its accuracy. Ctrl-C saves the run and says how to resume it, to the bit."""
    from rich.console import Console

    from ..core.errors import TilewrightError
    from . import train_report
    from .train_data import load
    from .train_run import Options, Run, stopping_on_ctrl_c, stored_options

    given = {f.name: ctx.params[f.name] for f in fields(Options)}
    try:
        options = Options(**given) if resume is None else _continued(ctx, given, stored_options(resume), resume)
        if plot is not None:
            train_report.pyplot()  # better to learn now than after the training that it is missing
        rows = load(options.data, options.target, options.seed)
        run = Run(options, rows)
        if resume is not None:
            run.resume(resume)
        console = Console()
        with stopping_on_ctrl_c(run), train_report.Reporter(run, console) as reporter:
            reporter.line(train_report.title(run))

            def after_epoch(run: Run) -> None:
                reporter.epoch(run)
                if save is not None:
                    run.save(save)

            run.train(reporter.step, after_epoch)
        if run.interrupted and run.batches.epoch < options.epochs:
            path = save or resume or f"tilewright-{rows.name}.safetensors"
            run.save(path)
            typer.echo(f"interrupted in epoch {run.batches.epoch + 1}, "
                       f"after {run.batches.position} of {len(run.batches)} steps; saved to {path}\n"
                       f"resume with: tilewright train {shlex.quote(options.data)} --resume {shlex.quote(path)}")
            raise typer.Exit(130)
        typer.echo("\n" + train_report.summary(run))
        if save is not None:
            run.save(save)
        if plot is not None:
            train_report.plot(run, plot)
    except TilewrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _continued(ctx: typer.Context, given: dict[str, Any], stored: Options, path: str) -> Options:
    """The checkpoint's options, with what may change taken from the command line."""
    from ..core.errors import ArgumentError

    for name, value in given.items():
        source = ctx.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or value == getattr(stored, name):
            continue
        if name not in MAY_CHANGE:
            what = "the data is" if name == "data" else f"--{name} is"
            raise ArgumentError(f"{path}: was made with {getattr(stored, name)!r} where {what} {value!r}; a resumed "
                                f"run keeps its options (only {', '.join('--' + n for n in MAY_CHANGE)} may change)")
        stored = replace(stored, **{name: value})
    return stored
