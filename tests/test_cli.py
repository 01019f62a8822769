"""The command line, and the benchmark suite that it starts."""
from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tilewright as tw
from tilewright.bench import comparison
from tilewright.cli import app, bench, doctor
from tilewright.cli.blas import THREADS
from tilewright.core import native, registry

PACKAGE = str(Path(tw.__file__).parents[1])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run a command in this process."""
    for name in THREADS:
        monkeypatch.setenv(name, "1")  # compare sets them; this puts them back
    return lambda *args: CliRunner().invoke(app, list(args))


def command(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a user would."""
    return subprocess.run([sys.executable, "-m", "tilewright", *args], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": PACKAGE} | environment)


def test_help_names_the_commands() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("info", "compare", "train", "bench", "tune", "warmup", "doctor"))


def test_the_command_line_loads_without_numpy() -> None:
    code = "import sys, tilewright.cli; assert 'numpy' not in sys.modules and 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": PACKAGE})
    assert done.returncode == 0, done.stderr


# ---- info


def test_info_names_every_backend(run) -> None:
    result = run("info")
    assert result.exit_code == 0
    for name in ("c", "numba", "numpy", "cuda"):
        assert any(line.split()[0] == name for line in result.output.splitlines())


def test_info_as_json(run) -> None:
    facts = json.loads(run("info", "--json").output)
    assert facts["tilewright"] == tw.__version__
    assert facts["backends"]["numpy"] is None and facts["cpus"] >= 1
    assert facts["int8_isa"].startswith(facts["isa"]) and facts["int8_isa"] in (*facts["int8_isas"], "none")


def test_info_and_doctor_name_both_instruction_sets(run) -> None:
    if native.lib is None:
        pytest.skip("the C backend is not here")
    both = f"{native.isa()}, integer products by {native.int8_isa()}"
    assert both in run("info").output
    assert any(both in finding.what for finding in doctor.c_library())


# ---- compare


def test_compare_prints_one_table(run) -> None:
    result = run("compare", "relu", "--size", "small")
    assert result.exit_code == 0, result.output
    for word in ("relu 32x32", "numpy", "GB/s", "of peak", "of bound", "worst error", "not here"):
        assert word in result.output


def test_compare_writes_json(run, tmp_path: Path) -> None:
    result = run("compare", "relu", "tanh", "--size", "small", "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "r.json").read_text())
    assert {r["op"] for r in found["results"]} == {"relu", "tanh"}
    for r in found["results"]:
        assert r["seconds"] > 0 and r["rate"] > 0 and r["accuracy"]["wrong"] is None and r["accuracy"]["of_bound"] <= 1


def test_compare_to_standard_output_is_json_alone(run) -> None:
    done = command("compare", "relu", "--size", "small", "--json", "-")
    assert {r["op"] for r in json.loads(done.stdout)["results"]} == {"relu"}


def test_compare_prints_markdown(run) -> None:
    result = run("compare", "relu", "--size", "small", "--markdown")
    assert result.output.startswith("| | numpy |")


def test_compare_shows_the_ladder_when_asked(run) -> None:
    steps = [k.variant for b in tw.backends() for k in registry.variants("matmul", b) if k.variant]
    if not steps:
        pytest.skip("no backend here has a ladder for matmul")
    for flags, shown in (((), False), (("--ladder",), True)):
        output = run("compare", "matmul", "--size", "small", *flags).output
        assert all((f":{step}" in output) is shown for step in steps)


def test_a_wrong_result_fails_the_command(run, monkeypatch: pytest.MonkeyPatch) -> None:
    good = next(registry.variants("relu", "numpy"))
    bad = dataclasses.replace(good, variant="broken", run=lambda call, outs: outs[0].fill(0))
    monkeypatch.setattr(comparison, "contestants", lambda spec, ladder: ([good, bad], []))
    result = run("compare", "relu", "--size", "small")
    assert result.exit_code == 1
    assert "WRONG" in result.output and "out of bound" in result.output


def test_an_unknown_operation_is_one_line(run) -> None:
    done = command("compare", "no_such_operation")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no operation 'no_such_operation'") and "Traceback" not in done.stderr


# ---- warmup


def test_warmup_counts_the_kernels_and_names_them_on_the_way(run) -> None:
    told: list[str] = []
    count = tw.warmup("numpy", ("float32", "float64"), progress=lambda done, n, what: told.append(f"{what} {n}"))
    assert len(told) == count and f"relu float64 {count}" in told
    result = run("warmup", "--backend", "numpy")
    assert result.exit_code == 0 and "kernels are ready" in result.output
    for flags, word in ((("--dtype", "int3"), "no dtype 'int3'"), (("--backend", "fortran"), "no backend 'fortran'")):
        assert word in str(run("warmup", *flags).exception)


# ---- doctor


def test_doctor_finds_nothing_wrong_where_all_backends_work() -> None:
    done = command("doctor")
    assert done.returncode == (1 if "\nwrong" in "\n" + done.stdout else 0)
    if {"c", "numba"} <= set(tw.backends()):
        assert done.returncode == 0, done.stdout
    assert "matmul on numpy" in done.stdout


@pytest.mark.parametrize(("variable", "value"), [
    ("TILEWRIGHT_BACKEND", "fortran"), ("TILEWRIGHT_BACKEND", "cuda"), ("TILEWRIGHT_NUM_THREADS", "many")])
def test_doctor_says_which_variable_to_unset(variable: str, value: str) -> None:
    if variable == "TILEWRIGHT_BACKEND" and value in tw.backends():
        pytest.skip(f"{value} runs here")
    done = command("doctor", **{variable: value})
    assert done.returncode == 1
    assert f"mend: unset {variable}" in done.stdout


@pytest.mark.skipif(native.lib is None, reason="no C backend here")
def test_doctor_names_an_instruction_set_that_is_not_there() -> None:
    done = command("doctor", TILEWRIGHT_ISA="mmx")
    assert done.returncode == 1
    assert "TILEWRIGHT_ISA=mmx" in done.stdout and "mend: unset TILEWRIGHT_ISA" in done.stdout


def test_doctor_notes_a_variable_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_THREADS", "2")
    assert any(f.level == "note" and "TILEWRIGHT_THREADS" in f.what for f in doctor.environment())


def test_doctor_catches_a_backend_that_computes_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.kernels

    def kernels(family: str, backend: str) -> dict:
        return {key: dataclasses.replace(kernel, run=lambda call, outs: outs[0].fill(1))
                for key, kernel in real(family, backend).items()}

    monkeypatch.setattr(registry, "kernels", kernels)
    assert any(f.level == "wrong" and "nonsense" in f.what for f in doctor.self_test())


def test_doctor_survives_a_check_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads():
        raise OSError("broken on purpose")

    monkeypatch.setattr(doctor, "threads", threads)
    assert any(f.level == "wrong" and "check of threads failed" in f.what for f in doctor.examine())


# ---- bench


def test_bench_outside_a_checkout_says_so(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "checkout", lambda: None)
    result = run("bench")
    assert result.exit_code == 2 and "checkout" in result.output


@pytest.mark.skipif(importlib.util.find_spec("pytest_benchmark") is None, reason="pytest-benchmark is not installed")
def test_the_suite_checks_what_it_would_time() -> None:
    root = Path(__file__).resolve().parents[1]
    flags = ("--size", "small", "--no-save", "--benchmark-disable", "-k", "relu")
    command = [sys.executable, "-m", "tilewright", "bench", *flags]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PACKAGE})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
