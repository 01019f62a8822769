"""Arguments outside their domain raise typed errors on every backend, and alpha and beta keep their rules."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilewright as tw
from calls import AVAILABLE, refused, run
from tilewright import errors


def test_shapes_that_do_not_fit() -> None:
    z = np.zeros
    refused(errors.ShapeError, "gemm", z((2, 3)), z((2, 3)))
    refused(errors.ShapeError, "gemm", z((2, 3)), z((3, 4)), z((3, 4)))
    refused(errors.ShapeError, "gemm", z((2, 3)), z((3, 4)), z((1, 2, 4)))
    refused(errors.ShapeError, "gemm", z(3), z((3, 4)))
    refused(errors.ShapeError, "linear", z((2, 3)), z((3, 4)))
    refused(errors.ShapeError, "linear", z((2, 3)), z((4, 3)), z(3))
    refused(errors.ShapeError, "linear", z((2, 3)), z(3))
    refused(errors.ShapeError, "linear_backward", z((2, 3)), z((2, 4)), z((4, 3)))
    refused(errors.ShapeError, "gelu_backward", z((2, 3)), z((3, 2)))
    refused(errors.ShapeError, "gelu_backward", z(3), z((2, 3)))
    refused(errors.ShapeError, "softmax", np.array(1.0))
    refused(errors.ShapeError, "softmax", z((2, 3)), axis=2)
    refused(errors.ShapeError, "softmax_backward", z((2, 3)), z((2, 4)))
    refused(errors.ShapeError, "layer_norm", z((2, 3)), z(2))
    refused(errors.ShapeError, "layer_norm", z((2, 3)), z(3), z((1, 3)))
    refused(errors.ShapeError, "layer_norm", np.array(1.0))
    refused(errors.ShapeError, "rms_norm_backward", z((2, 3)), z((2, 4)))
    refused(errors.ShapeError, "cross_entropy", z((2, 3)), z(3, int))
    refused(errors.ShapeError, "cross_entropy", z(3), z(3, int))
    refused(errors.ShapeError, "cross_entropy_backward", z(2), z((2, 3)), z(2, int))
    refused(errors.ShapeError, "embedding", z(2, int), z(3))
    refused(errors.ShapeError, "embedding_backward", z((2, 3)), z(3, int), 4)


def test_labels_and_indices_out_of_range() -> None:
    z = np.zeros
    for labels in ([0, 3], [0, -1], [-100, 2**62], [0, -2**63]):
        refused(errors.ArgumentError, "cross_entropy", z((2, 3)), labels)
        refused(errors.ArgumentError, "cross_entropy_backward", z(()), z((2, 3)), labels)
    refused(errors.ArgumentError, "cross_entropy", z((2, 3)), np.array([0, 2**63], np.uint64))
    refused(errors.ArgumentError, "cross_entropy", z((2, 0)), [0, 0])
    for indices in ([0, 5], [-1, 0], [2**62, 0]):
        refused(errors.ArgumentError, "embedding", indices, z((5, 3)))
        refused(errors.ArgumentError, "embedding_backward", z((2, 3)), indices, num_embeddings=5)
    refused(errors.ArgumentError, "embedding_backward", z((0, 3)), z(0, int), num_embeddings=-1)
    refused(errors.DTypeError, "embedding", [0.5], z((5, 3)))
    refused(errors.DTypeError, "cross_entropy", z((2, 3)), [0.0, 1.0])


def test_ignored_labels_are_never_looked_up() -> None:
    for backend in AVAILABLE:
        y = tw.cross_entropy(np.zeros((2, 3)), [2**40, 1], ignore_index=2**40, reduction="none", backend=backend)
        assert y[0] == 0


def test_attributes_outside_their_domain() -> None:
    z = np.zeros
    for p in (-0.1, 1.5, np.nan, np.inf):
        refused(errors.ArgumentError, "dropout", z(3), p, 0)
        refused(errors.ArgumentError, "dropout_backward", z(3), p, 0)
    for seed in (-1, 2**64, 1.5, None, "1"):
        refused(errors.ArgumentError, "dropout", z(3), 0.5, seed)
    refused(errors.ArgumentError, "cross_entropy", z((2, 3)), [0, 1], reduction="max")
    for smoothing in (-0.1, 1.1, np.nan):
        refused(errors.ArgumentError, "cross_entropy", z((2, 3)), [0, 1], label_smoothing=smoothing)
    refused(errors.ArgumentError, "gelu", z(3), approximate="fast")
    refused(errors.ArgumentError, "gelu_backward", z(3), z(3), approximate="fast")
    refused(errors.ArgumentError, "linear", z((2, 3)), z((4, 3)), activation="sine")
    for eps in (-1e-5, np.nan):
        refused(errors.ArgumentError, "layer_norm", z((2, 3)), eps=eps)
        refused(errors.ArgumentError, "rms_norm_backward", z((2, 3)), z((2, 3)), eps=eps)
    refused(errors.ArgumentError, "softmax", z((2, 3)), axis=0.5)
    refused(errors.ArgumentError, "softmax", z((2, 3)), axis=None)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1, np.uint64(2**64 - 1), np.int8(5)])
def test_dropout_takes_every_seed(seed: Any) -> None:
    x = np.ones(1000)
    want = tw.dropout(x, 0.3, seed, backend="numpy")
    for backend in AVAILABLE:
        assert (tw.dropout(x, 0.3, seed, backend=backend) == want).all()


def test_alpha_and_beta(backend: str, rng: np.random.Generator) -> None:
    """A factor of zero shuts its operands off, whatever they hold; out may be c."""
    a, b, c, nan = (rng.standard_normal((4, 4)) for _ in range(4))
    nan[...] = np.nan
    assert (tw.gemm(a, b, nan, beta=0.0, backend=backend) == tw.gemm(a, b, backend=backend)).all()
    np.testing.assert_allclose(tw.gemm(nan, nan, c, alpha=0.0, beta=3.0, backend=backend), 3 * c, rtol=1e-15)
    assert (tw.gemm(nan, nan, nan, alpha=0.0, beta=0.0, backend=backend) == 0).all()
    want = 0.5 * (a.T @ b) + 2 * c
    y = c.copy()
    assert tw.gemm(a, b, y, alpha=0.5, beta=2.0, trans_a=True, out=y, backend=backend) is y
    np.testing.assert_allclose(y, want, rtol=1e-13)
    row, out = c[0].copy(), c.copy()
    for overlapping in (out[0], out[:1], out[2], out[:, :1], out[3, 3]):
        out[...] = c
        want = a @ b + overlapping
        tw.gemm(a, b, overlapping, out=out, backend=backend)  # c broadcasts out of the memory of the result
        np.testing.assert_allclose(out, want, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(tw.gemm(a, b, row, backend=backend), a @ b + row, rtol=1e-13)


# ---- results that no machine can hold

HUGE = np.broadcast_to(np.float32(1), 2**46)


@pytest.mark.parametrize("op", ["relu", "gelu", "sigmoid", "softmax", "rms_norm", "dropout"])
def test_huge_results_raise_memory_error(op: str, backend: str) -> None:
    with pytest.raises(MemoryError):
        run(op, [HUGE], {"p": 0.5, "seed": 0} if op == "dropout" else {}, backend=backend)


def test_huge_products_raise_memory_error(backend: str) -> None:
    long = np.broadcast_to(np.float32(1), (2**23, 2))
    with pytest.raises(MemoryError):
        tw.matmul(long[:, :1], long[:, :1].T, backend=backend)
    with pytest.raises(MemoryError):
        tw.linear(long, long, backend=backend)
    with pytest.raises(MemoryError):
        tw.embedding(np.zeros(2**20, int), np.broadcast_to(np.float32(1), (1, 2**26)), backend=backend)
