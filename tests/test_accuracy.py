"""Every float32: samples of what `tilewright accuracy` sweeps, and the sweep itself."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import SEED
from tilewright import cli
from tilewright.bench import ledger, sweep
from tilewright.core import native, registry
from tilewright.kernels.activation.spec import ULPS

SWEPT = sorted({*native.isas(), native.isa()} - {"none"})


@pytest.mark.parametrize("name", sweep.functions())
def test_sample(name: str, backend: str) -> None:
    """Within the bound, infinities and zeros of the right sign; all exponents, and the worst places."""
    found = sweep.sample(name, backend, 60_000, SEED)
    assert found.inputs >= 50_000 and found.wrong == 0 and found.ulp <= ULPS["float32"], found


@pytest.mark.skipif(native.lib is None, reason="the C backend is not here")
@pytest.mark.parametrize("isa", SWEPT)
def test_sample_of_an_instruction_set(isa: str, child_env: dict[str, str], tmp_path: Path) -> None:
    env = child_env | {"TILEWRIGHT_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tilewright", "accuracy", "--isa", isa, "--sample", "100000"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [[name, "c", isa] for name in sweep.functions()]


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN, an infinity, a sign of zero and a large error, each planted at one input."""
    good = next(registry.variants("tanh", "numpy"))
    for x, y in ((3.0, np.nan), (-2.0, -np.inf), (0.0, -0.0), (np.nan, 1.0), (0.5, 0.4621172)):
        def run(call, outs, x=x, y=y):
            good.run(call, outs)
            outs[0][(call.inputs[0] == x) | np.isnan(call.inputs[0]) & np.isnan(x)] = y

        monkeypatch.setattr(registry, "variants", lambda op, backend, run=run: iter([replace(good, run=run)]))
        found = sweep.measure("tanh", "numpy", np.array([-2.0, 3.0, 0.0, 1.0, np.nan, 0.5], np.float32))
        if x == 0.5:
            assert (found.wrong, found.at) == (0, 0.5) and 1 < found.ulp < 3
        else:
            assert found.wrong == 1 and found.ulp <= 0.5
            np.testing.assert_equal(found.wrong_at, x)


def test_units_are_those_of_the_exact_value() -> None:
    """Half a unit at most for a rounded result, at denormals and just below a power of two."""
    x = np.array([1e-45, 3e-40, 1.1754942e-38, 0.99999994, 1.0, 9.0, 88.0], np.float32)
    for name in ("tanh", "sigmoid", "relu"):
        assert sweep.measure(name, "numpy", np.concatenate([x, -x])).ulp <= 0.5


def test_a_sweep_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Interrupted after five blocks it repeats none of them; damaged files and those of other code are forgotten."""
    seen: list[int] = []

    def block(name: str, backend: str, first: int) -> sweep.Tally:
        seen.append(first)
        if first == 5 * sweep.BLOCK and seen.count(first) == 1:
            raise KeyboardInterrupt
        return sweep.Tally(sweep.BLOCK, float(first == 3 * sweep.BLOCK), float(first), 0, None)

    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sweep, "_block", block)
    monkeypatch.setattr(sweep, "INPUTS", 9 * sweep.BLOCK)
    monkeypatch.setattr(ledger, "INPUTS", 9 * sweep.BLOCK)
    runner = CliRunner()
    assert runner.invoke(cli.app, ["accuracy", "tanh", "--backend", "numpy"]).exit_code != 0
    file = ledger.path("numpy", native.isa())
    assert json.loads(file.read_text())["swept"]["tanh"]["inputs"] == 5 * sweep.BLOCK
    for _ in range(2):  # the second time there is nothing left to do
        done = runner.invoke(cli.app, ["accuracy", "tanh", "--backend", "numpy", "--jobs", "1"])
        assert done.exit_code == 0 and f"1.00 at {3 * sweep.BLOCK}" in done.output
    assert [k // sweep.BLOCK for k in seen] == [*range(7), *range(5, 9)]  # 6 was under way
    for text in ("{", "[]", file.read_text().replace(ledger.code_of("numpy"), "another")):
        file.write_text(text)
        assert not ledger.Ledger("numpy", native.isa()).swept


def test_the_table_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nafter\n")
    arguments = ["accuracy", "relu", "--backend", "numpy", "--sample", "5000", "--write", str(page)]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    monkeypatch.setattr(ledger, "BACKENDS", ("numpy",))
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    assert "old" not in page.read_text() and "| relu | exact (of 5e3) |" in page.read_text()
    page.write_text("no marks")
    assert CliRunner().invoke(cli.app, arguments).exit_code == 2
