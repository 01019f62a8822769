"""What the suites share: options, threads, and the way a kernel becomes a benchmark (checked first, then timed)."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--size", default="small,medium", help="small, medium or large; several with commas")
    parser.addoption("--threads", type=int, default=1, help="of every contestant, NumPy's BLAS included")
    parser.addoption("--ladder", action="store_true", help="also the steps that lead to the kernels")


def pytest_configure(config: pytest.Config) -> None:
    if "numpy" not in sys.modules:
        from tilewright.cli.blas import set_blas

        set_blas(config.getoption("--threads"))


@pytest.fixture(scope="session", autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One number of threads for all contestants."""
    from tilewright.bench.comparison import one_number_of_threads

    n = request.config.getoption("--threads")
    with one_number_of_threads(n):
        yield n


@pytest.fixture(scope="session")
def facts(threads: int) -> dict[str, Any]:
    """What a saved result is read with."""
    from tilewright.bench import machine

    found = machine()
    return {name: found[name] for name in ("cpu", "isa", "versions", "blas")} | {"threads": threads}


@pytest.fixture
def measure(benchmark: Any, facts: dict[str, Any]) -> Callable[..., None]:
    """measure(op, case, kernel): check the kernel on the case, then time it, in normal form and in a group."""
    from tilewright.bench import Expectation, comparison, roof
    from tilewright.bench.accuracy import poisoned
    from tilewright.core import dispatch, registry

    def run(op: str, case: Any, kernel: Any, group: str = "") -> None:
        spec = registry.spec(op)
        expectation = Expectation(spec, case)
        call = expectation.fresh()
        with dispatch.transfers():
            reason = dispatch.why_not(kernel, call)
        if reason is not None:
            pytest.skip(reason)
        accuracy = expectation.check(kernel)
        assert accuracy.wrong is None, accuracy.wrong
        if comparison.untimed(kernel):
            pytest.skip("emulated: checked, and not timed")
        outs = call.kernel_outs(poisoned(call))
        benchmark.group = group or f"{op} {case.label} {call.dtype}"
        benchmark(dispatch.run, kernel, call, outs)
        if benchmark.stats is not None:  # None with --benchmark-disable
            under, seconds = roof(spec, call), benchmark.stats.stats.median
            benchmark.extra_info |= facts | {
                "kernel": dispatch.row_name(kernel), "how": dispatch.how(kernel, call), under.unit: under.rate(seconds),
                "of_peak": under.part(seconds), "error_of_bound": accuracy.of_bound, "error_ulp": accuracy.ulp,
                "error_absolute": accuracy.absolute}

    return run


def kernels_of(op: str, ladder: bool) -> list[Any]:
    """The kernels of an operation as pytest parameters named after their backends."""
    from tilewright.bench import contestants
    from tilewright.core import dispatch, registry

    found, _ = contestants(registry.spec(op), ladder)
    return [pytest.param(kernel, id=dispatch.row_name(kernel)) for kernel in found]
