"""CUDA's kernels on arrays that are on the device: the queueing and the work, until the device has done it.

The parts of a call, copies among them, are in the results' extra information. Runs where there is a device.
"""
from __future__ import annotations

import dataclasses
from typing import Any

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tilewright.bench.comparison import cases
    from tilewright.core import registry

    rows = [pytest.param(spec.name, case, kernel, id=f"{spec.name}-{case.label}-{kernel.variant}".replace(" ", "-"))
            for spec, _, _, case in cases((), metafunc.config.getoption("--size").split(","))
            for kernel in registry.variants(spec.name, "cuda")
            if not kernel.variant or metafunc.config.getoption("--ladder")] if why_not() is None else []
    metafunc.parametrize(("op", "case", "kernel"), rows or [pytest.param("", None, None, id="no-device")])


def why_not() -> str | None:
    """Why nothing can be timed here."""
    from tilewright.core import capability, device

    return "emulated: nothing is timed" if device.emulated() else capability.reasons()["cuda"]


def bench_resident(op: str, case: Any, kernel: Any, benchmark: Any, facts: dict[str, Any]) -> None:
    from tilewright.bench import Expectation, gpu
    from tilewright.core import device, dispatch, registry

    if (reason := why_not()) is not None:
        pytest.skip(reason)
    expectation = Expectation(registry.spec(op), case)
    with dispatch.transfers():
        if (reason := dispatch.why_not(kernel, expectation.fresh())) is not None:
            pytest.skip(reason)
        accuracy = expectation.check(kernel)
    assert accuracy.wrong is None, accuracy.wrong
    run = gpu.resident(kernel, expectation)[0]
    here = device.current()

    def whole() -> None:
        run()
        here.synchronize()

    benchmark.group = f"{op} {case.label}, on {here.name}"
    benchmark(whole)
    benchmark.extra_info |= facts | {"device": here.name, **dataclasses.asdict(gpu.measure(kernel, expectation))}
