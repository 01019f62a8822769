"""`tilewright predict`: the least time of a call on a named device, from published peaks."""
from __future__ import annotations

from typing import Annotated

import typer


def predict(
    op: Annotated[str, typer.Argument(help="An operation, as matmul.")],
    shape: Annotated[list[str], typer.Argument(help="The shape of each input, as 512x1024 1024x256; labels as "
                                               "128:int64; or small, medium, large.")],
    device: Annotated[str, typer.Option(help="h100, a100, l4, rtx4090, or a TOML file like those.")] = "h100",
    dtype: Annotated[str, typer.Option(help="Of the inputs.")] = "float32",
) -> None:
    """Predict a call's time on a CUDA device: the roofline of its published peaks, beside the CPU's measured time."""
    from rich.console import Console
    from rich.table import Table

    from ..bench import predict as p
    from ..bench.report import time_text

    found = p.predict(op, shape, device, dtype)
    there = found.device
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 100)
    console.print(f"{op} {' '.join(shape)}, {dtype}, on {there.name}: {found.flops:.4g} operations, "
                  f"{found.nbytes:.4g} bytes at least\n")
    t = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "time", "", ""):
        t.add_column(heading, justify="right" if heading == "time" else "left")
    predicted = [(f"arithmetic, {found.units}", found.compute), ("device memory", found.memory),
                 ("roofline, the longer of them", found.roofline),
                 (f"instructions issued, {found.issued}".rstrip(", "), found.issue),
                 ("transfers of inputs and results", found.transfer)]
    for what, seconds in predicted:
        t.add_row(what, "not known" if seconds is None else time_text(seconds), "predicted",
                  f"{found.cpu / seconds:.3g} times as fast as the CPU" if found.cpu and seconds else "")
    t.add_row("here, on the CPU", time_text(found.cpu), f"measured, {found.cpu_kernel}" if found.cpu else "", "")
    console.print(t)
    console.print(f"\nbound by {found.bound}; a launch, some 10 to 20 us from Python, is not in these times")
    for one in found.launches:
        part = f"{one.matrix} on matrices" if one.matrix else f"{one.ffma:.0%} FFMA"
        loop = f", hot loop of {one.hot} with {part}" if one.hot else ""
        console.print(f"launches {one.kernel}: {one.warps} warps, {one.registers} registers, "
                      f"{one.instructions} instructions{loop}")
    if found.unknown:
        console.print(f"instructions not known: {found.unknown}")
    console.print(f"peaks from: {'; '.join(there.sources)}")
