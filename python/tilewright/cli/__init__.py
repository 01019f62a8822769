"""The command line: `tilewright info | compare | train | bench | doctor`, also `python -m tilewright`.

Commands import what they need when they run: `compare` must be able to set the number of BLAS threads before NumPy is loaded.
"""
from __future__ import annotations

import typer

from .bench import bench
from .compare import compare
from .doctor import doctor
from .info import info
from .train import train

app = typer.Typer(name="tilewright", help="Hand-written kernels in Numba, C and CUDA behind one Python call.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(info)
app.command()(compare)
app.command()(train)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)
app.command()(doctor)


def main() -> None:
    """Entry point of the console script. An error that tilewright raises on purpose is one line, not a traceback."""
    from ..core.errors import TilewrightError

    try:
        app(prog_name="tilewright")
    except TilewrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


__all__ = ["app", "main"]
