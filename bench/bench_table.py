"""Every operation of the table on its own benchmark cases, on every backend that can run here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import kernels_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tilewright.bench.comparison import cases

    config = metafunc.config
    rows = [pytest.param(spec.name, case, kernel.values[0],
                         id=f"{spec.name}-{case.label}-{kernel.id}".replace(" ", "-"))
            for spec, _, _, case in cases((), config.getoption("--size").split(","))
            for kernel in kernels_of(spec.name, config.getoption("--ladder"))]
    metafunc.parametrize(("op", "case", "kernel"), rows)


def bench_kernel(op: str, case: Any, kernel: Any, measure: Callable[..., None]) -> None:
    measure(op, case, kernel)
