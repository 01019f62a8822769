"""Whole models against an MLP written out by hand in float64 NumPy: loss and every gradient, on every backend."""
from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw

PHI = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
SIGMOID = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
# name: the function and its derivative
ACTIVATIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(z)), lambda z: np.where(z > 0, 1, np.exp(z))),
    "gelu": (lambda z: z * PHI(z), lambda z: PHI(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)),
    "silu": (lambda z: z * SIGMOID(z), lambda z: SIGMOID(z) * (1 + z * (1 - SIGMOID(z)))),
    "sigmoid": (SIGMOID, lambda z: SIGMOID(z) * (1 - SIGMOID(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "softplus": (lambda z: np.log1p(np.exp(z)), SIGMOID),
}


def by_hand(weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray,
            activation: str) -> tuple[float, list[np.ndarray]]:
    """Loss and gradients of [w1 (n1, n0), b1 (n1,), w2, b2, ...] for x (R, n0), by the chain rule, in float64."""
    f, df = ACTIVATIONS[activation]
    weights = [w.astype(np.float64) for w in weights]
    inputs, sums = [x.astype(np.float64)], []
    for w, b in zip(weights[::2], weights[1::2], strict=True):
        sums.append(inputs[-1] @ w.T + b)
        inputs.append(f(sums[-1]))
    z = sums[-1] - sums[-1].max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    rows = np.arange(len(x))
    loss = -log_p[rows, labels].mean()
    dz = np.exp(log_p)
    dz[rows, labels] -= 1
    dz /= len(x)
    grads: list[np.ndarray] = []
    for i in reversed(range(len(sums))):
        grads = [dz.T @ inputs[i], dz.sum(0), *grads]
        if i:
            dz = (dz @ weights[2 * i]) * df(sums[i - 1])
    return float(loss), grads


@pytest.mark.parametrize("backend", tw.backends())
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_loss_and_gradients(activation, backend):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((37, 19), dtype=np.float32)
    labels = rng.integers(0, 7, 37)
    model = tw.nn.MLP([19, 33, 18, 7], activation=activation, seed=1)
    with tw.use_backend(backend):
        loss = tw.nn.cross_entropy(model(tw.Tensor(x)), labels)
        loss.backward()
    expected, grads = by_hand([p.data for p in model.parameters()], x, labels, activation)
    assert loss.dtype == np.float32 and abs(loss.item() - expected) < 2e-6 * abs(expected)
    for (name, p), g in zip(model.named_parameters(), grads, strict=True):
        assert p.grad.dtype == np.float32 and p.grad.shape == p.shape
        # about a hundred roundings of terms no larger than the largest gradient
        assert np.abs(p.grad - g).max() <= 100 * np.finfo(np.float32).eps * np.abs(g).max(), name


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_in_float64_to_the_last_digits(activation):
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    model = tw.nn.MLP([5, 6, 3], activation=activation, seed=1, dtype=np.float64)
    with tw.use_backend("numpy"):
        loss = tw.nn.cross_entropy(model(tw.Tensor(x)), labels)
        loss.backward()
    expected, grads = by_hand([p.data for p in model.parameters()], x, labels, activation)
    assert abs(loss.item() - expected) < 1e-14
    for p, g in zip(model.parameters(), grads, strict=True):
        np.testing.assert_allclose(p.grad, g, rtol=1e-12, atol=1e-15)


def test_the_input_gets_its_gradient_too():
    """The layer skips dx where nobody asks; here somebody does."""
    rng = np.random.default_rng(5)
    model = tw.nn.MLP([4, 6, 3], activation="tanh", seed=1, norm="rms", dtype=np.float64)
    labels = np.array([0, 2, 1])
    with tw.use_backend("numpy"):
        assert tw.gradcheck(lambda x: tw.nn.cross_entropy(model(x), labels), [rng.standard_normal((3, 4))])
        frozen = tw.nn.Linear(4, 2, seed=0, dtype=np.float64)
        frozen.weight.requires_grad_(False)
        assert tw.gradcheck(lambda x: frozen(x), [rng.standard_normal((2, 3, 4))])
