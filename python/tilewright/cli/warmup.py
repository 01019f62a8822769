"""`tilewright warmup`: compile Numba's kernels ahead of time, and say what took longest."""
from __future__ import annotations

import time
from typing import Annotated

import typer

SHOWN = 5  # of the slowest kernels
SLOW = 0.3  # seconds; what is read from the cache takes less


def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64, float16, bfloat16; several with commas.")] = "float32",
    backend: Annotated[str, typer.Option(help="Only numba has anything to compile.")] = "numba",
) -> None:
    """Compile every Numba kernel and keep it on disk, so that no call has to wait for it later."""
    from rich.console import Console

    from .. import config
    from .progress import progress

    console = Console(highlight=False, markup=False, soft_wrap=True)
    began: list[tuple[float, str]] = []
    with progress(console) as bar:

        def tell(done: int, total: int, what: str) -> None:
            began.append((time.perf_counter(), what))
            bar(done, total, what)

        count = config.warmup(backend, tuple(dtype.split(",")), progress=tell)
    began.append((time.perf_counter(), ""))
    took = [(after - start, what) for (start, what), (after, _) in zip(began, began[1:], strict=False)]
    console.print(f"{count} kernels are ready, after {began[-1][0] - began[0][0]:.1f} s")
    compiled = sorted((t for t in took if t[0] > SLOW), reverse=True)
    for seconds, what in compiled[:SHOWN]:
        console.print(f"{seconds:6.2f} s  {what}")
