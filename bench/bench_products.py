"""Products by shape: square, few rows, tall and narrow, the layers of an MLP, batches; (M, N, K), f32 and f64."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import kernels_of

SHAPES = {
    "square": [(16, 16, 16), (64, 64, 64), (128, 128, 128), (512, 512, 512)],
    "skinny": [(1, 1024, 1024), (8, 4096, 1024), (2000, 10, 512), (4096, 64, 64), (64, 64, 4096)],
    "layer": [(128, 512, 784), (128, 10, 512), (64, 3072, 768), (64, 768, 3072)],
}
BATCHES = [(64, 32, 32, 32), (12, 128, 128, 64), (8, 128, 64, 128)]  # (B, M, N, K)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tilewright.core.registry import Case

    rng = np.random.default_rng(0)
    rows = []

    def add(op: str, kind: str, shape: tuple[int, ...], dtype: str, make: Callable[..., Any]) -> None:
        case = Case(make(lambda *s: rng.standard_normal(s).astype(dtype)), label=f"{kind} {'x'.join(map(str, shape))}")
        rows.extend(pytest.param(op, case, k.values[0], id=f"{op}-{case.label}-{dtype}-{k.id}".replace(" ", "-"))
                    for k in kernels_of(op, metafunc.config.getoption("--ladder")))

    for dtype in ("float32", "float64"):
        for kind, shapes in SHAPES.items():
            for m, n, k in shapes:
                if kind == "layer":
                    add("linear", kind, (m, n, k), dtype, lambda new, m=m, n=n, k=k: (new(m, k), new(n, k), new(n)))
                else:
                    add("matmul", kind, (m, n, k), dtype, lambda new, m=m, n=n, k=k: (new(m, k), new(k, n)))
        for b, m, n, k in BATCHES:
            add("matmul", "batch", (b, m, n, k), dtype, lambda new, b=b, m=m, n=n, k=k: (new(b, m, k), new(b, k, n)))
    metafunc.parametrize(("op", "case", "kernel"), rows)


def bench_product(op: str, case: Any, kernel: Any, measure: Callable[..., None]) -> None:
    measure(op, case, kernel)
