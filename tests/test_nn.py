"""Modules: structure, initialisation, state, saving and loading; layers and losses."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn
from tilewright.core import registry
from tilewright.core.errors import ArgumentError, DataError, DTypeError, ShapeError
from tilewright.data import read_safetensors, write_safetensors


@pytest.fixture(autouse=True)
def _numpy():
    with tw.use_backend("numpy"):
        yield


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def full_model(seed: int = 0) -> nn.MLP:
    return nn.MLP([6, 8, 7, 3], activation="gelu", dropout=0.3, norm="layer", seed=seed)


# ---- structure

def test_an_mlp():
    model = full_model()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Linear", "LayerNorm", "GELU", "Dropout"] * 2 + ["Linear"] and len(model) == 9
    assert [name for name, _ in model.named_parameters()] == [
        f"{i}.{name}" for i in (0, 1, 4, 5, 8) for name in ("weight", "bias")]
    assert all(p.dtype == np.float32 and p.requires_grad and p.is_leaf for p in model.parameters())
    assert model(rows(5, 6)).shape == (5, 3) and model(rows(2, 5, 6)).shape == (2, 5, 3)
    assert nn.MLP([4, 2], seed=0)(rows(3, 4)).shape == (3, 2)


@pytest.mark.parametrize("arguments, given", [(([4],), {}), (([4, 3, 2], "swoosh"), {}),
                                              (([4, 3, 2],), {"norm": "batch"}), (([4, 3, 2],), {"dropout": 1.5})])
def test_an_mlp_that_cannot_be(arguments, given):
    with pytest.raises(ArgumentError):
        nn.MLP(*arguments, **given)


def test_nested_and_shared_modules():
    class Twin(nn.Module):
        def __init__(self):
            self.first = nn.Linear(3, 3, seed=0)
            self.many = [nn.Linear(3, 3, seed=1), nn.Sequential(nn.Linear(3, 3, False, seed=2))]
            self.again = self.first
            self.scale = nn.Parameter(np.ones(3, np.float32))
            self.constant = tw.Tensor([1.0])

        def forward(self, x):
            return self.many[1](self.many[0](self.again(self.first(x)))) * self.scale

    twin = Twin()
    names = [name for name, _ in twin.named_parameters()]
    assert names == ["scale", "first.weight", "first.bias", "many.0.weight", "many.0.bias", "many.1.0.weight"]
    twin(rows(2, 3)).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    twin.zero_grad()
    assert all(p.grad is None for p in twin.parameters())
    assert not twin.eval().many[1].layers[0].training and twin.train().first.training
    with pytest.raises(NotImplementedError, match="Module"):
        nn.Module()(1)


def test_initialisation_is_pytorchs_and_seeded():
    layer = nn.Linear(100, 50, seed=3)
    for p in layer.parameters():
        assert np.abs(p.data).max() <= 0.1 and np.abs(p.data).max() > 0.09 and abs(p.data.mean()) < 0.03
    for same, seed in ((True, 3), (False, 4)):
        assert (nn.Linear(100, 50, seed=seed).weight.data == layer.weight.data).all() == same
    first, second = nn.MLP([4, 4, 4], seed=0).parameters()[::2]
    assert (first.data != second.data).any()
    assert (nn.Embedding(5, 2, seed=1).weight.data == nn.Embedding(5, 2, seed=1).weight.data).all()


def test_every_activation_of_the_table_has_a_module():
    ops = {name for name, spec in registry.specs().items()
           if spec.family == "activation" and not name.endswith("_backward")}
    assert {c.op for c in nn.Activation.__subclasses__()} == ops


@pytest.mark.parametrize("layer", [*nn.Activation.__subclasses__(), lambda: nn.GELU("tanh"), lambda: nn.LeakyReLU(0.2),
                                   lambda: nn.ELU(2.0)])
def test_a_fused_activation_is_the_activation(layer):
    linear, activation = nn.Linear(5, 4, seed=0, dtype=np.float64), layer()
    x = np.random.default_rng(1).standard_normal((3, 5))
    fused, apart = nn.Sequential(linear, activation), lambda x: activation(linear(x))
    np.testing.assert_allclose(fused(x).data, apart(tw.Tensor(x)).data, rtol=1e-14)
    assert tw.gradcheck(fused, [x]) and tw.gradcheck(apart, [x])
    grads = []
    for function in (fused, apart):
        linear.zero_grad()
        (function(tw.Tensor(x)) ** 2).sum().backward()
        grads.append([p.grad for p in linear.parameters()])
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    with tw.no_grad():
        np.testing.assert_allclose(fused(x).data, apart(x).data, rtol=1e-14)


def test_norms_and_embedding():
    x = rows(4, 6)
    for layer in (nn.LayerNorm(6), nn.RMSNorm(6)):
        y = layer(x).data
        np.testing.assert_allclose((y.astype(np.float64) ** 2).mean(-1), 1, atol=1e-4)
    table = nn.Embedding(7, 3, seed=0)
    y = table(np.array([[1, 1], [6, 0]]))
    assert y.shape == (2, 2, 3)
    y.sum().backward()
    assert table.weight.grad[:, 0].tolist() == [1, 2, 0, 0, 0, 0, 1]


def test_models_are_copied_and_pickled():
    model, x = full_model().eval(), rows(5, 6)
    expected = model(x).data
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (other(x).data == expected).all()
        other.layers[0].weight.data[:] = 0
    assert (model(x).data == expected).all()


# ---- dropout

def test_dropout_depends_on_seed_and_count_only():
    x = np.ones(1000, np.float32)
    first, second = nn.Dropout(0.25, seed=5), nn.Dropout(0.25, seed=5)
    a, b = first(x).data, first(x).data
    assert (a != b).any() and set(a) == {0, np.float32(4 / 3)} and 650 < np.count_nonzero(a) < 850
    assert (second(x).data == a).all() and (second(x).data == b).all()
    assert (nn.Dropout(0.25, seed=6)(x).data != a).any()
    first.eval()
    assert (first(x).data == 1).all() and first.calls == 2, "evaluating does not disturb the order"
    for bad in ({"p": 2.0}, {"seed": -1}, {"seed": 2**32}):
        with pytest.raises(ArgumentError):
            nn.Dropout(**bad)


def test_two_dropouts_of_a_model_differ():
    seeds = [m.seed for _, m in full_model().named_modules() if isinstance(m, nn.Dropout)]
    assert len(set(seeds)) == 2


# ---- losses

def test_mse_loss():
    a, b = rows(3, 4), rows(4, 3).T
    assert nn.mse_loss(a, b).item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-6)
    assert nn.mse_loss(a, tw.Tensor(b), reduction="sum").item() == pytest.approx(((a - b) ** 2).sum(), rel=1e-6)
    assert nn.mse_loss(a, b, reduction="none").shape == (3, 4)
    with pytest.raises(ShapeError):  # no silent broadcasting
        nn.mse_loss(a, b[0])
    with pytest.raises(ArgumentError):
        nn.mse_loss(a, b, reduction="median")


def test_cross_entropy():
    logits, labels = tw.Tensor(rows(6, 4), requires_grad=True), np.array([0, 3, -100, 2, 1, 1])
    each = nn.cross_entropy(logits, labels, reduction="none")
    assert each.shape == (6,) and each.data[2] == 0
    assert nn.cross_entropy(logits, labels).item() == pytest.approx(each.data.sum() / 5, rel=1e-6)
    nn.cross_entropy(logits, labels, label_smoothing=0.1).backward()
    assert (logits.grad[2] == 0).all() and np.abs(logits.grad.sum(1)).max() < 1e-7
    with pytest.raises(ArgumentError):
        nn.cross_entropy(logits, labels + 1)
    with pytest.raises(DTypeError):
        nn.cross_entropy(logits, np.zeros(6))


# ---- state

def test_state_is_copied_and_complete():
    model, x = full_model(), rows(5, 6)
    model(x)
    state = model.state_dict()
    expected = model(x).data
    other = full_model(seed=9)
    other.load_state_dict(state)
    assert (other(x).data == expected).all(), "also dropout's seed and count"
    state["0.weight"][:] = 0
    assert (model.state_dict()["0.weight"] != 0).any()


@pytest.mark.parametrize("change, error", [
    (lambda s: s.pop("4.bias"), DataError), (lambda s: s.update(extra=np.ones(1)), DataError),
    (lambda s: s.update({"8.weight": np.ones((3, 8), np.float32)}), ShapeError),
    (lambda s: s.update({"8.weight": np.ones((3, 7))}), DTypeError),
    (lambda s: s.update({"3.seed_and_calls": np.ones(3, np.int64)}), ShapeError),
])
def test_a_state_that_does_not_fit_changes_nothing(change, error, tmp_path):
    model = full_model()
    before = model.state_dict()
    state = full_model(seed=1).state_dict()
    change(state)
    with pytest.raises(error):
        model.load_state_dict(state)
    write_safetensors(tmp_path / "bad.safetensors", state)
    with pytest.raises(error, match="bad.safetensors"):
        model.load(tmp_path / "bad.safetensors")
    (tmp_path / "bad.safetensors").write_bytes((tmp_path / "bad.safetensors").read_bytes()[:-1])
    with pytest.raises(DataError, match="bad.safetensors"):
        model.load(tmp_path / "bad.safetensors")
    assert all((model.state_dict()[name] == a).all() for name, a in before.items())


def test_save_and_load(tmp_path):
    model, other, path = full_model(), full_model(seed=2), tmp_path / "model.safetensors"
    model.save(path, {"note": "x"})
    assert other.load(path) == {"note": "x"}
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (p.data == q.data).all(), name
    assert set(read_safetensors(path)[0]) == set(model.state_dict())


def test_loading_between_forward_and_backward_raises():
    model = nn.MLP([6, 4, 3], seed=0)
    loss = model(rows(5, 6)).sum()
    model.load_state_dict(nn.MLP([6, 4, 3], seed=1).state_dict())
    with pytest.raises(tw.errors.GradientError, match="modified in place"):
        loss.backward()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_layer_of_another_dtype_than_its_input_has_gradients(activation):
    rng = np.random.default_rng(0)
    narrow, wide = tw.nn.Linear(3, 2, seed=0), tw.nn.Linear(3, 2, seed=0, dtype=np.float64)
    wide.load_state_dict({name: value.astype(np.float64) for name, value in narrow.state_dict().items()})
    x = rng.standard_normal((4, 3))
    for layer in (narrow, wide):
        tw.nn.Sequential(layer, {"relu": tw.nn.ReLU, "gelu": tw.nn.GELU}[activation]())(tw.Tensor(x)).sum().backward()
    for mixed, p in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert mixed.grad.dtype == np.float32
        np.testing.assert_allclose(mixed.grad, p.grad, rtol=1e-6, atol=1e-7)
