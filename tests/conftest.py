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
from tilewright.core import capability, native, registry


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
    """Print operation x backend and ISA: how many cases ran, and why there is no column for a backend."""
    cells: dict[str, dict[str, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(4, int)))
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        for name, value in getattr(report, "user_properties", ()):
            if name == "conformance" and report.when == "call":
                op, column, *counts = value
                cells[op][column] += counts
    if not cells:
        return
    found = {column for row in cells.values() for column in row}
    columns = [c for name in capability.BACKENDS for c in sorted(found) if c.partition("@")[0] == name]
    width = max(map(len, cells)) + 2
    write = terminalreporter.write_line
    terminalreporter.section("conformance: cases that ran (-: no such kernel; -n: n refused; !n: n complaints; "
                             "+n: n left out on the emulator)")
    write("".ljust(width) + "  ".join(c.rjust(8) for c in columns))
    order = list(registry.specs())
    for op, row in sorted(cells.items(), key=lambda item: order.index(item[0].partition(":")[0])):
        shown = []
        for column in columns:
            ran, refused, wrong, left = row[column]
            text = f"{ran}" + f" -{refused}" * bool(refused) + f" !{wrong}" * bool(wrong) + f" +{left}" * bool(left)
            text = text if ran or refused else "-"
            shown.append(text.rjust(max(8, len(column))))
        write(op.ljust(width) + "  ".join(shown))
    for name, reason in capability.reasons().items():
        if reason is not None:
            write(f"{'emulated' if f'{name}@emulated' in columns else 'unavailable'}: {name}: {reason}")
