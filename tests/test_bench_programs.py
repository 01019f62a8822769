"""The programs of bench/: peers in processes of their own, checked before they are timed; several threads and one."""
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.bench import timing
from tilewright.core import native

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program as a module; processes that it starts find it the same way."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("peers")


def test_rounds_of_one_case_with_numpy_alone(peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is not there and a backend that cannot run are named; the others go on."""
    monkeypatch.setitem(peers.peer_calls.PEERS, "gemm", ("numpy", "nonesuch"))
    missing: dict[str, str] = {}
    backend = tw.backends()[0]
    rows = peers.measure("gemm", 1, [backend, "fortran"], 0.0, missing, cases=["8x9x10"])
    assert [(r.case, r.backend, r.peer) for r in rows] == [("8x9x10", backend, "numpy")]
    assert rows[0].ratio > 0 and rows[0].seconds > 0
    assert set(missing) == {"nonesuch, gemm", "tilewright:fortran, gemm"}
    assert peers.summary(rows)[1][:4] == ("gemm", backend, "1", "1")
    assert peers.markdown(peers.by_case(rows)).splitlines()[0] == f"| suite | case | {backend}, 1 thread |"


@pytest.mark.parametrize("suite", ["qgemm", "qlinear", "elementwise", "overhead", "train"])
def test_small_cases_are_calls_of_the_table(peers, suite: str) -> None:
    for case in peers.peer_calls.SUITES[suite]:
        if any(size in case for size in ("31x33x29", "32x32", "8x8", "64-64-10")):
            peers.peer_calls.prepare("tilewright:numpy", suite, case, 1)()


def test_integers_must_agree_exactly_and_what_was_quantized_nearly(peers) -> None:
    exact, near = np.array([[1000, -7]], np.int32), np.array([[1000.0, -7.0]])
    same = peers.peer_calls.same
    assert same("matmul_integer", exact, exact) and not same("matmul_integer", exact + 1, exact)
    assert same("quantized_linear", near + 20, near) and not same("quantized_linear", near * 0.9, near)
    assert same("matmul", near * 1.0001, near) and not same("matmul", near + 20, near)


def test_a_wrong_result_is_not_timed(peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tw, "matmul", lambda a, b, out, backend: out.fill(1))
    with pytest.raises(ValueError, match="wrong result"):
        peers.peer_calls.prepare("tilewright:numpy", "gemm", "8x8x8", 1)
    monkeypatch.setattr(peers.peer_calls, "trainer", lambda who, case: lambda: np.float32(who == "tilewright:c"))
    with pytest.raises(ValueError, match="wrong losses"):
        peers.peer_calls.prepare("tilewright:c", "train", "64-64-10 32 sgd relu", 1)


def test_threads_are_held_against_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setattr(timing, "TURN", 0.0)
    threads = importlib.import_module("threads")
    before = tw.get_num_threads()
    for ops, columns in threads.TABLES.values():
        for op in ops:
            assert all(ratio > 0 for ratio in threads.speedups(op, next(iter(columns.values())), tw.backends()[0], 2))
    assert tw.get_num_threads() == before
    assert [threads.cell(0.9, 1.0), threads.cell(0.9, 0.92), threads.cell(1.8, 1.0)] == ["**0.90**", "0.90", "1.80"]


def test_quantized_weights_beside_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    quantized = importlib.import_module("bench_quantized")
    monkeypatch.setitem(quantized.WAYS, "1x33x64, weights only", quantized.WAYS[quantized.ROW])
    backend = next((name for name in quantized.BACKENDS if name in tw.backends()), "numpy")
    assert quantized.row("1x33x64, weights only", backend)[:2] == ["1x33x64, weights only", backend]
    assert [cell.count("**") for cell in quantized.row("1x33x64, weights only", backend)[2:]] == [0, 2, 2]


def test_a_peak_for_each_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    report, used = importlib.import_module("report"), [native.int8_isa()] if native.lib is not None else []
    monkeypatch.setattr(report.native, "int8_isas", lambda: used)
    _, _, *rows = report.peaks().splitlines()
    assert [row.split(" | ")[2] for row in rows] == used


def test_the_tables_have_their_places(peers) -> None:
    report = (ROOT / "docs/PERFORMANCE.md").read_text()
    suites = [f"peers-{suite}" for suite in peers.peer_calls.SUITES]
    for name in (*suites, "peaks", "quantized", "sweep", "threads", "ladder", "small", "medium"):
        assert f"<!-- {name} -->" in report and f"<!-- /{name} -->" in report


def test_accuracies_of_quantized_models(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    quantization = importlib.import_module("quantization")
    found = quantization.accuracies("digits", "16", seed=0, epochs=2, further=1)
    assert set(found) == {quantization.FLOAT, quantization.AWARE, quantization.LONGER, *quantization.METHODS}
    assert all(50 < percent <= 100 for percent in found.values())
    found |= {"float32": 90.0, "static int8": 89.6, "static int4": 88.0, quantization.AWARE: 89.5}
    text = quantization.table({("digits", "16"): found}, 1)
    assert "| static int8 | **89.60 (-0.40)** |" in text and "| static int4, trained so | 89.50 (-0.50) |" in text
    assert quantization.missed(quantization.AWARE, found | {quantization.AWARE: 88.9})
    page = quantization.PAGE.read_text()
    assert "<!-- accuracy -->" in page and "<!-- /accuracy -->" in page
