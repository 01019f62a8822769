"""Exported models pass ONNX's checker, and onnxruntime computes with them what we do."""
from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import quant
from tilewright.core.errors import ArgumentError, DataError

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnxruntime.set_default_logger_severity(3)

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softplus", "hardswish")


def through_onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    """y for x as onnxruntime computes it when told not to trade accuracy for speed, on processors without VNNI, too."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if any(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node):
        options.add_session_config_entry("session.x64quantprecision", "1")  # others it may break
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def exported(model: Any, x: np.ndarray, tmp_path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """(ours, onnxruntime's)."""
    path = tmp_path / "model.onnx"
    tw.onnx.export(model, path, **options)
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
    model = tw.nn.MLP([4, 3, 2], norm="layer", seed=0)
    tw.onnx.export(model, tmp_path / "model.onnx", name="tiny")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert {t.name: tuple(t.dims) for t in graph.initializer} == {k: v.shape for k, v in model.state_dict().items()}
    assert graph.name == "tiny"
    assert [d.dim_param or d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == ["rows", 2]


# ---- quantized models

WAYS: dict[str, dict[str, Any]] = {
    "dynamic": {}, "dynamic int4": {"bits": 4}, "dynamic balanced": {"smooth": 0.5},
    "dynamic one scale": {"per_channel": False},
    "static": {"method": "static"}, "static int4": {"method": "static", "bits": 4},
    "static balanced": {"method": "static", "smooth": 0.5}, "static but one": {"method": "static", "skip": ["3"]},
    "weight-only": {"method": "weight-only"}, "weight-only groups": {"method": "weight-only", "group_size": 24},
    "weight-only int4": {"method": "weight-only", "bits": 4},
    "weight-only int4 groups": {"method": "weight-only", "bits": 4, "group_size": 16},
}


@cache
def trained() -> tuple[Any, np.ndarray]:
    """A small MLP that knows the digits, and the digits."""
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
    x, labels = tw.data.load_digits()
    model = tw.nn.MLP([64, 32, 32, 10], dropout=0.1, seed=0)
    optimizer = tw.optim.Adam(model.parameters(), 3e-3)
    for rows, truth in (batch for _ in range(5) for batch in tw.data.Batches(x, labels, batch_size=64)):
        optimizer.zero_grad()
        tw.nn.cross_entropy(model(rows), truth).backward()
        optimizer.step()
    return model.eval(), x


def agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The same label for every row. Sums of floats in another order may tip an integer of a later layer, rarely."""
    np.testing.assert_array_equal(theirs.argmax(1), ours.argmax(1))
    assert np.median(np.abs(theirs - ours)) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_a_quantized_model(way: str, tmp_path: Path) -> None:
    model, x = trained()
    arguments = WAYS[way]
    needs = arguments.get("method") == "static" or "smooth" in arguments
    quantized = quant.quantize(model, calibration=x if needs else None, **arguments)
    for fusible in (False, True) if way.startswith("weight-only") else (False,):
        agree(*exported(quantized, x, tmp_path, fusible=fusible))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_trained_to_be_quantized(bits: int, tmp_path: Path) -> None:
    model, x = trained()
    learning = quant.prepare_qat(model, bits)
    learning(x)
    agree(*exported(quant.convert(learning), x, tmp_path))
    with pytest.raises(ArgumentError, match="0 is a QATLinear"):
        tw.onnx.export(learning, tmp_path / "not.onnx")


@pytest.mark.parametrize("method, bits, group_size", [
    ("dynamic", 8, None), ("static", 8, None),
    ("weight-only", 8, None), ("weight-only", 4, None), ("weight-only", 4, 8)])
def test_weights_with_zero_points(method: str, bits: int, group_size: int | None, tmp_path: Path,
                                  rng: np.random.Generator) -> None:
    w, x = rng.uniform(-1, 3, (5, 20)).astype(np.float32), rng.standard_normal((9, 20), np.float32)
    weight = tw.quantize_weight(w, bits, group_size, method="weight-only" if method == "weight-only" else "dynamic",
                                symmetric=False)
    assert weight.zero_points is not None and weight.zero_points.any()
    layer = (quant.StaticLinear(weight, input=quant.Grid.over(-3, 3)) if method == "static"
             else quant.QuantizedLinear(weight, np.arange(5)))
    for fusible in (False, True):
        ours, theirs = exported(layer, x, tmp_path, fusible=fusible)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_integers_may_come_in_and_go_out(tmp_path: Path, rng: np.random.Generator) -> None:
    weight = tw.quantize_weight(rng.standard_normal((3, 4), np.float32))
    layer = quant.StaticLinear(weight, input=quant.Grid.over(-3, 3), output=quant.Grid.over(-6, 6))
    fed = quant.StaticLinear(weight, input=quant.Grid.over(-6, 6), fed=True)
    rows, integers = rng.standard_normal((9, 4), np.float32), rng.integers(256, size=(9, 4), dtype=np.uint8)
    for model, x in ((layer, rows), (fed, integers)):
        ours, theirs = exported(model, x, tmp_path)
        assert theirs.dtype == ours.dtype
        np.testing.assert_array_equal(theirs, ours)


def test_without_the_onnx_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match="pip install onnx"):
        tw.onnx.export(tw.nn.Linear(2, 2), tmp_path / "model.onnx")
