"""`tilewright warmup`: compile Numba's kernels ahead of time, and say what took longest."""
from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

SHOWN = 5  # of the functions that took longest


def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64, float16, bfloat16; several with commas.")] = "float32",
    backend: Annotated[str, typer.Option(help="numba or cuda; the others have nothing to compile.")] = "numba",
) -> None:
    """Compile every kernel of Numba, and its door, or of CUDA, and keep it on disk, so that no call waits for that."""
    from rich.console import Console

    from .. import config
    from .progress import progress

    console = Console(highlight=False, markup=False, soft_wrap=True)
    began = time.perf_counter()
    with progress(console) as bar, _compile_seconds(backend) as compiled:
        count = config.warmup(backend, tuple(dtype.split(",")), progress=bar)
    console.print(f"{count} kernels are ready, after {time.perf_counter() - began:.1f} s")
    if compiled:
        console.print(f"{len(compiled)} functions compiled in {sum(compiled.values()):.1f} s; the slowest:")
    for function, seconds in sorted(compiled.items(), key=lambda item: -item[1])[:SHOWN]:
        console.print(f"{seconds:6.2f} s  {function:.100}")


def _compile_seconds(backend: str) -> AbstractContextManager[dict[str, float]]:
    """Seconds by function; nothing where there is no Numba to compile them, which `config.warmup` will say."""
    from ..core import dispatch

    if backend != "numba" or dispatch.unavailable(backend) is not None:
        return nullcontext({})
    from ..kernels.vector.timing import compile_seconds
    return compile_seconds()
