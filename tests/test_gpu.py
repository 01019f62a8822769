"""The columns of a CUDA device in comparisons; what runs on a device itself is in fake_driver.py."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from tilewright import bench
from tilewright.bench import gpu, report
from tilewright.bench.accuracy import Accuracy
from tilewright.bench.comparison import Comparison, Result
from tilewright.bench.gpu import PARTS, DeviceTimes, wins
from tilewright.cli import app
from tilewright.core import capability
from tilewright.core.errors import BackendUnavailable

FINE = Accuracy(0.1, 1.0, 1e-7)
NO_DEVICE: dict[str, Any] = {"backends": {"cuda": "no NVIDIA driver"}, "manners": {"cuda": "available"}}
DEVICE: dict[str, Any] = {"backends": {"cuda": None}, "manners": {"cuda": "available"}}
EMULATED: dict[str, Any] = {"backends": {"cuda": None}, "manners": {"cuda": "emulated, sm_90"}}


def result(case: str, kernel: str, seconds: float | None, on: DeviceTimes | None = None, how: str = "") -> Result:
    return Result("relu", case, "small", "float32", kernel, how, FINE, seconds, 0.0, "GB/s", None, None, None, "", on)


def times(kernel: float, launch: float, end_to_end: float) -> DeviceTimes:
    return DeviceTimes(kernel, 2 * kernel, launch, 3e-6, 4e-6, end_to_end)


def cases(*rows: tuple[str, float, DeviceTimes]) -> list[Result]:
    """A kernel of the CPU, a slower one, and the device's."""
    return [r for case, cpu, on in rows for r in (result(case, "c", cpu), result(case, "numpy", 9 * cpu),
                                                 result(case, "cuda", on.end_to_end, on))]


def test_the_device_wins_from_a_size_on() -> None:
    small, middle, large = times(1e-6, 1e-5, 9e-5), times(1e-5, 1e-5, 9e-4), times(1e-4, 1e-5, 5e-3)
    found = cases(("10", 5e-6, small), ("100", 1e-4, middle), ("1000", 1e-2, large))
    assert wins(found) == [("relu", "100 float32", "1000 float32")]
    assert wins(found[:6]) == [("relu", "100 float32", None)]
    assert wins(found[:3]) == [("relu", None, None)]
    assert wins(r for r in found if r.device is None) == []


def test_a_size_that_is_lost_ends_a_run_of_wins() -> None:
    fast, slow = times(1e-6, 1e-6, 2e-6), times(1e-2, 1e-6, 2e-2)
    found = cases(("10", 1e-5, fast), ("100", 1e-4, slow), ("1000", 1e-3, fast))
    assert wins(found) == [("relu", "1000 float32", "1000 float32")]


def test_columns_of_a_device() -> None:
    on = times(1e-6, 1e-5, 9e-5)
    found = Comparison(DEVICE, 1, cases(("10", 5e-6, on)))
    heading, row = report.device_rows(found)
    assert heading[1:] == ["kernel", "kernel, cold", "launch", "to device", "to host", "end to end"]
    assert row == ["relu 10, cuda", "1 us", "2 us", "10 us", "3 us", "4 us", "90 us"]
    assert report.win_lines(found) == ["GPU against CPU, relu: faster at none of these on resident data, "
                                       "at none of these with copies"]
    assert bench.from_json(bench.to_json(found)).results == found.results


@pytest.mark.parametrize(("machine", "rows", "word"), [
    (NO_DEVICE, [result("10", "c", 1e-6)], "no device"), (DEVICE, [result("10", "c", 1e-6)], "no kernel"),
    (EMULATED, [result("10", "c", 1e-6), result("10", "cuda", None, how="emulated, sm_90")], "emulated"),
    (DEVICE, [replace(result("10", "cuda", None), accuracy=Accuracy(9, 9, 9, "1 of 10"))], "wrong")])
def test_without_times_there_are_words(machine: dict[str, Any], rows: list[Result], word: str) -> None:
    found = Comparison(machine, 1, rows)
    _, row = report.device_rows(found)
    assert row[1:] == [word] * len(PARTS)
    assert report.win_lines(found) == (["GPU against CPU: no device"] if machine is not DEVICE else [])


def test_a_comparison_here_has_no_number_for_a_device_that_is_not_there() -> None:
    if capability.reasons()["cuda"] is None:
        pytest.skip("there is a device")
    found = bench.compare(["relu"], size="small")
    assert found.results and all(r.device is None for r in found.results)
    assert {word for row in report.device_rows(found)[1:] for word in row[1:]} == {"no device"}


def test_headings_are_of_all_parts() -> None:
    assert tuple(gpu.HEADINGS) == PARTS == DeviceTimes.__slots__


def test_the_check_wants_a_real_device(monkeypatch: pytest.MonkeyPatch) -> None:
    if capability.reasons()["cuda"] is None:
        pytest.skip("there is a device")
    done = CliRunner().invoke(app, ["gpu-check"])
    assert isinstance(done.exception, BackendUnavailable) and "cuda" in str(done.exception)
    monkeypatch.setenv("TILEWRIGHT_CUDA", "emulate")
    done = CliRunner().invoke(app, ["gpu-check"])
    assert isinstance(done.exception, BackendUnavailable) and "real device" in str(done.exception)
