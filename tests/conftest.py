"""What all tests share: the backends that must be there, the matrix of conformance at the end of the run."""
from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright
from conformance import SEED, expected_backends
from tilewright.core import capability, native


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"tilewright: {tilewright.__file__}; C kernels for {native.isa()} of {', '.join(native.isas()) or 'none'}",
            f"backends expected: {' '.join(expected_backends())}; TILEWRIGHT_TEST_SEED={SEED}"]


@pytest.fixture(params=[name for name in capability.BACKENDS if capability.reasons()[name] is None])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that can run here."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture
def child_env() -> dict[str, str]:
    """An environment in which a child process finds the same package as this one, with no setting of ours in force."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TILEWRIGHT_") or k == "TILEWRIGHT_CACHE_DIR"}
    env["PYTHONPATH"] = str(Path(tilewright.__file__).parents[1])
    return env


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print operation x kernel x ISA: how many cases ran, on what nothing could run and why."""
    cells: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "conformance" and report.when == "call":
                    op, column, ran, refused, failed = value
                    cell = cells[op, column]
                    cell[0] += ran
                    cell[1] += refused
                    cell[2] += failed
    if not cells:
        return
    columns = list(dict.fromkeys(column for _, column in cells))
    columns.sort(key=lambda c: (list(capability.BACKENDS).index(c.partition("@")[0].partition(":")[0]), c))
    width = max(len(op) for op, _ in cells) + 2
    terminalreporter.section("conformance: cases that ran, by kernel@ISA (-: no such kernel; -n: refused; !n: failed)")
    terminalreporter.write_line("".ljust(width) + "  ".join(columns))
    for op in dict.fromkeys(op for op, _ in cells):
        shown = []
        for column in columns:
            ran, refused, failed = cells.get((op, column), (0, 0, 0))
            text = f"{ran}" + f" -{refused}" * bool(refused) + f" !{failed}" * bool(failed) if ran or refused else "-"
            shown.append(text.rjust(len(column)))
        terminalreporter.write_line(op.ljust(width) + "  ".join(shown))
    for name, reason in capability.reasons().items():
        if reason is not None:
            terminalreporter.write_line(f"unavailable: {name}: {reason}")
