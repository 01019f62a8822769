"""Write the tables of README.md and docs/PERFORMANCE.md from runs of `tilewright compare` on this machine.

    python bench/report.py [--threads N] [--save FOLDER]       (about four minutes; --save keeps the runs as JSON)

Each run is a process of its own: idle threads of one would take CPUs from the next, and BLAS reads its number once.
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
from tilewright.bench.report import mean_ratios

ROOT = Path(__file__).resolve().parents[1]
README_OPS = ("matmul", "linear", "gelu", "softmax", "layer_norm", "cross_entropy", "dropout", "embedding",
              "adamw_step")
PRODUCTS = ("matmul", "linear", "linear_backward")


def run(*args: str) -> bench.Comparison:
    """One `tilewright compare` as a process."""
    print("tilewright compare", *args, file=sys.stderr)
    command = [sys.executable, "-m", "tilewright", "compare", *args, "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return bench.from_json(json.loads(done.stdout))


def put(file: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    whole = file.read_text()
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    new, count = place.subn(lambda m: f"{m[1]}{text}\n{m[2]}", whole)
    if count != 1:
        raise SystemExit(f"{file.name}: no place marked {name!r}")
    file.write_text(new)


def section(found: bench.Comparison) -> str:
    """A table with the conditions it was taken under, and the mean ratios."""
    means = "; ".join(f"{name} {ratio:.3g}" for name, (ratio, _) in mean_ratios(found.results).items())
    return (f"{bench.conditions(found)} Geometric means of the ratios to NumPy: {means}.\n\n"
            f"{bench.markdown(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the last table")
    parser.add_argument("--save", type=Path, help="keep the runs here")
    args = parser.parse_args()
    runs = {
        "medium": run("--size", "medium"),
        "small": run("--size", "small"),
        "ladder": run(*PRODUCTS, "--size", "medium", "--ladder"),
        "threads": run(*PRODUCTS, "--size", "large", "--threads", str(args.threads)),
    }
    for name, found in runs.items():
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            (args.save / f"{name}.json").write_text(json.dumps(bench.to_json(found), indent=1) + "\n")
        put(ROOT / "docs/PERFORMANCE.md", name, section(found))
    short = replace(runs["medium"], results=[r for r in runs["medium"].results if r.op in README_OPS])
    put(ROOT / "README.md", "results", section(short))


if __name__ == "__main__":
    main()
