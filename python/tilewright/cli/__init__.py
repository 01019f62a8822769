"""The command line, also as `python -m tilewright`:

    tilewright info | compare | train | quantize | bench | accuracy | cuda-report | predict | gpu-check |
               tune | warmup | doctor

Commands import what they need when they run: `compare` sets the number of BLAS threads before NumPy is loaded.
"""
from __future__ import annotations

import typer

from . import accuracy, bench, compare, cuda_report, doctor, gpu_check, info, predict, quantize, train, tune, warmup

app = typer.Typer(name="tilewright", help="Hand-written kernels in C, Numba and CUDA behind one Python call.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(info.info)
app.command()(compare.compare)
app.command()(train.train)
app.command()(quantize.quantize)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench.bench)
app.command()(accuracy.accuracy)
app.command("cuda-report")(cuda_report.cuda_report)
app.command("gpu-check")(gpu_check.gpu_check)
app.command()(predict.predict)
app.command()(tune.tune)
app.command()(warmup.warmup)
app.command()(doctor.doctor)


def main() -> None:
    """Entry point of the console script. An error that tilewright raises on purpose is one line, not a traceback."""
    from ..core.errors import TilewrightError

    try:
        app(prog_name="tilewright")
    except TilewrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


__all__ = ["app", "main"]
