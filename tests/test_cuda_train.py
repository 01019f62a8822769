"""A two-layer MLP trained on emulated CUDA: the losses of the CPU backends, as far as float32 determines them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import conformance
import tilewright as tw
from tilewright.core import device

SIZES, BATCH, STEPS = (12, 16, 5), 20, 10
# What a step rounds, relative to the magnitudes: sums of so many terms, forward and backward, and the update.
ROUNDINGS = 2 * sum(SIZES) + BATCH + 16


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Emulated CUDA for the test, and the names of the kernels that ran there."""
    if reason := conformance.no_emulator():
        pytest.skip(reason)
    here, names = conformance.emulated_device(), []
    real = here.launch

    def launch(kernel: Any, *args: Any) -> None:
        names.append(kernel.name)
        real(kernel, *args)
    monkeypatch.setattr(here, "launch", launch)
    with device.using(here):
        yield names


def train(dtype: Any, shake: float = 0.0, seed: int = 0) -> np.ndarray:
    """The losses; after each step every parameter is off by a random `shake`, relative to it and to its step."""
    rng, data = np.random.default_rng(seed), np.random.default_rng(1)
    net = tw.nn.Sequential(tw.nn.Linear(*SIZES[:2], seed=2), tw.nn.ReLU(), tw.nn.Linear(*SIZES[1:], seed=3))
    for p in net.parameters():
        p.data = p.data.astype(dtype)
    x, labels = data.standard_normal((BATCH, SIZES[0])).astype(np.float32).astype(dtype), data.integers(0, 5, BATCH)
    optimizer = tw.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = tw.nn.cross_entropy(net(tw.Tensor(x)), labels)
        loss.backward()
        before = [p.data.copy() for p in net.parameters()]
        optimizer.step()
        for p, old in zip(net.parameters(), before, strict=True):
            largest = np.abs(p.data).max() + np.abs(p.data - old).max()
            p.data += (shake * largest * rng.choice((-1, 1), p.data.shape)).astype(dtype)
        losses.append(loss.item())
    return np.array(losses)


def test_losses_are_those_of_the_cpu(launched: list[str]) -> None:
    u = np.finfo(np.float32).eps / 2
    with tw.use_backend("numpy"):
        exact = train(np.float64)
        spread = np.max([np.abs(train(np.float64, ROUNDINGS * u, seed) - exact) for seed in range(8)], axis=0)
    allowed = spread + ROUNDINGS * u * exact
    assert exact[-1] < 0.7 * exact[0] and allowed.max() < 1e-3 * exact[-1]
    for backend in set(conformance.backends()) - {"cuda"}:
        with tw.use_backend(backend):
            assert (np.abs(train(np.float32) - exact) <= allowed).all(), backend
    assert not launched
    with tw.use_backend("cuda"):
        found = train(np.float32)
        assert (np.abs(found - exact) <= allowed).all(), (found, exact, allowed)
    for family in ("gemm", "activation", "loss", "optimizer"):
        assert any(name.startswith(f"tw_{family}_") for name in launched), family
