"""`tilewright gpu-check`: what someone with a GPU runs once: are the kernels right there, and how fast are they."""
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..bench import Comparison
    from ..bench.gpu import Checked
    from ..bench.gpu_peers import Peer


def gpu_check(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Operations; all by default.")] = None,
    size: Annotated[str, typer.Option(help="Of what is timed: small, medium, large; several with commas.")]
        = "small,medium,large",
    most: Annotated[int | None, typer.Option(help="Check at most so many cases of a kernel and dtype.")] = None,
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE")] = Path("gpu-check.json"),
    markdown: Annotated[Path, typer.Option("--markdown", metavar="FILE")] = Path("gpu-check.md"),
) -> None:
    """Check every CUDA kernel on this machine's device, then time them beside PyTorch; leaves a JSON and a table.

    Each kernel is held against its operation's oracle, and a sample against the emulator. Exits with 1 where a result
    is out of its bound, before anything is timed; with 2 where there is no device.
    """
    from rich.console import Console

    from .. import bench
    from ..bench import comparison, gpu, gpu_peers, report
    from ..core import device, dispatch
    from ..core.errors import BackendUnavailable
    from .progress import progress

    if device.emulated():
        raise BackendUnavailable("gpu-check wants a real device: unset TILEWRIGHT_CUDA")
    dispatch.require("cuda")
    here = device.current()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{here.name}, compute capability {here.cc[0]}.{here.cc[1]}")
    with progress(console) as tell:
        checked = gpu.check(ops or (), most, tell)
    found: Comparison | None = None
    peers: dict[str, Peer] = {}
    wrong = [f"{c.op} {c.dtype} on {c.kernel}: {what}" for c in checked for what in c.wrong]
    if not wrong:
        sizes = tuple(size.split(","))
        with progress(console) as tell:
            found = bench.compare(ops or (), size=sizes, progress=tell)
        if (gone := gpu_peers.missing()) is None:
            for spec, _, dtype, case in comparison.cases(ops or (), sizes):
                if (peer := gpu_peers.measure(spec, case)) is not None:
                    peers[f"{spec.name} {case.label} {dtype}"] = peer
        else:
            console.print(f"no peers: {gone}")
    text = _markdown(f"{here.name}, compute capability {here.cc[0]}.{here.cc[1]}", checked, found, peers)
    content: dict[str, Any] = {
        "device": here.name, "compute_capability": here.cc, "machine": bench.machine(),
        "checked": [asdict(c) for c in checked], "comparison": None if found is None else bench.to_json(found),
        "peers": {name: asdict(peer) for name, peer in peers.items()}}
    json_file.write_text(json.dumps(content, indent=1) + "\n")
    markdown.write_text(text)
    console.print(text)
    for line in wrong:
        console.print(f"WRONG  {line}")
    for line in report.win_lines(found) if found is not None else ():
        console.print(line)
    console.print(f"written: {json_file}, {markdown}")
    raise typer.Exit(1 if wrong or (found is not None and found.wrong) else 0)


def _markdown(title: str, checked: list[Checked], found: Comparison | None, peers: dict[str, Peer]) -> str:
    """Two tables: what was checked, and the times."""
    from ..bench import report

    lines = [f"## {title}", "", "| kernel | dtype | cases | wrong | worst, of its bound | emulator's bits |",
             "|---|---|---|---|---|---|"]
    for c in checked:
        lines.append(f"| {c.op} {c.kernel} | {c.dtype} | {c.ran} | {len(c.wrong)} | {c.of_bound:.0%} | "
                     f"{c.same_bits}/{c.compared} |")
    if found is None:
        return "\n".join([*lines, "", "Not timed: results are wrong.", ""])
    heading, *rows = report.device_rows(found)
    lines += ["", report.conditions(found), "", "| " + " | ".join([*heading, "PyTorch", "PyTorch, cold"]) + " |",
              "|---" * (len(heading) + 2) + "|"]
    for row in rows:
        name = row[0].partition(", cuda")[0]
        peer = peers.get(name) or peers.get(f"{name} float32")
        beside = [report.time_text(t) for t in ((peer.kernel, peer.cold) if peer else (None, None))]
        lines.append("| " + " | ".join([*row, *beside]) + " |")
    return "\n".join([*lines, "", *report.win_lines(found), ""])
