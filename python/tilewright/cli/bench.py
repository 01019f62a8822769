"""`tilewright bench`: the pytest-benchmark suite of a source checkout."""
from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

SUITE = "bench/pytest.ini"


def bench(
    ctx: typer.Context,
    size: Annotated[str, typer.Option(help="small, medium or large; several with commas.")] = "small,medium",
    threads: Annotated[int, typer.Option(min=1, help="For every contestant.")] = 1,
    save: Annotated[bool, typer.Option(help="Keep the results under .benchmarks/, to compare with later ones.")] = True,
) -> None:
    """Run the benchmark suite; what else is given goes to pytest (-k matmul, --benchmark-compare, ...)."""
    root = checkout()
    if root is None:
        typer.echo(f"error: the suite is part of the source tree: run this in a checkout (no {SUITE} here)", err=True)
        raise typer.Exit(2)
    if importlib.util.find_spec("pytest_benchmark") is None:
        typer.echo("error: the suite needs pytest-benchmark: pip install '.[bench]'", err=True)
        raise typer.Exit(2)
    keep = ["--benchmark-autosave"] if save and not any(a.startswith("--benchmark-disable") for a in ctx.args) else []
    options = [f"--size={size}", f"--threads={threads}", *keep, *ctx.args]
    command = [sys.executable, "-m", "pytest", str(root / "bench"), *options]
    raise typer.Exit(subprocess.run(command).returncode)


def checkout() -> Path | None:
    """The source tree: the one we stand in, else the one this package is imported from."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / SUITE).exists():
            return root
    return None
