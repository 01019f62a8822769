"""Every gradient against central differences in float64: the table's, by enumeration, and the elementary functions'."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

import tilewright as tw
from tilewright.autograd import apply
from tilewright.autograd.elementary import RULES
from tilewright.core import registry
from tilewright.core.errors import ArgumentError, GradientError

CASES = 6          # of each operation
LARGEST_INPUT = 64  # elements; differences take two calls for each


def small_cases(spec: registry.Spec):
    """Cases with few and finite elements, integers or floats."""
    for case in spec.cases(np.random.default_rng(7), "float64"):
        arrays = [np.asarray(x) for x in case.inputs if x is not None]
        if arrays and all(0 < a.size <= LARGEST_INPUT and np.isfinite(a).all() for a in arrays):
            yield case


@pytest.mark.parametrize("op", [s.name for s in registry.specs().values() if s.gradient and "float64" in s.dtypes])
def test_gradients_of_the_table(op):
    checked = 0
    for case in itertools.islice(small_cases(registry.spec(op)), CASES):
        given = [i for i, x in enumerate(case.inputs) if isinstance(x, np.ndarray)]  # a PackedMatrix is a constant

        def function(*tensors, case=case, given=given):
            inputs = list(case.inputs)
            for i, t in zip(given, tensors, strict=True):
                inputs[i] = t
            return apply(op, inputs, case.attrs, "numpy")

        assert tw.gradcheck(function, [case.inputs[i] for i in given]), case.label
        checked += 1
    assert checked, f"{op} has no case that is small enough"


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + 0.3


FUNCTIONS = {
    "add": (lambda a, b: a + b, normal(3, 4), normal(3, 4)),
    "add broadcast": (lambda a, b: a + b, normal(3, 1), normal(2, 1, 4)),
    "add a number": (lambda a: 2.5 + a + 1, normal(3)),
    "subtract": (lambda a, b: (a - b) - (1.0 - a), normal(3, 4), normal(4)),
    "multiply broadcast": (lambda a, b: a * b, normal(4, 1), normal(3)),
    "multiply an array": (lambda a: a * np.arange(4.0) + np.ones((2, 4)) * a, normal(4)),
    "divide": (lambda a, b: a / b, normal(2, 3), positive(3)),
    "divide a number": (lambda a: 2.0 / a, positive(4)),
    "negative": (lambda a: -a, normal(3)),
    "abs": (lambda a: abs(a) + a.abs(), normal(5)),
    "power": (lambda a, b: a ** b, positive(2, 3), normal(3)),
    "power of a number": (lambda a: 2.0 ** a, normal(3)),
    "power by a number": (lambda a: a ** 3 + a.pow(2), normal(3)),
    "exp, log, sqrt": (lambda a: a.exp() + a.log() + a.sqrt(), positive(6)),
    "sum": (lambda a: a.sum() * a.sum(axis=0), normal(3, 4)),
    "sum over several axes": (lambda a: a.sum(axis=(0, -1)) + a.sum((0, 2), keepdims=True).reshape(3), normal(2, 3, 4)),
    "mean": (lambda a: a.mean() * a.mean(axis=1, keepdims=True), normal(3, 4)),
    "max": (lambda a: a.max() + a.max(axis=-1) + a.max(axis=0, keepdims=True).sum(), normal(3, 4)),
    "reshape": (lambda a: a.reshape(4, 3) * a.reshape((-1, 3)), normal(2, 6)),
    "transpose": (lambda a: a.T.reshape(24) * a.transpose(2, 0, 1).reshape(-1) + a.transpose((0, -1, 1)).sum(),
                  normal(2, 3, 4)),
    "index": (lambda a: a[1] * a[:, 2].sum() + a[::-2, None, ..., -1].sum() + a[-1, 2], normal(3, 4)),
    "index by arrays": (lambda a: a[[0, 2, 0]] * a[np.array([0, 1, 2]), [3, 3, 0]].sum() + a[a.data > 0].sum(),
                        normal(3, 4)),
    "cast": (lambda a: a.astype(np.float64) * 2, normal(3)),
    "matmul": (lambda a, b: a @ b, normal(3, 4), normal(4, 2)),
    "matmul with batches": (lambda a, b: a.matmul(b), normal(2, 1, 3, 4), normal(5, 4, 2)),
    "matmul of vectors": (lambda a, b: (a @ b) * (b @ a), normal(4), normal(4)),
    "matmul with an array": (lambda a: np.ones((2, 3)) @ a, normal(3, 4)),
    "set an item": (lambda a, b: with_item(a, (slice(None), 1), b), normal(3, 4), normal(3)),
    "set an item several times": (lambda a, b: with_item(a, [0, 2, 0], b), normal(3), normal(3)),
    "add in place": (lambda a, b: in_place(a, b), normal(3, 4), normal(4)),
    "the same tensor twice": (lambda a: a * a + a.exp() @ a.T + a, normal(3, 3)),
    "tw functions": (lambda a: tw.softmax(tw.gelu(a, backend="numpy"), axis=0, backend="numpy"), normal(3, 4)),
}


def with_item(a: tw.Tensor, index: object, value: tw.Tensor) -> tw.Tensor:
    y = a * 1.0
    y[index] = value
    return y * y


def in_place(a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
    y = a * 2
    y += b
    y -= 1
    y.mul_(3.0)
    y /= 7
    return y.exp()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_gradients(name):
    function, *inputs = FUNCTIONS[name]
    with tw.use_backend("numpy"):
        assert tw.gradcheck(function, inputs)


def test_every_elementary_rule_is_checked_somewhere(monkeypatch):
    used = set()
    for name, rule in RULES.items():
        def forward(*args, name=name, rule=rule):
            used.add(name)
            return rule.forward(*args)
        monkeypatch.setitem(RULES, name, type(rule)(forward, rule.gradients, rule.reads))
    with tw.use_backend("numpy"):
        for function, *inputs in FUNCTIONS.values():
            function(*(tw.Tensor(x) for x in inputs))
    assert used == set(RULES)


def test_powers_at_zero():
    x = tw.Tensor([0.0, 2.0], requires_grad=True)
    (x ** 2).sum().backward()
    assert x.grad.tolist() == [0, 4]
    x.grad = None
    (x ** 0).sum().backward()
    assert x.grad.tolist() == [0, 0]
    b = tw.Tensor([2.0], requires_grad=True)
    (tw.Tensor([0.0]) ** b).sum().backward()
    assert b.grad.tolist() == [0]


def test_the_maximum_is_shared():
    x = tw.Tensor([3.0, 1.0, 3.0], requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.5, 0, 0.5]


def test_gradcheck_finds_wrong_gradients():
    def wrong(x):
        y = x * x
        if y.requires_grad:
            y._node.backward = lambda dy, saved, parents: [dy * 2.001 * x.data, None]
        return y
    with pytest.raises(GradientError, match=r"input 0, element \(1,\)"):
        tw.gradcheck(wrong, [np.array([0.0, 2.0])])
    with pytest.raises(GradientError, match="differences give nan"), np.errstate(invalid="ignore"):
        tw.gradcheck(lambda x: x.log(), [np.array([-1.0])])
    with pytest.raises(GradientError):  # a value that left the tape
        tw.gradcheck(lambda x: x.detach() * 2, [np.ones(2)])
    with pytest.raises(ArgumentError):
        tw.gradcheck(lambda x: x, [np.arange(3)])


def test_gradcheck_leaves_its_inputs_alone():
    x = tw.Tensor(np.ones(3, np.float32), requires_grad=True)
    tw.gradcheck(lambda x: x.exp(), [x])
    assert x.grad is None and x.dtype == np.float32 and (x.data == 1).all()
