"""What a public call costs on small arrays, dispatch and checks included, beside NumPy's own."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw

rng = np.random.default_rng(0)
A, B, OUT = (rng.standard_normal((16, 16)).astype(np.float32) for _ in range(3))
CALLS: dict[str, dict[str, Callable[..., Any]]] = {
    "matmul 16x16x16": {"numpy itself": lambda out: np.matmul(A, B, out=out)},
    "tanh 16x16": {"numpy itself": lambda out: np.tanh(A, out=out)},
}
for backend in (name for name in tw.backends() if name != "cuda"):  # whose arrays are not these
    CALLS["matmul 16x16x16"][backend] = lambda out, backend=backend: tw.matmul(A, B, out=out, backend=backend)
    CALLS["tanh 16x16"][backend] = lambda out, backend=backend: tw.tanh(A, out=out, backend=backend)
EXPECTED = {"matmul 16x16x16": A.astype(np.float64) @ B, "tanh 16x16": np.tanh(A.astype(np.float64))}


@pytest.mark.parametrize(("what", "who"), [(what, who) for what, calls in CALLS.items() for who in calls])
def bench_call(benchmark: Any, facts: dict[str, Any], what: str, who: str) -> None:
    OUT.fill(np.nan)
    CALLS[what][who](OUT)
    np.testing.assert_allclose(OUT, EXPECTED[what], rtol=1e-4, atol=1e-4)
    benchmark.group = what
    benchmark.extra_info |= facts
    benchmark(CALLS[what][who], OUT)
