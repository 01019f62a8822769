"""Numba kernels called from a user's own compiled functions: any cut of the range gives the bits of the public call."""
from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest

import tilewright as tw
from tilewright.core import native
from tilewright.kernels.activation import numba_cpu as activation
from tilewright.kernels.embedding import numba_cpu as embedding
from tilewright.kernels.gemm import blocked
from tilewright.kernels.gemm import numba_cpu as gemm
from tilewright.kernels.norm import numba_cpu as norm
from tilewright.kernels.softmax import numba_cpu as softmax

FLOATS = ("float32", "float64")
CUTS = (0, 1, 7, 64, 65, 129, 200)  # of 200 elements: no multiple of a vector, single elements, a whole tail


def cut(kernel: Any) -> Any:
    """A user's function that calls a kernel over several ranges."""
    @numba.njit
    def user(x, out, cuts):
        for i in range(len(cuts) - 1):
            kernel(x, out, cuts[i], cuts[i + 1])
    return user


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "sigmoid", "tanh", "softplus", "hardswish"])
def test_activations(name: str, dtype: str, rng: np.random.Generator) -> None:
    x = (rng.standard_normal(200) * 3).astype(dtype)
    out = np.full(200, np.nan, dtype)
    cut(getattr(activation, f"{name}_range"))(x, out, np.array(CUTS))
    assert out.tobytes() == getattr(tw, name)(x, backend="numba").tobytes()


def test_a_range_is_all_that_is_written(rng: np.random.Generator) -> None:
    x, out = rng.standard_normal(100), np.full(100, np.nan)
    activation.gelu_range(x, out, 33, 50)
    assert np.isnan(out[:33]).all() and np.isnan(out[50:]).all()
    assert not np.isnan(out[33:50]).any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients(dtype: str, rng: np.random.Generator) -> None:
    kernel = activation.gelu_backward_range
    dy, x = rng.standard_normal((2, 200)).astype(dtype)

    @numba.njit
    def user(dy, x):
        kernel(dy, x, dy, 0, 77)
        kernel(dy, x, dy, 77, 200)
    want = tw.gelu_backward(dy, x, backend="numba")
    user(dy, x)  # in place
    assert dy.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows(dtype: str, rng: np.random.Generator) -> None:
    """Softmax and norms take rows of n elements."""
    softmax_range, layer_norm_range = softmax.softmax_range, norm.layer_norm_range
    x, (weight, bias) = rng.standard_normal((9, 37)).astype(dtype), rng.standard_normal((2, 37)).astype(dtype)

    @numba.njit
    def user(x, weight, bias, probabilities, normalized):
        rows, n = x.shape
        for row in range(rows):
            softmax_range(x.ravel(), probabilities, n, row, row + 1)
        layer_norm_range(x.ravel(), weight, bias, x.dtype.type(1e-5), normalized, n, 0, rows)
    probabilities, normalized = np.empty((2, x.size), dtype)
    user(x, weight, bias, probabilities, normalized)
    assert probabilities.tobytes() == tw.softmax(x, backend="numba").tobytes()
    assert normalized.tobytes() == tw.layer_norm(x, weight, bias, backend="numba").tobytes()


def test_products(rng: np.random.Generator) -> None:
    gemm_into = gemm.gemm_into
    a, b, c = (rng.standard_normal(shape) for shape in ((33, 70), (70, 41), (33, 41)))

    @numba.njit
    def user(a, b, out):
        gemm_into(0.5, a, b, 2.0, out)
    want = tw.gemm(a, b, c, alpha=0.5, beta=2.0, backend="numpy")
    user(a, b, c)
    np.testing.assert_allclose(c, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("beta", [0.0, 2.0])
@pytest.mark.parametrize(("c_shape", "step"), [((70, 1), 1), ((70, 1), 2), ((1, 1), 1)])
def test_a_column_of_a_transposed_matrix(c_shape: tuple, step: int, beta: float, dtype: str,
                                         rng: np.random.Generator) -> None:
    """It may be computed as a row: with any c, and any cut gives the bits of the whole."""
    a, b = rng.standard_normal((33, 70)).astype(dtype).T, rng.standard_normal((33, 1)).astype(dtype)
    c = np.repeat(rng.standard_normal(c_shape).astype(dtype), step, axis=0)[::step]
    full, f = np.broadcast_to(c, (70, 1)), np.dtype(dtype).type
    want = tw.gemm(a, b, full, alpha=0.5, beta=beta, backend="numba")
    np.testing.assert_allclose(want, 0.5 * (a @ b) + beta * full, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)
    out, work = np.full((70, 1), np.nan, dtype), np.empty(blocked.WORK_BYTES // f().itemsize, dtype)
    for lo, hi in itertools.pairwise((0, 1, 8, 69, 70)):
        gemm.gemm_range(f(0.5), a, b, f(beta), c, out, work, lo, hi, 0, 1)
    if c_shape == (70, 1) and step == 1 or beta == 0:
        assert out.tobytes() == want.tobytes()
    else:
        np.testing.assert_allclose(out, want, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


def test_embedding(rng: np.random.Generator) -> None:
    embedding_range = embedding.embedding_range
    weight, indices = rng.standard_normal((11, 7)), rng.integers(0, 11, 30)

    @numba.njit
    def user(indices, weight, out):
        embedding_range(indices, weight.ravel(), out, weight.shape[1], 0, len(indices))
    out = np.empty(30 * 7)
    user(indices, weight, out)
    assert (out.reshape(30, 7) == weight[indices]).all()


def test_prange(child_env: dict[str, str]) -> None:
    """In a child: Numba's own threads do not outlive it."""
    code = """
import numba, numpy as np, tilewright as tw
from tilewright.kernels.activation.numba_cpu import gelu_range
@numba.njit(parallel=True)
def my_gelu(x, out):
    for c in numba.prange(8):
        gelu_range(x, out, c * len(x) // 8, (c + 1) * len(x) // 8)
x = np.random.default_rng(0).standard_normal(10_001, np.float32)
out = np.empty_like(x)
my_gelu(x, out)
assert out.tobytes() == tw.gelu(x, backend="numba").tobytes()
"""
    result = subprocess.run([sys.executable, "-c", code], env=child_env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_prange_beside_threaded_calls_and_fork(layer: str, child_env: dict[str, str]) -> None:
    """Numba's own threads, ours and several callers in one process; then a forked child, which makes calls of ours.

    Limits of Numba's layers: workqueue takes one caller at a time, and GNU OpenMP's may not be used after a fork.
    """
    code = """
import os, signal, threading
import numba, numpy as np, tilewright as tw
from tilewright.kernels.activation.numba_cpu import gelu_range
@numba.njit(parallel=True)
def my_gelu(x, out):
    for c in numba.prange(8):
        gelu_range(x, out, c * len(x) // 8, (c + 1) * len(x) // 8)
def ours():
    return [tw.gelu(x, backend="numba").tobytes(), tw.matmul(a, b, backend="numba").tobytes()]
def theirs(out):
    with one_at_a_time:
        my_gelu(x, out)
    return out.tobytes()
def caller():
    for _ in range(5):
        if theirs(np.empty_like(x)) != want[0] or ours() != want:
            wrong.append(threading.get_ident())
rng = np.random.default_rng(0)
x, (a, b) = rng.standard_normal(300_001, np.float32), rng.standard_normal((2, 300, 300), np.float32)
one_at_a_time, wrong = threading.Lock(), []
tw.set_num_threads(4)
want = ours()
callers = [threading.Thread(target=caller) for _ in range(4)]
for c in callers: c.start()
for c in callers: c.join()
assert not wrong
child = os.fork()
if child == 0:
    signal.alarm(60)  # the end of a child that hangs
    same = ours() == want and (numba.threading_layer() != "workqueue" or theirs(np.empty_like(x)) == want[0])
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert theirs(np.empty_like(x)) == want[0] and ours() == want
"""
    result = subprocess.run([sys.executable, "-c", code], env=child_env | {"NUMBA_THREADING_LAYER": layer},
                            capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(native.lib is None, reason="the C backend is not here")
def test_c_from_compiled_code(rng: np.random.Generator) -> None:
    """tw_cblas_dgemm through ctypes, whose pointer Numba calls without Python."""
    dgemm = ctypes.CDLL(tw.get_library()).tw_cblas_dgemm
    i, n, f, p = ctypes.c_int, ctypes.c_ssize_t, ctypes.c_double, ctypes.c_void_p
    dgemm.argtypes, dgemm.restype = [i, i, i, n, n, n, f, p, n, p, n, f, p, n], None

    @numba.njit
    def user(a, b, out):
        (m, k), n = a.shape, b.shape[1]
        dgemm(101, 111, 111, m, n, k, 1.0, a.ctypes, k, b.ctypes, n, 0.0, out.ctypes, n)
    a, b, out = rng.standard_normal((5, 7)), rng.standard_normal((7, 6)), np.full((5, 6), np.nan)
    user(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-13)
