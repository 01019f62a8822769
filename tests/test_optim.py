"""Optimizers against their formulas written out, schedules, clipping, and resuming to the bit."""
from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.core.errors import ArgumentError, DataError, DTypeError, ShapeError
from tilewright.data import Batches, read_safetensors, write_safetensors


@pytest.fixture(autouse=True)
def _numpy():
    with tw.use_backend("numpy"):
        yield


def sgd_by_hand(p, grads, lr, momentum, nesterov, weight_decay):
    buffer = np.zeros_like(p)
    for g in grads:
        g = g + weight_decay * p
        buffer = momentum * buffer + g
        p = p - lr * (g + momentum * buffer if nesterov else buffer if momentum else g)
    return p


def adam_by_hand(p, grads, lr, betas, eps, weight_decay, decoupled):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        p = p - lr / (1 - betas[0] ** t) * m / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


KINDS = {
    "sgd": (lambda ps: optim.SGD(ps, 0.1), lambda p, gs: sgd_by_hand(p, gs, 0.1, 0, False, 0)),
    "momentum": (lambda ps: optim.SGD(ps, 0.1, momentum=0.9, weight_decay=0.01),
                 lambda p, gs: sgd_by_hand(p, gs, 0.1, 0.9, False, 0.01)),
    "nesterov": (lambda ps: optim.SGD(ps, 0.1, momentum=0.9, nesterov=True),
                 lambda p, gs: sgd_by_hand(p, gs, 0.1, 0.9, True, 0)),
    "adam": (lambda ps: optim.Adam(ps, 0.1), lambda p, gs: adam_by_hand(p, gs, 0.1, (0.9, 0.999), 1e-8, 0, False)),
    "adam with decay": (lambda ps: optim.Adam(ps, 0.1, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
                        lambda p, gs: adam_by_hand(p, gs, 0.1, (0.8, 0.9), 1e-4, 0.1, False)),
    "adamw": (lambda ps: optim.AdamW(ps, 0.1, weight_decay=0.2),
              lambda p, gs: adam_by_hand(p, gs, 0.1, (0.9, 0.999), 1e-8, 0.2, True)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_formulas(kind):
    make, by_hand = KINDS[kind]
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(shape) for shape in ((3, 4), (5,), ())]
    grads = [[rng.standard_normal(s.shape) for s in starts] for _ in range(6)]
    params = [tw.Tensor(s.copy(), requires_grad=True) for s in starts]
    optimizer = make(params)
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g.copy()
        optimizer.step()
    for i, (p, start) in enumerate(zip(params, starts, strict=True)):
        np.testing.assert_allclose(p.data, by_hand(start, [step[i] for step in grads]), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_a_gradient_stay(kind):
    params = [tw.Tensor([float(i)], requires_grad=True) for i in range(3)]
    optimizer = KINDS[kind][0](params)
    optimizer.step()
    params[1].grad = np.array([1.0])
    optimizer.step()
    assert params[0].item() == 0 and params[2].item() == 2 and params[1].item() != 1
    optimizer.zero_grad()
    assert params[1].grad is None


def test_what_is_no_parameter():
    x = tw.Tensor([1.0], requires_grad=True)
    for bad in ([], [x * 2], [tw.Tensor([1.0])], [np.ones(2)]):
        with pytest.raises(ArgumentError):
            optim.SGD(bad, 0.1)
    for rate in (-1.0, math.nan):
        with pytest.raises(ArgumentError):
            optim.Adam([x], rate)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    whole, parts = (nn.MLP([5, 4, 3], seed=0, dtype=np.float64) for _ in range(2))
    nn.cross_entropy(whole(x), y).backward()
    for i in range(0, 8, 2):
        (nn.cross_entropy(parts(x[i:i + 2]), y[i:i + 2]) / 4).backward()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-12, atol=1e-15)


def test_clip_grad_norm():
    params = [tw.Tensor(np.zeros(n), requires_grad=True) for n in (2, 1, 3)]
    params[0].grad, params[1].grad = np.array([3.0, 0.0]), np.array([4.0])
    assert optim.clip_grad_norm(params, 10.0) == 5.0 and params[1].grad[0] == 4
    assert optim.clip_grad_norm(params, 1.0) == 5.0
    np.testing.assert_allclose([params[0].grad[0], params[1].grad[0]], [0.6, 0.8], rtol=1e-6)


# ---- schedules

def rates(make, count: int) -> list[float]:
    optimizer = optim.SGD([tw.Tensor([0.0], requires_grad=True)], lr=2.0)
    schedule = make(optimizer)
    found = []
    for _ in range(count):
        found.append(optimizer.lr)
        schedule.step()
    return found


def test_schedules():
    assert rates(lambda o: optim.StepLR(o, 2, 0.5), 5) == [2, 2, 1, 1, 0.5]
    np.testing.assert_allclose(rates(lambda o: optim.ExponentialLR(o, 0.9), 4), [2 * 0.9 ** n for n in range(4)])
    cosine = rates(lambda o: optim.CosineWithWarmup(o, 3, 11, final=0.1), 14)
    np.testing.assert_allclose(cosine[:4], [0.5, 1, 1.5, 2])
    np.testing.assert_allclose(cosine[7], 2 * 0.55)
    np.testing.assert_allclose(cosine[11:], [0.2] * 3)
    assert np.all(np.diff(cosine[3:12]) < 0)


def test_schedules_that_cannot_be():
    optimizer = optim.SGD([tw.Tensor([0.0], requires_grad=True)], lr=2.0)
    for make in (lambda: optim.StepLR(optimizer, 0), lambda: optim.CosineWithWarmup(optimizer, 5, 5),
                 lambda: optim.CosineWithWarmup(optimizer, -1, 5)):
        with pytest.raises(ArgumentError):
            make()
    assert optimizer.lr == 2.0


# ---- resuming

class Training:
    """Everything that a run consists of."""

    def __init__(self, kind: str, seed: int):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((50, 6), dtype=np.float32), rng.integers(0, 3, 50)
        self.model = nn.MLP([6, 16, 3], dropout=0.4, norm="layer", seed=seed)
        self.optimizer = KINDS[kind][0](self.model.parameters())
        self.schedule = optim.CosineWithWarmup(self.optimizer, 2, 20)
        self.batches = Batches(x, y, batch_size=8, seed=seed)
        self.losses: list[float] = []

    def run(self, steps: int) -> None:
        while steps:
            for x, y in self.batches:
                self.optimizer.zero_grad()
                loss = nn.cross_entropy(self.model(tw.Tensor(x)), y)
                loss.backward()
                optim.clip_grad_norm(self.model.parameters(), 0.5)
                self.optimizer.step()
                self.schedule.step()
                self.losses.append(loss.item())
                steps -= 1
                if not steps:
                    return

    def state(self) -> dict[str, np.ndarray]:
        parts = {"m": self.model, "o": self.optimizer, "s": self.schedule, "b": self.batches}
        return {f"{key}/{name}": a for key, part in parts.items() for name, a in part.state_dict().items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        for key, part in {"m": self.model, "o": self.optimizer, "s": self.schedule, "b": self.batches}.items():
            part.load_state_dict({name[2:]: a for name, a in state.items() if name[0] == key})


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_exact_to_the_bit(kind, tmp_path):
    whole, first, second = Training(kind, 1), Training(kind, 1), Training(kind, 99)
    whole.run(10)
    first.run(5)
    write_safetensors(tmp_path / "state", first.state())
    second.load(read_safetensors(tmp_path / "state")[0])
    second.run(5)
    assert first.losses + second.losses == whole.losses
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    for name, a in expected.items():
        assert a.tobytes() == found[name].tobytes(), name


@pytest.mark.parametrize("change, error", [
    (lambda s: s.pop("lr"), DataError), (lambda s: s.update({"exp_avg.9": np.ones(1)}), DataError),
    (lambda s: s.update({"exp_avg.0": np.ones((2, 2), np.float32)}), ShapeError),
    (lambda s: s.update({"steps": np.array(1.5)}), DTypeError)])
def test_an_optimizer_state_that_does_not_fit_changes_nothing(change, error):
    training, other = Training("adam", 0), Training("adam", 0)
    other.run(3)
    state, before = other.optimizer.state_dict(), training.optimizer.state_dict()
    change(state)
    with pytest.raises(error):
        training.optimizer.load_state_dict(state)
    with pytest.raises(DataError):
        training.optimizer.load_state_dict(Training("sgd", 0).optimizer.state_dict())
    assert all((training.optimizer.state_dict()[name] == a).all() for name, a in before.items())
