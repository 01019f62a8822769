"""Are several threads ever slower than one? Products of every size, and elementwise and row operations.

    python bench/threads.py [--threads 2] [--backend c] [--write]      (ten seconds)

One thread, several, and one thread once more take turns: what the two ones differ by is noise, and a cell is bold where
several threads are slower by more. --write puts the tables into docs/PERFORMANCE.md.
"""
from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
from report import PERFORMANCE, put
from rich.console import Console
from rich.markdown import Markdown

from tilewright.bench import host
from tilewright.bench.timing import speedup, under
from tilewright.cli.progress import progress
from tilewright.core import registry, threads

ROUNDS = 9
SLOWER = 0.05  # beyond noise, and the cell is marked
SQUARES = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
OTHERS = ((1, 1024, 1024), (8, 256, 256), (8, 4096, 1024), (64, 3072, 768), (128, 512, 784), (2000, 10, 512),
          (4096, 64, 64), (64, 64, 4096))
ROWS = (4, 16, 64, 256, 1024, 4096)  # 16 KiB to 16 MiB
TABLES: dict[str, tuple[tuple[str, ...], dict[str, tuple[int, ...]]]] = {  # heading: a row each, a column each
    "m = n = k": (("matmul",), {str(n): (n, n, n) for n in SQUARES}),
    "m, n, k": (("matmul",), {", ".join(map(str, shape)): shape for shape in OTHERS}),
    "rows of 1024": (("relu", "gelu", "tanh", "softmax", "layer_norm"), {str(n): (n, 1024) for n in ROWS}),
}


def speedups(op: str, shape: tuple[int, ...], backend: str, n: int) -> tuple[float, float]:
    """How many times as fast n threads are as one, and a second run of one thread, which should be 1."""
    rng = np.random.default_rng(0)
    of_many = {"matmul": [shape[::2], shape[:0:-1]], "layer_norm": [shape, shape[1:], shape[1:]]}  # (m, k), (k, n)
    sizes = of_many.get(op, [shape])
    spec = registry.spec(op)
    kernel = registry.kernels(spec.family, backend)[op, ""]
    call = spec.prepare(tuple(rng.standard_normal(size, np.float32) for size in sizes), {})
    outs = call.kernel_outs([np.empty(size, dtype) for size, dtype in call.outputs])
    one, many = (partial(threads.set_num_threads, number) for number in (1, n))
    before = threads.get_num_threads()
    try:
        first, several, again = under([one, many, one], partial(kernel.run, call, outs), ROUNDS)
    finally:
        threads.set_num_threads(before)
    return speedup(first, several), speedup(first, again)


def cell(ratio: float, noise: float) -> str:
    """Marked where several threads are slower by more than noise."""
    return f"{ratio:.2f}" if ratio > 1 - SLOWER - abs(noise - 1) else f"**{ratio:.2f}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=host.cpus())
    parser.add_argument("--backend", default="c")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    console = Console()
    console.width = max(console.width, 130)
    work = [(op, shape) for ops, columns in TABLES.values() for op in ops for shape in columns.values()]
    found: dict[Any, str] = {}
    with progress(console) as bar:
        for done, (op, shape) in enumerate(work):
            bar(done, len(work), f"{op} {shape}")
            found[op, shape] = cell(*speedups(op, shape, args.backend, args.threads))
    lines = [f"{host.cpu_name()}, {args.backend}, {args.threads} threads: how many times as fast as one."]
    for heading, (ops, columns) in TABLES.items():
        lines += ["", f"| {heading} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {op} | {' | '.join(found[op, shape] for shape in columns.values())} |" for op in ops]
    text = "\n".join(lines)
    console.print(Markdown(text))
    if args.write:
        put(PERFORMANCE, "sweep", text)


if __name__ == "__main__":
    main()
