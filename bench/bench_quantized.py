"""What quantized weights save: products in float32, and the same with integers, on each backend.

One row over weights that lie beyond the caches, where memory is all; and a square product, where dot products are all.
`python bench/bench_quantized.py` prints each beside float32's on the same backend, on one thread.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.bench import Expectation, contestants, interleaved, roof
from tilewright.bench.accuracy import poisoned
from tilewright.bench.report import part_text, ratio_text, time_text
from tilewright.core import registry
from tilewright.core.registry import Case

BACKENDS = ("c", "numba")
NUMBERS = ("float32", "int8", "int4")  # the others are held against the first
ROW, SQUARE = "1x8192x8192, weights only", "1024x1024x1024, packed"  # MxNxK
WAYS = {ROW: {"float32": "linear", "int8": "quantized_linear", "int4": "quantized_linear"},
        SQUARE: {"float32": "matmul", "int8": "matmul_integer"}}


@cache
def case(what: str, numbers: str) -> Case:
    """The arguments. The row's weights are 256 MiB of float32, 64 of int8, 34 of int4 with its scales."""
    m, n, k = map(int, what.partition(",")[0].split("x"))
    rng = np.random.default_rng(0)
    if what == SQUARE and numbers == "int8":
        a, b = rng.integers(0, 256, (m, k), np.uint8), rng.integers(-128, 128, (k, n), np.int8)
        return Case((a, tw.pack(b), np.uint8(128), None))
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
    if what == SQUARE:
        return Case((x, tw.pack(w.T)))
    quantized = {"float32": lambda: w, "int8": lambda: tw.quantize_weight(w, method="weight-only"),
                 "int4": lambda: tw.quantize_weight(w, 4, 128)}
    return Case((x, quantized[numbers](), None, None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("what", "numbers", "kernel"), [
        pytest.param(what, numbers, kernel, id=f"{what}-{numbers}-{kernel.backend}".replace(" ", "-"))
        for what, ways in WAYS.items() for numbers, op in ways.items()
        for kernel in contestants(registry.spec(op))[0] if kernel.backend in BACKENDS])


def bench_quantized(what: str, numbers: str, kernel: Any, measure: Callable[..., None]) -> None:
    measure(WAYS[what][numbers], case(what, numbers), kernel, what)


def row(what: str, backend: str) -> list[str]:
    """Times, how many times float32's speed, and parts of the measured peaks."""
    runs: dict[str, Callable[[], object]] = {}
    roofs = {}
    for numbers, op in WAYS[what].items():
        spec = registry.spec(op)
        kernel, expectation = registry.kernels(spec.family, backend)[op, ""], Expectation(spec, case(what, numbers))
        if wrong := expectation.check(kernel).wrong:
            raise ValueError(f"{op} on {backend}: {wrong}")
        call = expectation.fresh()
        outs = call.kernel_outs(poisoned(call))
        runs[numbers] = lambda kernel=kernel, call=call, outs=outs: kernel.run(call, outs)
        roofs[numbers] = roof(spec, call)
    times = dict(zip(runs, interleaved(list(runs.values())), strict=True))
    base = median(times[NUMBERS[0]])
    cells = []
    for numbers in NUMBERS:
        if numbers not in times:
            cells.append("-")
            continue
        seconds = median(times[numbers])
        against = f", **{ratio_text(base / seconds)}**" if numbers != NUMBERS[0] else ""
        cells.append(f"{time_text(seconds)}{against}, {part_text(roofs[numbers].part(seconds))}")
    return [what, backend, *cells]


def main() -> None:
    print("| | backend |", *(f"{numbers} |" for numbers in NUMBERS))
    print("|---|---|" + "---|" * len(NUMBERS))
    with tw.threads(1):
        for what in WAYS:
            for backend in (name for name in BACKENDS if name in tw.backends()):
                print("|", " | ".join(row(what, backend)), "|")


if __name__ == "__main__":
    main()
