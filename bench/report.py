"""Write the tables of README.md and docs/PERFORMANCE.md from runs of `tilewright compare` on this machine.

    python bench/report.py [TABLE ...] [--threads N] [--runs N]      (some three minutes for a run of all)

Of several runs each case is taken, with all its kernels, from the one in which its times scattered least. Each run is a
process of its own: BLAS reads its number of threads once. On several threads a busy CPU ruins every time, so that table
is written on an idle machine alone. The table `peaks` is measured on each instruction set, `quantized` is what
bench_quantized.py prints.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tilewright import bench
from tilewright.bench.report import groups, mean_ratios
from tilewright.core import native

ROOT = Path(__file__).resolve().parents[1]
PERFORMANCE = ROOT / "docs/PERFORMANCE.md"
README_OPS = ("matmul", "linear", "gelu", "softmax", "layer_norm", "cross_entropy", "dropout", "embedding",
              "adamw_step", "quantized_linear")
TABLES = {  # arguments of `tilewright compare`
    "threads": ("matmul", "linear", "linear_backward", "--size", "large"),
    "ladder": ("matmul", "--ladder"),
    "small": ("--size", "small"),
    "medium": ("--size", "medium"),
}
PEAKS, QUANTIZED = "peaks", "quantized"
PEAK_CODE = """
import tilewright as tw
from tilewright import bench
from tilewright.core import native
with tw.threads(1):
    fma, dot = bench.fma_peak(), bench.dot_peak()
print(f"| {native.isa()} | {fma / 1e9:.0f} GFLOP/s | {native.int8_isa()} | {dot / 1e9:.0f} GOP/s | {dot / fma:.1f}x |")
"""
BUSY = "Not measured: other work was running on the CPUs."


def calmest(runs: int, *args: str) -> bench.Comparison:
    """One comparison out of several runs: each case from the run in which the spread of its times was smallest."""
    found = [run(*args) for _ in range(runs)]
    by_case = zip(*(groups(f.results) for f in found), strict=True)
    results = [min((rows for _, rows in same), key=lambda rows: max(r.spread or 0.0 for r in rows)) for same in by_case]
    return replace(found[0], results=[r for rows in results for r in rows])


def run(*args: str) -> bench.Comparison:
    """One `tilewright compare` as a process."""
    print("tilewright compare", *args, file=sys.stderr)
    return bench.from_json(json.loads(printed("-m", "tilewright", "compare", *args, "--json", "-")))


def printed(*args: str, **environment: str) -> str:
    """What Python prints in a process of its own."""
    return subprocess.run([sys.executable, *args], stdout=subprocess.PIPE, check=True, text=True,
                          env=os.environ | environment).stdout.strip()


def peaks() -> str:
    """What each instruction set of this machine reaches in registers: float32 multiply-adds, dot products of int8."""
    rows = [printed("-c", PEAK_CODE, TILEWRIGHT_ISA=isa) for isa in native.int8_isas()]
    return "\n".join(["| floats | float32 | integers | int8 | to float32 |", "|---|---|---|---|---|", *rows])


def put(file: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    whole = file.read_text()
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    new, count = place.subn(lambda m: f"{m[1]}{text}\n{m[2]}", whole)
    if count != 1:
        raise SystemExit(f"{file.name}: no place marked {name!r}")
    file.write_text(new)


def whole(found: bench.Comparison) -> bench.Comparison:
    """Without the parts of fused operations."""
    return replace(found, results=[r for r in found.results if not r.part_of])


def section(found: bench.Comparison) -> str:
    """A table with the conditions it was taken under, and the mean ratios."""
    means = "; ".join(f"{name} {ratio:.3g}" for name, (ratio, _) in mean_ratios(found.results).items())
    return (f"{bench.conditions(found)} Geometric means of the ratios to NumPy: {means}.\n\n"
            f"{bench.markdown(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = (*TABLES, PEAKS, QUANTIZED)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(tables)}; all by default")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the table `threads`")
    parser.add_argument("--runs", type=int, default=1, help="of each table")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(tables):
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    for name in args.tables or tables:
        if name in (PEAKS, QUANTIZED):
            put(PERFORMANCE, name, peaks() if name == PEAKS else printed(str(ROOT / "bench/bench_quantized.py")))
            continue
        what = TABLES[name]
        if name == "threads":
            if os.getloadavg()[0] > 0.5 * args.threads:
                put(PERFORMANCE, name, BUSY)
                continue
            what = (*what, "--threads", str(args.threads))
        found = calmest(args.runs, *what)
        if name == "small":
            found = whole(found)
        put(PERFORMANCE, name, section(found))
        if name == "medium":
            short = replace(found, results=[r for r in found.results if r.op in README_OPS])
            put(ROOT / "README.md", "results", section(whole(short)))


if __name__ == "__main__":
    main()
