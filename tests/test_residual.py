"""linear's residual: added last, read where it lies, and written over where `out` is the residual itself."""
from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from calls import refused
from tilewright import errors
from tilewright.core import sampling
from tilewright.kernels.gemm.spec import ACTIVATIONS

SHAPES = [(1, 70, 40), (9, 5, 33), (40, 97, 120), (130, 60, 300), (3, 4, 0)]  # M, N, K: one for each path


def operands(rng: np.random.Generator, m: int, n: int, k: int, dtype: str = "float64") -> list[np.ndarray]:
    """x, w, bias, residual"""
    return [rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (n, k), (n,), (m, n))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_out_may_be_the_residual(shape: tuple[int, int, int], backend: str, rng: np.random.Generator) -> None:
    """In any layout, with any activation, and shifted against it."""
    x, w, bias, residual = operands(rng, *shape)
    for i, activation in enumerate(ACTIVATIONS):
        want = tw.linear(x, w, bias, activation=activation, backend="numpy") + residual
        place = sampling.laid_out(residual.copy(), sampling.LAYOUTS[i % len(sampling.LAYOUTS)])
        assert tw.linear(x, w, bias, place, activation=activation, out=place, backend=backend) is place
        np.testing.assert_allclose(place, want, rtol=1e-11, atol=1e-11, err_msg=f"{activation}")
        memory = np.full(residual.size + 1, 7.0)
        inside, out = memory[:-1].reshape(residual.shape), memory[1:].reshape(residual.shape)
        inside[...] = residual
        tw.linear(x, w, bias, inside, activation=activation, out=out, backend=backend)
        np.testing.assert_allclose(out, want, rtol=1e-11, atol=1e-11, err_msg=f"{activation} shifted")


def test_half_precision_is_rounded_once(backend: str) -> None:
    x = np.array([[256.0, 0.0]], np.float16)
    w = np.array([[8.0, 0.0]], np.float16)  # 2048 + 0.75 alone rounds to 2048
    y = tw.linear(x, w, np.array([0.75], np.float16), np.array([[0.75]], np.float16), backend=backend)
    assert y.dtype == np.float16
    assert y == np.float16(2049.5)


def test_dtypes_promote(backend: str, rng: np.random.Generator) -> None:
    x, w, bias, residual = operands(rng, 4, 5, 6, "float32")
    y = tw.linear(x, w, bias, residual.astype(np.float64), backend=backend)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, x @ w.T + bias + residual, rtol=1e-5, atol=1e-5)


def test_a_residual_of_another_shape_is_refused() -> None:
    x, w = np.ones((2, 3)), np.ones((4, 3))
    for shape in ((4,), (1, 4), (2, 3), (2, 4, 1), ()):
        refused(errors.ShapeError, "linear", x, w, None, np.ones(shape))
    refused(errors.DTypeError, "linear", x, w, None, np.ones((2, 4), int))


@pytest.mark.parametrize("activation", ["gelu", None])
def test_gradient(activation: str | None, rng: np.random.Generator) -> None:
    x, w, bias, residual = operands(rng, 3, 4, 5)
    assert tw.gradcheck(lambda *inputs: tw.linear(*inputs, activation=activation), [x, w, bias, residual])
    r = tw.Tensor(residual, requires_grad=True)
    tw.linear(x, w, bias, r, activation=activation).sum().backward()
    assert (r.grad == np.ones((3, 4))).all()


def test_leading_axes_take_the_door(rng: np.random.Generator) -> None:
    """Any number of them; the C door refuses only those whose strides are not those of one axis."""
    w = rng.standard_normal((5, 7))
    x = rng.standard_normal((2, 3, 4, 7))
    for view in (x, x[:, ::2], x[::-1, ::-1, ::-1], x[:, :, 0], x[0, 0, 0], x[:0], x[..., ::-1], x.swapaxes(0, 2)):
        residual = rng.standard_normal((*view.shape[:-1], 5))
        want = view @ w.T + residual
        for out in (None, np.empty_like(want), np.empty(want.shape[::-1]).T):
            y = tw.linear(view, w, None, residual, out=out)
            assert y.shape == want.shape
            np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-12)
        tw.linear(view, w, None, residual, out=residual)
        np.testing.assert_allclose(residual, want, rtol=1e-12, atol=1e-12)
