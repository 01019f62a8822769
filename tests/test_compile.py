"""tw.compile: the bits of the eager step, whatever changes from call to call, and a clear refusal of what cannot be."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.core.errors import ArgumentError, ReplayError

SGD, Adam = tw.optim.SGD, tw.optim.Adam
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": SGD, "momentum": lambda p: SGD(p, momentum=0.9, nesterov=True), "adam": Adam, "adamw": tw.optim.AdamW}
MODELS: dict[str, dict[str, Any]] = {
    "relu": {}, "gelu": {"activation": "gelu"}, "tanh, dropout": {"activation": "tanh", "dropout": 0.3},
    "silu, layer norm": {"activation": "silu", "norm": "layer"}, "rms norm": {"norm": "rms", "bias": False}}


def batches(count: int, rows: int = 12, dtype: Any = np.float32) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [(rng.standard_normal((rows, 9)).astype(dtype), rng.integers(0, 7, rows)) for _ in range(count)]


class Training:
    """A model, its optimizer and one step; two of them with the same arguments do the same."""

    def __init__(self, model: str = "relu", optimizer: str = "adam", dtype: Any = np.float32,
                 loss: Callable[..., Any] = tw.nn.cross_entropy):
        self.model = tw.nn.MLP([9, 20, 17, 7], seed=0, dtype=dtype, **MODELS[model])
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.loss = loss

    def step(self, x: Any, labels: Any) -> tw.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def bits(self) -> list[bytes]:
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        return [a.tobytes() for a in (*self.model.state_dict().values(), *self.optimizer.state_dict().values(), *grads)]


def same(eager: Training, replayed: Training, calls: list[tuple], between: Callable[[Training], Any] = lambda t: None,
         step: Callable[[Training], Any] = lambda t: t.step) -> None:
    """Both make all calls and stand where the other stands after each."""
    one, other = step(eager), tw.compile(step(replayed))
    results = [(one(*args), other(*args), between(eager), between(replayed), eager.bits() == replayed.bits())
               for args in calls]
    for i, (a, b, _, _, equal) in enumerate(results):  # results stay what they were
        assert equal, i
        assert (a is None and b is None) or (a.data.tobytes() == b.data.tobytes() and a.dtype == b.dtype), i


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_bits_are_those_of_the_step(model: str, optimizer: str, backend: str) -> None:
    with tw.use_backend(backend):
        same(Training(model, optimizer), Training(model, optimizer), batches(20))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_dtypes_and_kinds_of_arguments(dtype: Any) -> None:
    """Each form of arguments is recorded for itself."""
    calls = [call for rows in (12, 5, 12, 1) for call in batches(4, rows, dtype)]
    calls += [(tw.Tensor(x), labels.astype(np.int32)) for x, labels in batches(4, 12, dtype)]
    calls += [(x[::-1], labels) for x, labels in batches(4, 12, dtype)]
    same(Training(dtype=dtype), Training(dtype=dtype), calls)


def test_losses_reshapes_and_results() -> None:
    goals = [(x, np.outer(labels, np.ones(7)).astype(np.float32)) for x, labels in batches(6)]
    for reduction in ("mean", "sum"):
        def loss(y: Any, goal: Any, reduction: str = reduction) -> Any:
            return tw.nn.mse_loss(y, goal, reduction=reduction)
        same(Training(loss=loss), Training(loss=loss), goals)

    def flat(t: Training) -> Callable[..., Any]:
        return lambda x, labels: t.step(tw.Tensor(x).reshape(12, 9), labels)
    same(Training(), Training(), [(x.reshape(12, 3, 3), labels) for x, labels in batches(6)], step=flat)

    def silent(t: Training) -> Callable[..., Any]:
        return lambda x, labels: t.step(x, labels) and None
    same(Training(), Training(), batches(6), step=silent)


def test_embeddings(backend: str) -> None:
    class Words(Training):
        def __init__(self) -> None:
            super().__init__()
            self.words = tw.nn.Embedding(30, 3, seed=1)
            self.optimizer = Adam([*self.model.parameters(), *self.words.parameters()])

        def step(self, x: Any, labels: Any) -> Any:
            return super().step(self.words(x).reshape(12, 9), labels)

        def bits(self) -> list[bytes]:
            return [*super().bits(), self.words.weight.data.tobytes(), self.words.weight.grad.tobytes()]
    with tw.use_backend(backend):
        calls = [((x[:, :3] * 4).astype(np.int64) % 30, labels) for x, labels in batches(8)]
        same(Words(), Words(), calls)


def test_both_results_of_a_tuple() -> None:
    t = Training()
    step = tw.compile(lambda x, labels: (y := t.model(x), t.loss(y, labels)))
    for x, labels in batches(4):
        y, loss = step(x, labels)
        assert y.data.tobytes() == t.model(x).data.tobytes() and not y.requires_grad
        assert loss.item() == t.loss(t.model(x), labels).item()


def test_learning_rates_clipping_and_several_backwards() -> None:
    def between(t: Training) -> None:
        t.optimizer.lr *= 0.9
    same(Training(), Training(), batches(8), between)

    def scheduled(t: Training) -> Callable[..., Any]:
        schedule = tw.optim.CosineWithWarmup(t.optimizer, 2, 9)

        def step(x: Any, labels: Any) -> Any:
            t.optimizer.zero_grad()
            for half in (slice(0, 6), slice(6, 12)):
                t.loss(t.model(x[half]), labels[half], reduction="sum").backward()
            tw.optim.clip_grad_norm(t.model.parameters(), 0.5)
            t.optimizer.step()
            schedule.step()
        return step
    same(Training(), Training(), batches(9), step=scheduled)


def test_a_loaded_state_and_new_parameters_are_seen() -> None:
    start = Training().model.state_dict()
    replayed, eager = Training(), Training()

    def load(t: Training) -> None:
        t.model.load_state_dict(start)
        t.model.parameters()[1].grad = None
        if t.optimizer.steps == 5:
            t.model.parameters()[0].data = np.full((20, 9), 0.01, np.float32)
    same(eager, replayed, batches(9), load)


def test_wrong_labels_are_refused_by_the_operation() -> None:
    t = Training()
    step = tw.compile(t.step)
    for x, labels in batches(4):
        step(x, labels)
    t.optimizer.zero_grad()
    before = t.bits()
    with pytest.raises(ArgumentError, match="cross_entropy"):
        step(x, labels + 7)
    assert t.bits() == before
    step(x, labels)


def test_what_changes_unseen_is_refused() -> None:
    t, noise = Training(), np.random.default_rng(0)
    turns: list[int] = []

    def augmented(x: Any, labels: Any) -> Any:
        return t.step(x + noise.standard_normal(x.shape).astype(x.dtype), labels)

    def uneven(x: Any, labels: Any) -> None:
        turns.append(1)
        for _ in turns:
            t.step(x, labels)

    def number(x: Any, labels: Any) -> Any:
        turns.append(1)
        return tw.Tensor(tw.gemm(x, t.model[0].weight.data, alpha=len(turns), trans_b=True))

    def kept(x: Any, labels: Any) -> Any:
        loss = t.loss(t.model(x), labels)
        loss.backward()  # adds to what other steps left
        t.optimizer.step()
        return loss
    x, labels = batches(1)[0]
    for step, why in ((augmented, "linear"), (uneven, "the first step makes"), (number, "gemm")):
        compiled = tw.compile(step)
        compiled(x, labels)
        for _ in range(2):
            with pytest.raises(ReplayError, match=why):
                compiled(x, labels)
    for step, why in ((lambda x, labels: (t.loss(t.model(x), labels) * 2).backward(), "multiply"),
                      (lambda x, labels: t.model(x).exp(), "exp"),
                      (lambda x, labels: t.step(x, labels).item(), "not floats"),
                      (lambda x, labels: tw.Tensor(t.model(x).data + 1), "not Tensors")):
        with pytest.raises(ReplayError, match=why):
            tw.compile(step)(x, labels)
    t.optimizer.zero_grad()
    compiled = tw.compile(kept)
    compiled(x, labels)
    with pytest.raises(ReplayError, match="carry_over"):
        compiled(x, labels)


def test_other_arguments_are_refused() -> None:
    step = tw.compile(lambda x: None)
    for bad in ([1, 2], {}, tw.Tensor([1.0], requires_grad=True)):
        with pytest.raises(ArgumentError, match="compile"):
            step(bad)


def test_plain_arguments_are_part_of_the_form() -> None:
    t = Training()
    x, labels = batches(1)[0]
    step = tw.compile(lambda x, which: tw.nn.cross_entropy(t.model(x), labels, reduction=which))
    for which in ("mean", "sum") * 4:
        assert step(x, which).item() == tw.nn.cross_entropy(t.model(x), labels, reduction=which).item()
    assert step.__wrapped__(x, "sum").item() == step(x, "sum").item()
