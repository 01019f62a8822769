"""The command `train`: from the command line to the report, stopped, resumed, and given broken files."""
from __future__ import annotations

import dataclasses
import inspect
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import tilewright as tw
from tilewright.cli import train_run
from tilewright.cli.train import train
from tilewright.data import read_safetensors, write_safetensors

app = typer.Typer()
app.command()(train)
FAST = ["--backend", "numpy", "--layers", "12", "--epochs", "3", "--batch", "16"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def table(tmp_path) -> str:
    """Three classes that a small model can tell apart, with a missing value, text for labels and a header."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 150)
    x = rng.standard_normal((150, 4)) + 3 * np.eye(3, 4)[kinds]
    lines = [",".join([*(f"{v:.4f}" for v in row), "abc"[kind]]) for row, kind in zip(x, kinds, strict=True)]
    lines[7] = "," + lines[7].split(",", 1)[1]
    path = tmp_path / "flowers.csv"
    path.write_text("w,x,y,z,kind\n" + "\n".join(lines) + "\n")
    return str(path)


def epochs(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("epoch")]


def test_the_report(table, tmp_path):
    code, output = run(table, *FAST, "--norm", "rms", "--activation", "silu", "--optimizer", "sgd",
                       "--schedule", "step")
    assert code == 0 and len(epochs(output)) == 3
    assert "flowers: 120 rows to train, 30 to test, 4 features, 3 classes" in output
    for expected in (r"test accuracy +\d+\.\d\d% \(\d+ of 30 rows\)", r"time per step +\d+ us", r"samples/s +[\d,]+",
                     r"peak memory +\d+ MiB", "confusion matrix", r"\n +a +b +c\n"):
        assert re.search(expected, output), expected


def test_the_same_bits_twice_and_close_on_every_backend(table):
    curves = {}
    for backend in tw.backends():
        first, second = (epochs(run(table, *FAST, "--backend", backend)[1]) for _ in range(2))
        assert first == second
        curves[backend] = [float(re.search(r"loss (\S+)", line)[1]) for line in first]
    for curve in curves.values():
        np.testing.assert_allclose(curve, curves["numpy"], atol=2e-4)


def checkpoint(path: Path) -> dict[str, np.ndarray]:
    return read_safetensors(path)[0]


@pytest.mark.parametrize("schedule", train_run.SCHEDULES)
def test_resuming_gives_the_same_bits(table, tmp_path, schedule, monkeypatch):
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    options = [table, *FAST, "--schedule", schedule, "--dropout", "0.3"]
    code, output = run(*options, "--save", str(whole))
    assert code == 0

    step, steps = train_run.Run._step, []

    def interrupted_step(self, x, y):
        step(self, x, y)
        steps.append(1)
        if len(steps) == 11:  # in the middle of the second epoch
            signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(train_run.Run, "_step", interrupted_step)
    code, first = run(*options, "--save", str(part))
    assert code == 130 and "interrupted in epoch 2, after 3 of 8 steps" in first
    assert f"tilewright train {table} --resume {part}" in first
    monkeypatch.setattr(train_run.Run, "_step", step)
    code, second = run(table, "--resume", str(part), "--save", str(part))
    assert code == 0 and epochs(first) + epochs(second) == epochs(output)
    expected, found = checkpoint(whole), checkpoint(part)
    assert expected.keys() == found.keys()
    for name, a in expected.items():
        assert a.tobytes() == found[name].tobytes(), name


def test_a_finished_run_goes_on_for_more_epochs(table, tmp_path):
    path = str(tmp_path / "x.safetensors")
    run(table, *FAST, "--save", path)
    code, output = run(table, "--resume", path, "--epochs", "5")
    assert code == 0 and len(epochs(output)) == 2 and epochs(output)[0].startswith("epoch   4/5")
    code, output = run(table, "--resume", path, "--batch", "8")
    assert code == 2 and "made with 16 where --batch is 8" in output


def test_a_checkpoint_of_other_data(table, tmp_path):
    path = str(tmp_path / "x.safetensors")
    run(table, *FAST, "--save", path)
    text = Path(table).read_text()
    Path(table).write_text(text.replace(text.split("\n")[3], text.split("\n")[2]))
    code, output = run(table, "--resume", path)
    assert code == 2 and "other data" in output


@pytest.mark.parametrize("damage", ["truncated", "no checkpoint", "options", "kinds", "shapes", "missing", "position"])
def test_hostile_checkpoints(table, tmp_path, damage):
    path = tmp_path / "bad.safetensors"
    run(table, *FAST, "--save", str(path))
    state, metadata = read_safetensors(path)
    options = json.loads(metadata["options"])
    if damage == "no checkpoint":
        metadata = {}
    elif damage == "options":
        metadata["options"] = "{" * 100_000
    elif damage == "kinds":
        metadata["options"] = json.dumps(options | {"epochs": "many"})
    elif damage == "shapes":
        metadata["options"] = json.dumps(options | {"layers": "13"})
    elif damage == "missing":
        del state["optimizer/steps"]
    elif damage == "position":
        state["batches/position"] = np.array(10**9)
    write_safetensors(path, state, metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    code, output = run(table, "--resume", str(path))
    assert code == 2 and output.startswith("error:") and "bad.safetensors" in output


@pytest.mark.parametrize("arguments, expected", [
    (["nowhere.csv"], "nowhere.csv: there is no such file"), (["digits.txt"], "train takes digits, mnist, or a file"),
    (["TABLE", "--target", "5"], "no column|none with the number 5"),
    (["TABLE", "--target", "w"], "line 2, column 5 .'kind'"),
    (["TABLE", "--layers", "12,x"], "--layers"), (["TABLE", "--activation", "swoosh"], "swoosh"),
    (["TABLE", "--optimizer", "lbfgs"], "--optimizer"), (["TABLE", "--schedule", "x"], "--schedule"),
    (["TABLE", "--backend", "abacus"], "no backend"), (["TABLE", "--epochs", "0"], "--epochs"),
    (["TABLE", "--dropout", "2"], "Dropout"),
    (["TABLE", "--batch", "0"], "batch_size"), (["TABLE", "--save", "/nowhere/x"], "cannot be written")])
def test_errors_say_what_is_wrong(table, arguments, expected):
    backend = () if "--backend" in arguments else ("--backend", "numpy")
    code, output = run(*[table if a == "TABLE" else a for a in arguments], *backend)
    assert code == 2 and output.splitlines()[-1].startswith("error:") and re.search(expected, output), output


def test_defaults_stand_in_two_places():
    """The command's signature is read by typer before anything heavy is imported."""
    shown = {name: p.default for name, p in inspect.signature(train).parameters.items()}
    for f in dataclasses.fields(train_run.Options):
        if f.name != "data":
            assert shown[f.name] == f.default, f.name


def test_a_loss_that_explodes(table):
    with np.errstate(all="ignore"):
        code, output = run(table, *FAST, "--lr", "1e30", "--optimizer", "sgd", "--norm", "none", "--schedule", "none")
    assert code == 2
    assert re.search("error: the loss became (nan|inf) in epoch 1, step .* try an --lr below 1e\\+30", output)


def test_text_in_a_column_of_numbers(table):
    text = Path(table).read_text().split("\n")
    text[5] = "1,two,3,4,a"
    Path(table).write_text("\n".join(text))
    code, output = run(table, *FAST)
    assert code == 2 and "line 6, column 2 ('x')" in output


def test_an_npy_file(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(5, 7, 60)
    np.save(tmp_path / "t.npy", np.column_stack([y, rng.standard_normal((60, 3)) + 4 * (y[:, None] == 5)]))
    code, output = run(str(tmp_path / "t.npy"), *FAST, "--target", "0")
    assert code == 0 and "t: 48 rows to train, 12 to test, 3 features, 2 classes" in output
    assert run(str(tmp_path / "t.npy"), *FAST, "--target", "1")[0] == 2
    np.save(tmp_path / "t.npy", np.zeros(5))
    code, output = run(str(tmp_path / "t.npy"), *FAST)
    assert code == 2 and "shape (5,)" in output


def test_plot(table, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    path = tmp_path / "curves.png"
    assert run(table, *FAST, "--plot", str(path))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, output = run(table, *FAST, "--plot", str(path))
    assert code == 2 and "pip install matplotlib" in output and not epochs(output)


PROGRAM = "import typer; from tilewright.cli.train import train; app = typer.Typer(); app.command()(train); app()"


def test_ctrl_c_saves_and_says_how_to_resume(table, tmp_path, child_env):
    path = tmp_path / "stopped.safetensors"
    command = [sys.executable, "-c", PROGRAM, table, *FAST, "--epochs", "100000", "--save", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=child_env,
                               cwd=tmp_path)
    try:
        assert process.stdout is not None
        lines = []
        while not (lines and lines[-1].startswith("epoch   2")):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - start < 30, rest
    finally:
        process.kill()
    assert "interrupted in epoch" in rest and f"--resume {path}" in rest and "Traceback" not in rest
    done = int(re.search(r"interrupted in epoch (\d+)", rest)[1])
    code, output = run(table, "--resume", str(path), "--epochs", str(done + 1))
    assert code == 0 and epochs(output)[0].startswith(f"epoch {done:3d}/")


def accuracy(output: str) -> float:
    return float(re.search(r"test accuracy +(\S+)% \(", output)[1])


def test_digits_by_default():
    pytest.importorskip("sklearn")
    with tw.threads(1):  # a machine that is busy with other tests makes two threads wait for each other
        code, output = run("digits")
    assert code == 0 and accuracy(output) >= 97.5


def test_mnist_by_default():
    try:
        tw.data.load_mnist()
    except tw.errors.DataError as error:
        pytest.skip(str(error))
    with tw.threads(1):
        code, output = run("mnist")
    assert code == 0 and accuracy(output) >= 94
