"""tw.pack: a snapshot that is taken wherever b or w is, by every backend, and changes no result."""
from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tilewright as tw
from tilewright import errors
from tilewright.core import native

SIZES = [(1, 1), (7, 3), (40, 10), (33, 16), (64, 64), (100, 65), (600, 130), (1030, 49)]  # K, N


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_results_are_those_of_the_plain_matrix(size: tuple[int, int], backend: str, rng: np.random.Generator) -> None:
    k, n = size
    b, c = rng.standard_normal((k, n)), rng.standard_normal((n,))
    right, weight = tw.pack(b), tw.pack(b.T)
    for m in (1, 2, 9, 40):
        a = rng.standard_normal((m, k))
        want = a @ b
        results = {
            "matmul": tw.matmul(a, right, backend=backend),
            "stack": tw.matmul(np.stack([a, a])[None], right, backend=backend)[0, 1],
            "into columns": tw.matmul(a, right, out=np.empty((n, m)).T, backend=backend),
            "linear": tw.linear(a, weight, backend=backend),
            "weight in gemm": tw.gemm(a, weight, trans_b=True, backend=backend),
            "gemm": tw.gemm(a.T, right, c, alpha=2.0, beta=-1.0, trans_a=True, backend=backend) / 2 + c / 2,
            "linear in place": tw.linear(a, weight, c, out=np.empty((m, 2 * n))[:, ::2], backend=backend) - c,
        }
        for name, y in results.items():
            np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-11, err_msg=f"{name}, {m} rows")
    np.testing.assert_allclose(tw.matmul(a[0], right, backend=backend), want[0], rtol=1e-12, atol=1e-11)


def test_a_square_one_is_taken_on_both_sides(backend: str) -> None:
    b = np.arange(9.0).reshape(3, 3)
    packed, x = tw.pack(b), np.eye(3)
    assert (tw.matmul(x, packed, backend=backend) == b).all()
    assert (tw.linear(x, packed, backend=backend) == b.T).all()
    assert (tw.matmul(x, packed, backend=backend) == b).all()
    assert (tw.matmul(packed, x, backend=backend) == b).all()  # on the left it is its plain matrix


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision(half: str, backend: str, rng: np.random.Generator) -> None:
    """The same bits as of the plain matrix: whole numbers, so that no order of the sum shows."""
    import ml_dtypes
    dtype = np.dtype(getattr(ml_dtypes, half, half))
    a, b = rng.integers(-4, 5, (9, 130)).astype(dtype), rng.integers(-4, 5, (130, 70)).astype(dtype)
    y = tw.matmul(a, tw.pack(b), backend=backend)
    assert y.dtype == dtype
    assert (y == tw.matmul(a, b, backend=backend)).all()
    assert tw.linear(a.astype(np.float32), tw.pack(b.T), backend=backend).dtype == np.float32


def test_other_dtypes_promote(backend: str, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((4, 5)), rng.standard_normal((5, 6)).astype(np.float32)
    y = tw.matmul(a, tw.pack(b), backend=backend)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, a @ b, rtol=1e-12)
    assert "float32 to float64" in tw.explain("matmul", a, tw.pack(b)).copies[0]


def test_it_is_a_snapshot(backend: str) -> None:
    b = np.ones((70, 80))
    packed = tw.pack(b[:, ::2])
    b[...] = 7
    for _ in range(2):
        assert (tw.matmul(np.ones((3, 70)), packed, backend=backend) == 70).all()
    assert not packed.numpy().flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        packed.numpy().flags.writeable = True
    with pytest.raises(AttributeError, match="cannot be changed"):
        packed.shape = (1, 2)  # type: ignore[misc, assignment]
    with pytest.raises(errors.DTypeError):
        tw.relu(b[:, ::2], out=packed, backend=backend)


def test_what_it_tells() -> None:
    b = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    packed = tw.pack(b)
    assert (packed.shape, packed.dtype, packed.nbytes) == ((2, 3), np.float32, 24)
    assert repr(packed) == "PackedMatrix((2, 3), float32)"
    assert (packed.numpy() == b).all()
    assert tw.pack(packed) is packed
    for twin in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert type(twin) is tw.PackedMatrix
        assert (twin.numpy() == b).all()
    if native.door is not None:
        tw.matmul(np.ones((1, 2), np.float32), packed, backend="c")
        assert packed.nbytes > 24
        text = str(tw.explain("matmul", np.ones((40, 300)), tw.pack(np.ones((300, 200))), backend="c"))
        assert "b packed beforehand" in text


@pytest.mark.parametrize(("b", "error"), [
    (np.ones(3), errors.ShapeError), (np.ones((2, 3, 4)), errors.ShapeError), (1.0, errors.ShapeError),
    (np.ones((2, 3), int), errors.DTypeError), (np.ones((2, 3), complex), errors.DTypeError),
    ("b", errors.TilewrightError)])
def test_what_cannot_be_packed(b: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="b"):
        tw.pack(b)


def test_shapes_that_do_not_fit(backend: str) -> None:
    packed = tw.pack(np.ones((3, 4)))
    for _ in range(2):
        for f, x in ((tw.matmul, np.ones((2, 4))), (tw.linear, np.ones((2, 3))), (tw.gemm, np.ones((2, 4)))):
            with pytest.raises(errors.ShapeError):
                f(x, packed, backend=backend)  # type: ignore[operator]
        tw.matmul(np.ones((2, 3)), packed, backend=backend)
    memory = np.ones(20)
    with pytest.raises(errors.AliasError):
        tw.matmul(memory[:6].reshape(2, 3), packed, out=memory[5:13].reshape(2, 4), backend=backend)


def test_many_threads_at_once(backend: str, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((30, 200)), rng.standard_normal((200, 300))
    packed = tw.pack(b)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: tw.matmul(a, packed, backend=backend).tobytes(), range(16)))
    assert len(set(results)) == 1


# ---- autograd

def test_gradients_pass_through_and_stop(rng: np.random.Generator) -> None:
    """x and bias get theirs; the packed matrix is a constant."""
    w, x = rng.standard_normal((4, 5)), rng.standard_normal((3, 5))
    bias = rng.standard_normal(4)
    assert tw.gradcheck(lambda x, bias: tw.linear(x, tw.pack(w), bias, activation="gelu"), [x, bias])
    assert tw.gradcheck(lambda x: tw.matmul(x, tw.pack(w.T)), [x])
    assert tw.gradcheck(lambda x: tw.matmul(x, tw.pack(w.T)), [x[0]])
    assert tw.gradcheck(lambda x: tw.gemm(x, tw.pack(w), alpha=2.0, trans_b=True), [x])
    with tw.no_grad():
        y = tw.linear(tw.Tensor(x, requires_grad=True), tw.pack(w))
    np.testing.assert_allclose(y.data, x @ w.T)


def test_its_own_gradient_is_refused() -> None:
    packed = tw.pack(np.ones((2, 3)))
    with pytest.raises(errors.GradientError, match="packed"):
        tw.linear_backward(np.ones((4, 2)), np.ones((4, 3)), packed)
    with pytest.raises(errors.GradientError, match="packed"):
        tw.Tensor(packed, requires_grad=True)


def test_a_recorded_step_takes_it(rng: np.random.Generator) -> None:
    """The first call packs and the second does not, which is no difference between two steps."""
    frozen, head = tw.pack(rng.standard_normal((6, 5))), tw.Tensor(rng.standard_normal((3, 6)), requires_grad=True)
    optimizer = tw.optim.SGD([head], lr=0.1)

    @tw.compile
    def step(x: np.ndarray, labels: np.ndarray) -> tw.Tensor:
        loss = tw.nn.cross_entropy(tw.linear(tw.linear(tw.Tensor(x), frozen, activation="relu"), head), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss
    losses = [step(np.ones((4, 5)), np.array([0, 1, 2, 1])).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
