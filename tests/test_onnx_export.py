"""Exported models pass ONNX's checker, and onnxruntime computes with them what we do."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.core.errors import ArgumentError, DataError

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnxruntime.set_default_logger_severity(3)

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softplus", "hardswish")


def through_onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    """y for x, computed by onnxruntime with its exact products: the default saturates 16-bit sums without VNNI."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def exported(model: tw.nn.Module, x: np.ndarray, tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(ours, onnxruntime's)."""
    path = tmp_path / "model.onnx"
    tw.onnx.export(model, path)
    return model.eval()(x).data, through_onnxruntime(path, x)


@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_float_model(activation: str, norm: str | None, tmp_path: Path, rng: np.random.Generator) -> None:
    model = tw.nn.MLP([17, 33, 24, 5], activation, norm=norm, dropout=0.25, bias=activation != "elu", seed=1)
    ours, theirs = exported(model, rng.standard_normal((9, 17), np.float32), tmp_path)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_parameters_of_activations_are_exported(tmp_path: Path) -> None:
    model = tw.nn.Sequential(tw.nn.LeakyReLU(0.25), tw.nn.Sequential(tw.nn.ELU(1.5)))
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
    ours, theirs = exported(model, x, tmp_path)
    np.testing.assert_allclose(theirs, ours, rtol=1e-6)


def test_a_layer_without_a_form_is_named(tmp_path: Path) -> None:
    class Twice(tw.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2

    path = tmp_path / "model.onnx"
    for layer in (Twice(2, 2), tw.nn.Embedding(3, 2)):
        with pytest.raises(ArgumentError, match=rf"onnx: 0 is a {type(layer).__name__}, .* there are: .*Linear"):
            tw.onnx.export(tw.nn.Sequential(layer), path)
    assert not path.exists()
    with pytest.raises(DataError, match="nowhere"):
        tw.onnx.export(tw.nn.Linear(2, 2), tmp_path / "nowhere" / "model.onnx")


def test_names_are_those_of_the_state(tmp_path: Path) -> None:
    import onnx

    model = tw.nn.MLP([4, 3, 2], norm="layer", seed=0)
    tw.onnx.export(model, tmp_path / "model.onnx", name="tiny")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert {t.name: tuple(t.dims) for t in graph.initializer} == {k: v.shape for k, v in model.state_dict().items()}
    assert graph.name == "tiny"
    assert [d.dim_param or d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == ["rows", 2]
