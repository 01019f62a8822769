"""Fake quantization rounds as the integers do, lets the right gradients through, and trains what `convert` makes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.core.errors import ArgumentError, DTypeError
from tilewright.quant import convert, prepare_qat, quantize
from tilewright.quant.qat import FakeQuantizeInput, FakeQuantizeWeight, to_grid


def rounded(x: np.ndarray, scale: float, zero: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    y, inside = np.full_like(x, np.nan), np.empty(x.shape, bool)
    to_grid(x, np.float32(scale), zero, low, high, y, inside)
    return y, inside


@pytest.mark.parametrize("zero", [0, 3, 128, 255])
@pytest.mark.parametrize("scale", [1.0, 0.1, 2.0 ** -100, 3e30])
def test_the_result_is_that_of_the_integers(scale: float, zero: int, rng: np.random.Generator) -> None:
    x = np.concatenate([
        rng.standard_normal(1000) * 200 * scale, (np.arange(-300, 300) + 0.5) * scale,  # ties
        [0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45]]).astype(np.float32)
    y, inside = rounded(x, scale, zero, 0, 255)
    q = tw.quantize_linear(x, np.float32(scale), np.uint8(zero))
    expected = tw.dequantize_linear(q, np.float32(scale), np.uint8(zero))
    np.testing.assert_array_equal(y.view(np.uint32), expected.view(np.uint32))
    wide = tw.quantize_linear(x, np.float32(scale), np.int16(zero))
    np.testing.assert_array_equal(inside, (wide >= 0) & (wide <= 255))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_those_of_quantize_weight(bits: int, per_channel: bool, rng: np.random.Generator) -> None:
    w = rng.standard_normal((7, 33), np.float32) * np.float32([[1e-38], [0], [1], [1e-3], [1e30], [5], [2]])
    y = FakeQuantizeWeight(bits, per_channel)(w).data
    expected = tw.quantize_weight(w if per_channel else w.reshape(1, -1), bits).dequantize().reshape(w.shape)
    np.testing.assert_array_equal(y, expected)


def test_gradients_pass_where_nothing_was_clipped() -> None:
    node = FakeQuantizeInput(8, momentum=0.5)
    node.range = np.array([-1.0, 1.0])
    x = tw.Tensor(np.float32([-2, -1, 0, 0.3, 1, 1.5]), requires_grad=True)
    node.eval()(x).backward(np.arange(1, 7, dtype=np.float32))
    assert x.grad is not None and x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    weight = tw.Tensor(np.float32([[-2, 1], [0, 0]]), requires_grad=True)
    FakeQuantizeWeight(4, True)(weight).backward(np.ones((2, 2), np.float32))
    assert weight.grad is not None and (weight.grad == 1).all()


def test_the_range_follows_the_batches_in_training_only(tmp_path: Path) -> None:
    node = FakeQuantizeInput(8, momentum=0.25)
    with pytest.raises(ArgumentError, match="no batch"):
        node.eval()(np.ones(3, np.float32))
    node.train()(np.float32([1, 2]))
    assert node.range.tolist() == [0, 2]
    node(np.float32([-4, 6]))
    assert node.range.tolist() == [-1, 3]
    node.eval()(np.float32([100]))
    assert node.range.tolist() == [-1, 3]
    node.train()
    for bad in (np.nan, np.inf):
        with pytest.raises(ArgumentError, match="NaN or an infinity"):
            node(np.float32([0, bad]))
    other = FakeQuantizeInput(8, momentum=0.25)
    other.load_state_dict(node.state_dict())
    assert other.range.tolist() == [-1, 3]


def trained(model: Any, x: np.ndarray, labels: np.ndarray, steps: int, compiled: bool = False) -> float:
    optimizer = tw.optim.Adam(model.parameters(), 2e-3)

    def step(x: np.ndarray, labels: np.ndarray) -> Any:
        optimizer.zero_grad()
        loss = tw.nn.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    step = tw.compile(step) if compiled else step
    return [step(x[i::8], labels[i::8]).item() for _ in range(steps) for i in range(8)][-1]


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
    x, labels = tw.data.load_digits()
    return x[:800], labels[:800]


@pytest.mark.parametrize("bits", [4, 8])
def test_convert_makes_what_was_trained(bits: int, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """The integers compute what the fake-quantized model does, up to the order of float sums."""
    x, labels = digits
    model = tw.nn.MLP([64, 24, 24, 10], dropout=0.1, norm="layer", seed=3)
    before = model.state_dict()
    learning = prepare_qat(model, bits)
    trained(learning, x, labels, 4)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])  # the float model stays as it is
    converted = convert(learning)
    kinds = [type(m).__name__ for _, m in converted.named_modules()]
    assert kinds.count("StaticLinear") == 3 and "QATLinear" not in kinds
    ours, expected = converted(x).data, learning.eval()(x).data
    assert np.mean(ours.argmax(1) == expected.argmax(1)) > 0.99
    assert np.mean(expected.argmax(1) == labels) > 0.7
    # A sum in another order may round an input of the next layer to its neighbour: close, and mostly equal.
    assert np.median(np.abs(ours - expected)) < 1e-5


def test_convert_is_quantize_with_the_learned_ranges(rng: np.random.Generator) -> None:
    """One batch with momentum 1: the ranges are those that calibration finds on it."""
    x = rng.standard_normal((40, 6), np.float32)
    model = tw.nn.MLP([6, 5], seed=0)
    for bits in (4, 8):
        learning = prepare_qat(model, bits, momentum=1.0, per_channel=False)
        learning(x)
        mine, other = (m.state_dict() for m in (convert(learning), quantize(model, "static", calibration=x, bits=bits,
                                                                          per_channel=False)))
        assert mine.keys() == other.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name], err_msg=name)


def test_a_step_can_be_compiled(digits: tuple[np.ndarray, np.ndarray]) -> None:
    losses, states = [], []
    for compiled in (False, True):
        model = prepare_qat(tw.nn.MLP([64, 16, 10], seed=1), 4)
        losses.append(trained(model, *digits, 2, compiled))
        states.append(model.state_dict())
    assert losses[0] == losses[1]
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)


def test_the_state_is_saved_and_loaded(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 4), np.float32)
    first, second = (prepare_qat(tw.nn.MLP([4, 3, 2], seed=seed)) for seed in (0, 1))
    first(x)
    first.save(tmp_path / "m.safetensors")
    second.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(first.eval()(x).data, second.eval()(x).data)


def test_bad_arguments() -> None:
    model = tw.nn.MLP([4, 3, 2], seed=0)
    with pytest.raises(ArgumentError, match="bits is 8 or 4, not 2"):
        prepare_qat(model, 2)
    with pytest.raises(ArgumentError, match="momentum"):
        prepare_qat(model, momentum=0.0)
    with pytest.raises(ArgumentError, match="'nothing' to skip"):
        prepare_qat(model, skip=["nothing"])
    with pytest.raises(DTypeError, match="layer '0' is float64"):
        prepare_qat(tw.nn.MLP([4, 2], dtype=np.float64))
    with pytest.raises(ArgumentError, match="prepare_qat"):
        convert(model)
    with pytest.raises(ArgumentError, match="no batch"):
        convert(prepare_qat(model))
    skipping = prepare_qat(model, skip=["0"])
    skipping(np.ones((2, 4), np.float32))
    assert [type(layer).__name__ for layer in convert(skipping).layers] == ["Linear", "ReLU", "StaticLinear"]
