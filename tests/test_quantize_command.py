"""The command `quantize`: what it prints, writes and refuses."""
from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import tilewright as tw
from tilewright.cli import app, quantize_report
from tilewright.cli import quantize as command
from tilewright.cli.train_data import load
from tilewright.core.errors import TilewrightError
from tilewright.quant.report import Figures, Report


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("models") / "digits.safetensors")
    result = CliRunner().invoke(app, ["train", "digits", "--layers", "24", "--epochs", "3", "--save", path])
    assert result.exit_code == 0, result.output
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["quantize", *arguments])
    if isinstance(result.exception, TilewrightError):
        raise result.exception  # main() puts it into one line
    assert result.exit_code == 0, result.output
    return result.output


def table_rows(output: str, first: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(first)]


def test_all_ways(checkpoint, tmp_path):
    output = run(checkpoint, "--plot", str(tmp_path / "p.png"))
    assert "digits: MLP of 64-24-10 with gelu, 359 rows to test" in output
    for way in ("dynamic int8", "static int8", "weight-only int8", "weight-only int4"):
        assert len(table_rows(output, way)) == 2, way  # of layers, of models
    assert len(table_rows(output, "float ")) == 1 and " dB" in output and " KiB" in output
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_one_way_and_the_model_that_it_writes(checkpoint, tmp_path):
    path = tmp_path / "q.safetensors"
    output = run(checkpoint, "--data", "digits", "--method", "weight-only", "--bits", "4", "--group-size", "16",
                 "--skip", "4", "--out", str(path))
    assert len(table_rows(output, "weight-only int4")) == 2
    model, rows = tw.quant.load(path), load("digits", "-1", 0)
    right = np.mean(model(rows.x_test).data.argmax(axis=1) == rows.y_test)
    assert f"{right:.2%}" in output
    assert {type(layer).__name__ for layer in model.layers} >= {"QuantizedLinear", "Linear"}
    assert len(table_rows(run(checkpoint, "--method", "static", "--observer", "mse", "--smooth", "0.5", "--per-tensor",
                              "--bits", "4"), "static int4")) == 2


@pytest.mark.parametrize("accuracies, times", [((0.97, 0.97), (17.0, 18.0)), ((0.97, 0.61), (5.0, 90.0))], ids=str)
def test_every_point_of_the_plot_is_seen_whole(accuracies, times, monkeypatch):
    figures = []
    monkeypatch.setattr(quantize_report, "keep_figure", lambda figure, path: figures.append(figure))
    before, after = (Figures(a, t * 1e-6, 1e-3, n) for a, t, n in zip(accuracies, times, (4000, 1000), strict=True))
    quantize_report.plot({"static int8": Report([], before, after, 30.0)}, "unused.png")
    figures[0].canvas.draw()
    assert not any(figures[0].legends[0].get_window_extent().overlaps(axis.bbox) for axis in figures[0].axes)
    for axis in figures[0].axes:
        assert len(axis.lines) == 2
        for line in axis.lines:
            (x, y), = axis.transData.transform(line.get_xydata())
            radius = line.get_markersize() / 2 * figures[0].dpi / 72
            assert axis.bbox.x0 + radius < x < axis.bbox.x1 - radius
            assert axis.bbox.y0 + radius < y < axis.bbox.y1 - radius
        low, high = axis.get_ylim()
        assert high <= 100 and high - low < 2 * max(1, 100 * abs(np.subtract(*accuracies)))


def test_without_a_model_one_is_trained(monkeypatch):
    monkeypatch.setattr(command, "EPOCHS", 1)
    assert "64-256-128-10 with relu" in run("--data", "digits", "--method", "dynamic")


@pytest.mark.parametrize("arguments, words", [
    (("--data", "iris"), "digits or mnist"), (("MODEL", "--data", "mnist"), "trained on 'digits'"),
    (("nowhere.safetensors",), "no such file"), (("MODEL", "--out", "x"), "--method"),
    (("MODEL", "--bits", "4"), "--method"), (("MODEL", "--group-size", "8"), "--method"),
    (("MODEL", "--method", "binary"), "no method"), (("MODEL", "--method", "static", "--skip", "9"), "'9'"),
    (("MODEL", "--method", "dynamic", "--plot", "nowhere/x.png"), "--plot"),
])
def test_what_it_refuses(arguments, words, checkpoint):
    with pytest.raises(TilewrightError, match=words):
        run(*(checkpoint if a == "MODEL" else a for a in arguments))
