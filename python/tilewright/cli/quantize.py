"""`tilewright quantize`: a trained model with small integers for weights, and what that costs and gains."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .train_run import Run

CALIBRATION = 512  # rows of training
EPOCHS = 10  # of a model that is trained for the occasion


def quantize(
    model: Annotated[str | None, typer.Argument(
        metavar="[MODEL]", help="A checkpoint of `tilewright train`; without one a small MLP is trained.")] = None,
    data: Annotated[str | None, typer.Option(help="digits or mnist; a checkpoint brings its own. [default: digits]",
                                             show_default=False)] = None,
    method: Annotated[str, typer.Option(help="dynamic, static, weight-only, or all.")] = "all",
    observer: Annotated[str, typer.Option(help="Of static: minmax, percentile, entropy or mse.")] = "minmax",
    bits: Annotated[int, typer.Option(help="Of weights and static inputs: 8 or 4.")] = 8,
    group_size: Annotated[int | None, typer.Option(help="weight-only: columns that share a scale.")] = None,
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One scale a layer, not one an output.")] = False,
    skip: Annotated[list[str] | None, typer.Option(help="A layer that stays float; may be given again.")] = None,
    smooth: Annotated[float | None, typer.Option(help="Balance inputs and weights first; 0.5 is usual.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the quantized model here (safetensors).")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw accuracy against size and latency: a .png FILE.")] = None,
    seed: Annotated[int, typer.Option(help="Of the model that is trained.")] = 0,
) -> None:
    """Quantize a model and report, layer by layer and as a whole, what became of it.

    `--method all` does so in every way: each method with 8 bits, and 4 bits in groups of 32 columns.
    """
    from rich.console import Console

    from .. import quant
    from ..core.errors import ArgumentError
    from . import quantize_report, train_report
    from .compare import PLAIN_WIDTH

    if method == "all" and out is not None:
        raise ArgumentError("--out takes one model: name its --method")
    if method == "all" and (bits != 8 or group_size is not None):
        raise ArgumentError("--bits and --group-size are those of one way, and without --method there are all: name it")
    if plot is not None:
        train_report.pyplot()  # better to learn now than after the work that it is missing
    ways: dict[str, dict[str, Any]] = {f"{name} int8": {"method": name} for name in quant.METHODS}
    ways["weight-only int4"] = {"method": "weight-only", "bits": 4, "group_size": 32}
    if method != "all":
        ways = {f"{method} int{bits}": {"method": method, "bits": bits, "group_size": group_size}}
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    run = trained(data or "digits", seed) if model is None else from_checkpoint(model, data)
    rows = run.rows
    console.print(quantize_report.title(run), highlight=False)
    found = {}
    for name, way in ways.items():
        quantized = quant.quantize(
            run.model, calibration=rows.x_train[:CALIBRATION], observer=observer, per_channel=not per_tensor,
            skip=skip or (), smooth=smooth, **way)
        found[name] = quant.report(run.model, quantized, rows.x_test, rows.y_test)
        if out is not None:
            quant.save(quantized, out)
    for part in (quantize_report.layers(found), "", quantize_report.models(found)):
        console.print(part, highlight=False)
    if plot is not None:
        quantize_report.plot(found, plot)


def trained(data: str, seed: int) -> Run:
    """An MLP that has learned digits or mnist in a few seconds."""
    from ..core.errors import ArgumentError
    from .train_data import load
    from .train_run import Options, Run

    if data not in ("digits", "mnist"):
        raise ArgumentError(f"--data is digits or mnist, not {data!r}; for data of your own give a checkpoint of "
                            "`tilewright train FILE --save MODEL`")
    options = Options(data, layers="256,128", activation="relu", norm="none", dropout=0.0, epochs=EPOCHS,
                      seed=seed)
    run = Run(options, load(data, options.target, seed))
    run.train(lambda run: None, lambda run: None)
    return run


def from_checkpoint(path: str, data: str | None) -> Run:
    """The run that `tilewright train` saved."""
    from ..core.errors import ArgumentError
    from .train_data import load
    from .train_run import Run, stored_options

    options = stored_options(path)
    if data not in (None, options.data):
        raise ArgumentError(f"{path}: was trained on {options.data!r} and is tested on that, not on {data!r}")
    run = Run(options, load(options.data, options.target, options.seed))
    run.resume(path)
    return run
