"""What conformance's cases do not reach of the CUDA kernels of rows, tables and indices; all emulated."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

from tilewright.core import registry
from tilewright.core.checking import ulp
from tilewright.core.registry import Call, Case
from tilewright.kernels.dropout.cuda import flat
from tilewright.kernels.dropout.spec import philox, threshold
from tilewright.kernels.ptx import maps, vmath
from tilewright.kernels.ptx.cuda import inline
from tilewright.kernels.ptx.launch import blocks


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with conformance.runnable("cuda"):
        yield


def kernel_of(op: str) -> registry.Kernel:
    return registry.kernels(registry.spec(op).family, "cuda")[op, ""]


def complaints(op: str, *inputs: Any, **attrs: Any) -> list[str]:
    """Of the conformance check, in all its ways, on one case."""
    sample = conformance.sample(registry.spec(op), Case(inputs, attrs, f"{attrs}"))
    return conformance.Check(kernel_of(op), sample, "c").complaints


def normal(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


# ---- rows of 128-bit accesses that fill the largest team, and that no team holds

LENGTHS = [("float32", 1028), ("float32", 4100), ("float64", 2050)]


@pytest.mark.parametrize(("dtype", "n"), LENGTHS)
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "layer_norm", "rms_norm"])
def test_long_rows(op: str, dtype: str, n: int, rng: np.random.Generator) -> None:
    x, dy = normal(rng, 2, n, dtype=dtype), normal(rng, 2, n, dtype=dtype)
    if op.endswith("norm"):
        weight = normal(rng, n, dtype=dtype)
        assert not complaints(op, x, weight, *([None] * (op == "layer_norm")))
        assert not complaints(f"{op}_backward", dy, x, weight)
    else:
        assert not complaints(op, x)
        y = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True)
        assert not complaints(f"{op}_backward", dy, (np.log(y) if op == "log_softmax" else y).astype(dtype))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_long_rows_of_classes(smoothing: float, rng: np.random.Generator) -> None:
    logits, labels = normal(rng, 3, 4100), np.array([4099, 0, -100])
    assert not complaints("cross_entropy", logits, labels, label_smoothing=smoothing)
    assert not complaints("cross_entropy_backward", normal(rng, 3), logits, labels, label_smoothing=smoothing,
                          reduction="none")


@pytest.mark.parametrize("op", ["layer_norm_backward", "rms_norm_backward"])
@pytest.mark.parametrize("shape", [(29, 33), (29, 40), (7, 1200), (5, 4099)])
def test_a_team_takes_several_rows(op: str, shape: tuple[int, int], rng: np.random.Generator,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as that would take thousands of; the last team has fewer than the others."""
    monkeypatch.setattr("tilewright.kernels.norm.cuda.TEAMS", 2)
    assert not complaints(op, normal(rng, *shape), normal(rng, *shape), normal(rng, shape[1]))


def test_many_gaps(rng: np.random.Generator) -> None:
    """More axes that cannot be merged than a launch takes: several launches, one part after the other."""
    def view(*shape: int) -> np.ndarray:
        return normal(rng, *(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]
    x = view(2, 3, 2, 3, 5)
    for op in ("softmax", "layer_norm"):
        assert not complaints(op, x, *([None, None] * (op == "layer_norm")))
    assert not complaints("layer_norm_backward", view(2, 3, 2, 3, 5), x, None)
    assert not complaints("dropout", x, p=0.4, seed=3)
    indices = rng.integers(0, 4, (4, 6, 4, 6))[::2, ::2, ::2, ::2]
    assert not complaints("embedding", indices, normal(rng, 4, 5))
    assert not complaints("embedding_backward", x, indices, num_embeddings=4)
    assert not complaints("sgd_step", [view(2, 3, 2, 3, 5)], [x], None, lr=0.1)


# ---- what only the host checks

def run(op: str, inputs: tuple, attrs: dict, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel on a call that was not prepared, as if its indices were on a device."""
    out = np.empty(shape, np.float32)
    kernel_of(op).run(Call(op, inputs, attrs, ((shape, out.dtype),)), (out,))
    return out


@pytest.mark.parametrize("wrong", [-1, 5, 2**62, -2**63])
def test_labels_out_of_range_give_nan(wrong: int, rng: np.random.Generator) -> None:
    logits, labels = normal(rng, 3, 5), np.array([1, wrong, 4])
    attrs = {"reduction": "none", "ignore_index": -100, "label_smoothing": 0.0}
    loss = run("cross_entropy", (logits, labels), attrs, (3,))
    assert np.array_equal(np.isnan(loss), [False, True, False])
    gradient = run("cross_entropy_backward", (np.ones(3, np.float32), logits, labels), attrs, (3, 5))
    assert np.array_equal(np.isnan(gradient).all(1), [False, True, False]) and not np.isnan(gradient[::2]).any()


@pytest.mark.parametrize("wrong", [-1, 4, 2**62, -2**63])
def test_indices_out_of_range_give_nan_and_no_gradient(wrong: int, rng: np.random.Generator) -> None:
    weight, indices, dy = normal(rng, 4, 5), np.array([3, wrong, 3]), normal(rng, 3, 5)
    rows = run("embedding", (indices, weight), {}, (3, 5))
    assert np.isnan(rows[1]).all() and np.array_equal(rows[::2], weight[[3, 3]])
    gradient = run("embedding_backward", (dy, indices), {"num_embeddings": 4}, (4, 5))
    assert not gradient[:3].any() and np.array_equal(gradient[3], dy[0] + dy[2])


# ---- optimizers

def test_tables_that_would_be_too_large_are_cut(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.kernels.ptx.launch.LENT", 200)
    params, grads = ([normal(rng, n) for n in (3, 1, 0, 5000, 2, 7, 1025, 4, 1)] for _ in range(2))
    assert not complaints("sgd_step", params, grads, None, lr=0.1)
    assert not complaints("clip_grad_norm", grads, max_norm=0.5)


def test_gradients_whose_squares_overflow_are_clipped() -> None:
    grads = [np.full(300, 1e30, np.float32)]
    norm = kernel_of("clip_grad_norm").run(Call("clip_grad_norm", (grads,), {"max_norm": 2.0}), ())
    assert abs(norm / (np.float64(np.float32(1e30)) * np.sqrt(300)) - 1) < 1e-12
    assert np.allclose(grads[0], 2 / np.sqrt(300), rtol=1e-5)


# ---- functions

@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_log_from_one(real: Any, rng: np.random.Generator) -> None:
    info = np.finfo(real)
    near = 1 + info.eps * np.arange(64)
    spread = 2 ** rng.uniform(0, info.maxexp - 1, 2000), 1 + rng.random(2000)
    x = np.concatenate([near, *spread, [info.max]]).astype(real)
    f = vmath.functions(real).log_from_one

    @inline
    def logarithm(x, p):
        return f(x)
    y = np.empty_like(x)
    maps.flat_unary(logarithm, real).launch(blocks(x.size, maps.THREADS), x, y, 0.0, x.size)
    expected = np.log(x.astype(np.longdouble)).astype(np.float64)
    assert (np.abs(y - expected) <= 2 * ulp(expected, np.dtype(real))).all()


def test_dropout_of_elements_beyond_32_bits() -> None:
    """The counter's second word counts too."""
    first, seed, n = 2**36 - 32, 0x123456789ABCDEF, 64
    x, y = np.ones(n, np.float32), np.empty(n, np.float32)
    flat("float32").launch(1, x, y, threshold(0.5), seed & 0xFFFFFFFF, seed >> 32, 1.0, first, n)
    words = philox(np.arange(first // 4, (first + n) // 4, dtype=np.uint64), seed).ravel()
    assert np.array_equal(y, words >= threshold(0.5))
