"""The tape itself: what is recorded, released, refused; dtypes; in-place changes; depth."""
from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tilewright as tw
from tilewright.autograd import apply
from tilewright.core.errors import DTypeError, GradientError, ShapeError


def leaf(*values: float, dtype: type = np.float64) -> tw.Tensor:
    return tw.Tensor(np.array(values, dtype), requires_grad=True)


@pytest.fixture(autouse=True)
def _numpy():
    with tw.use_backend("numpy"):
        yield


# ---- tensors

def test_a_tensor_shares_the_array_and_its_dtype():
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.bool_):
        a = np.ones((2, 3), dtype)
        t = tw.Tensor(a)
        assert t.data is a and t.numpy() is a and t.dtype == dtype and t.shape == (2, 3) and t.ndim == 2 and t.size == 6
    assert np.asarray(t) is not t and (np.asarray(t) == a).all() and len(t) == 2
    assert tw.Tensor([1, 2], dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("bad", ["text", [object()], [[1.0], [1.0, 2.0]], [1j]])
def test_what_is_no_tensor(bad):
    with pytest.raises(DTypeError):
        tw.Tensor(bad)


def test_only_floats_have_gradients():
    with pytest.raises(DTypeError, match="int64"):
        tw.Tensor([1, 2], requires_grad=True)
    with pytest.raises(DTypeError, match="int64"):
        tw.Tensor([1, 2]).requires_grad_()
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert tw.Tensor(np.ones(2, ml_dtypes.bfloat16), requires_grad=True).requires_grad


def test_numbers_and_text():
    x = leaf(2.0)
    assert x.item() == 2.0 and float(x) == 2.0 and int(x) == 2 and bool(x)
    assert repr(x) == "Tensor([2.], float64, requires_grad=True)"
    assert repr(x * 2) == "Tensor([4.], float64, from multiply)"


def test_float32_stays_float32():
    x = leaf(1, 2, 3, dtype=np.float32)
    y = ((2 * x + 1) / 3 - x ** 2).exp().mean() * x.max() + x.sum() * 0.5 + (x * np.float32(2)).sqrt().log().sum()
    assert y.dtype == np.float32
    y.backward()
    assert x.grad.dtype == np.float32 and type(x.grad) is np.ndarray


def test_a_gradient_has_the_dtype_of_its_leaf():
    x, y = leaf(1, 2, dtype=np.float32), leaf(3, 4)
    (x * y).sum().backward()
    assert x.grad.dtype == np.float32 and y.grad.dtype == np.float64
    z = leaf(1, 2, dtype=np.float32)
    (z.astype(np.float64) * y).sum().backward()
    assert z.grad.dtype == np.float32


@pytest.mark.parametrize("wrong", [lambda x: x + np.ones(4), lambda x: x.reshape(4, 4), lambda x: x.sum(axis=2),
                                   lambda x: x.max(3), lambda x: x.transpose(0, 0), lambda x: x @ x,
                                   lambda x: x.__setitem__(0, np.ones(5))])
def test_shapes_that_do_not_fit(wrong):
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        wrong(tw.Tensor(np.ones((2, 3))))


# ---- backward

def test_gradients_add_up():
    x = leaf(1, 2)
    for n in (1, 2, 3):
        (x * 3).sum().backward()
        assert x.grad.tolist() == [3 * n] * 2
    y = x * 2
    (y * y + y).sum().backward()
    assert x.grad.tolist() == [9 + 10, 9 + 18]


def test_without_dimensions():
    x = tw.Tensor(2.0, requires_grad=True)
    y = x * 3 + x
    assert type(y.data) is np.ndarray and y.shape == ()
    for n in (1, 2):
        (y * 0.5).backward(retain_graph=True)
        assert type(x.grad) is np.ndarray and x.grad.shape == () and x.grad == 2 * n


def test_gradients_of_two_leaves_never_share_memory():
    x, y = leaf(1, 2), leaf(3, 4)
    seed = np.ones(2)
    (x + y).backward(seed)
    (x.reshape(2, 1).T + y).sum().backward()
    x.grad *= 10
    assert y.grad.tolist() == [2, 2] and seed.tolist() == [1, 1]
    z = leaf(1, 2)
    z.backward(seed)
    z.grad *= 10
    assert seed.tolist() == [1, 1]


def test_a_second_backward_raises_and_adds_nothing():
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradientError, match="retain_graph"):
        y.backward()
    assert x.grad.tolist() == [2, 4]
    shared = x * x
    shared.sum().backward()
    with pytest.raises(GradientError, match="retain_graph"):
        (shared * 2).sum().backward()
    assert x.grad.tolist() == [4, 8]


def test_retain_graph():
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]


def test_the_seed_of_a_backward():
    x = leaf(1, 2)
    with pytest.raises(GradientError, match=r"\(2,\)"):
        (x * 2).backward()
    with pytest.raises(ShapeError):
        (x * 2).backward(np.ones(3))
    with pytest.raises(GradientError, match="requires a gradient"):
        tw.Tensor([1.0]).backward()
    (x * 2).backward([1, 10])
    assert x.grad.tolist() == [2, 20]
    (x.sum().reshape(1, 1) * 1).backward()
    assert x.grad.tolist() == [3, 21]


def test_a_deep_graph():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + x * 1e-4
    y.backward()
    assert abs(x.grad[0] - 3) < 1e-9
    del y


def test_a_wide_graph():
    x = leaf(1.0, 2.0)
    y = x
    for _ in range(30):  # 2**30 paths through 30 nodes
        y = y + y
    y.sum().backward()
    assert x.grad.tolist() == [2.0 ** 30] * 2


def test_what_was_saved_is_released():
    x = leaf(1, 2)
    y = x.exp()
    array = weakref.ref(y.data)
    loss = y.sum()
    del y
    assert array() is not None
    loss.backward()
    assert array() is None


def test_an_unused_graph_is_freed_without_the_collector():
    gc.disable()
    try:
        x = leaf(1, 2)
        y = tw.softmax(x * 2)
        gone = weakref.ref(y)
        del y
        assert gone() is None
    finally:
        gc.enable()


# ---- what is recorded

def test_no_grad():
    x = leaf(1, 2)
    with tw.no_grad():
        y = x * 2
        with tw.no_grad():
            pass
        z = tw.relu(x)
    assert not y.requires_grad and not z.requires_grad and (x * 2).requires_grad

    @tw.no_grad()
    def quiet():
        return x * 2
    assert not quiet().requires_grad and (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), tw.no_grad():
        _ = 1 / 0
    assert (x * 2).requires_grad


def test_detach():
    x = leaf(1, 2)
    d = (x * 2).detach()
    assert not d.requires_grad and d.is_leaf
    y = x * 3
    assert y.detach().data is y.data
    (y * y.detach()).sum().backward()
    assert x.grad.tolist() == [9, 18]


def test_constants_cost_nothing():
    x, c = leaf(1, 2), tw.Tensor([3.0, 4.0])
    y = x * c
    assert y._node.parents == (x, None)
    y.sum().backward()
    assert c.grad is None and (c * c).requires_grad is False


def test_arrays_on_the_left():
    x = leaf(1, 2)
    ones = np.ones(2)
    for y in (ones + x, ones * x, ones / x, ones - x, np.ones((3, 2)) @ x.reshape(2, 1), np.float64(2) * x):
        assert isinstance(y, tw.Tensor) and y.requires_grad


def test_public_functions_take_tensors():
    x = leaf(1.0, -2.0, 3.0)
    y = tw.relu(x)
    assert isinstance(y, tw.Tensor) and y.data.tolist() == [1, 0, 3]
    y.sum().backward()
    assert x.grad.tolist() == [1, 0, 1]
    assert not tw.relu(tw.Tensor([1.0])).requires_grad
    with pytest.raises(GradientError, match="out="):
        tw.relu(x, out=np.empty(3))
    with pytest.raises(ShapeError):
        tw.matmul(x, tw.Tensor(np.ones((2, 2))))


def test_an_operation_without_a_gradient():
    x, w = leaf(1, 2).reshape(1, 2), tw.Tensor([[1.0, 1.0]])
    with pytest.raises(GradientError, match="linear_backward has no gradient"):
        tw.linear_backward(np.ones((1, 1)), x, w)
    with tw.no_grad():
        dx, dw, dbias = tw.linear_backward(np.ones((1, 1)), x, w)
    assert isinstance(dx, tw.Tensor) and dw.data.tolist() == [[1, 2]]


# ---- in place

def test_a_saved_tensor_changed_in_place_raises():
    x = leaf(1, 2)
    changes = [lambda t: t.add_(1), lambda t: t.mul_(2), lambda t: t.__setitem__(0, 5.0), lambda t: t.zero_(),
               lambda t: t.copy_([3.0, 3.0]), lambda t: t.__iadd__(1), lambda t: t.detach().zero_(),
               lambda t: t[:1].detach().zero_()]
    for change in changes:
        factor = tw.Tensor([3.0, 4.0])
        y = x * factor
        change(factor)
        with pytest.raises(GradientError, match="multiply needs .* modified in place"):
            y.sum().backward()
        assert x.grad is None


@pytest.mark.parametrize("op, attrs", [("softmax", {}), ("gelu", {}), ("layer_norm", {})])
def test_the_table_guards_its_saved_tensors(op, attrs):
    x = leaf(1, 2)
    values = x * 1.0
    y = apply(op, (values, None, None) if op == "layer_norm" else (values,), attrs)
    with tw.no_grad():
        (y if op == "softmax" else values).mul_(2)  # softmax reads its result, the others what they were given
    with pytest.raises(GradientError, match=op):
        y.sum().backward()


def test_what_is_not_read_may_change():
    x = leaf(1, 2)
    for op in ("gelu", "softmax"):
        values = x * 1.0
        y = apply(op, (values,), {})
        with tw.no_grad():
            (values if op == "softmax" else y).mul_(2)
        y.sum().backward()
    y = x.exp() + 1
    y += 1  # add reads nothing
    y.sum().backward()
    w = tw.Tensor(np.ones((3, 2)), requires_grad=True)
    rows = tw.embedding(np.array([0, 2]), w)
    with tw.no_grad():
        w.zero_()
    rows.sum().backward()
    assert w.grad.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_a_result_changed_in_place_raises():
    x = leaf(1, 2)
    y = x.exp()
    y += 1
    with pytest.raises(GradientError, match="exp needs"):
        y.sum().backward()


def test_leaves_and_views_are_not_changed_on_the_tape():
    x = leaf(1, 2)
    with pytest.raises(GradientError, match="no_grad"):
        x += 1
    y = x * 2
    part = y[:1]
    for t in (y, part):
        with pytest.raises(GradientError, match="view"):
            t += 1
    assert x.data.tolist() == [1, 2] and y.data.tolist() == [2, 4]
    with tw.no_grad():
        x += 1
        x[0] = 7
    assert x.data.tolist() == [7, 3] and x.is_leaf and x.requires_grad


def test_changes_in_place_keep_shape_and_dtype():
    x = tw.Tensor(np.ones(2, np.float32))
    with pytest.raises(ShapeError):
        x += np.ones((3, 2))
    with pytest.raises(DTypeError):
        tw.Tensor(np.ones(2, np.int64)).add_(0.5)
    x += np.ones(2)
    assert x.dtype == np.float32 and x.data.tolist() == [2, 2]


def test_an_optimizer_step_before_backward_raises():
    w, x = leaf(1, 2), leaf(3, 4)
    y = (w * x).sum()
    w.grad = np.ones(2)
    tw.optim.SGD([w], lr=0.1).step()
    with pytest.raises(GradientError, match="modified in place"):
        y.backward()
