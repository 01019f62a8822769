"""The optimizer steps and clip_grad_norm: lists are checked completely before anything is written."""
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from calls import SPECS, read_only, refused
from tilewright import errors, ops

STEPS: dict[str, dict[str, Any]] = {
    "sgd_step": {"lr": 0.1, "momentum": 0.9}, "adam_step": {"step": 1}, "adamw_step": {"step": 1}}


def state(op: str, *shapes: tuple[int, ...]) -> list[list[np.ndarray]]:
    return [[np.ones(shape) for shape in shapes] for _ in SPECS[op].inputs]


def unchanged(op: str, lists: Any, error: type[Exception], backend: str, **attrs: Any) -> None:
    """The step raises, and no array has changed."""
    arrays = [x for many in lists if many is not None for x in ([many] if isinstance(many, np.ndarray) else many)]
    before = [np.array(x) for x in arrays]
    with pytest.raises(error):
        getattr(ops, op)(*lists, backend=backend, **(STEPS[op] | attrs))
    assert all((np.array(x) == b).all() for x, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("op", STEPS)
def test_optimizer_lists_must_match(op: str, backend: str) -> None:
    """Each fault sits in the last of several arrays, behind ones that could already have been written."""
    for i in range(len(SPECS[op].inputs)):
        def broken(last: Any, i: int = i) -> list[list[Any]]:
            lists: list[list[Any]] = state(op, (5,), (2, 3), (4,))
            lists[i][-1] = last
            return lists
        unchanged(op, broken(np.ones(5)), errors.ShapeError, backend)
        unchanged(op, broken(np.ones((4, 1))), errors.ShapeError, backend)
        unchanged(op, broken(np.ones(4, np.float32)), errors.TilewrightError, backend)
        unchanged(op, broken(np.ones(4, np.int64)), errors.DTypeError, backend)
        unchanged(op, broken(np.ones(4, ">f8")), errors.DTypeError, backend)
        unchanged(op, broken([1.0] * 4), errors.DTypeError, backend)
        shorter = state(op, (5,), (2, 3), (4,))
        shorter[i].pop()
        unchanged(op, shorter, errors.ShapeError, backend)
        if i in SPECS[op].mutates:
            unchanged(op, broken(read_only(np.ones(4))), errors.ArgumentError, backend)
            unchanged(op, broken(np.lib.stride_tricks.as_strided(np.ones(1), (4,), (0,))), errors.AliasError, backend)


@pytest.mark.parametrize("op", STEPS)
def test_optimizer_arrays_may_not_overlap(op: str, backend: str) -> None:
    for i, j in itertools.combinations(range(len(SPECS[op].inputs)), 2):
        if {i, j} & set(SPECS[op].mutates):
            lists = state(op, (3,), (6,))
            memory = np.ones(8)
            lists[i][1], lists[j][1] = memory[:6], memory[2:]
            unchanged(op, lists, errors.AliasError, backend)


@pytest.mark.parametrize(("op", "attrs"), [
    ("adam_step", {"step": 0}), ("adam_step", {"step": -3}), ("adam_step", {"step": 1.5}), ("adam_step", {"eps": -1.0}),
    ("adamw_step", {"betas": (1.0, 0.9)}), ("adamw_step", {"betas": (0.9, -0.1)}), ("adam_step", {"lr": -1.0}),
    ("adam_step", {"lr": np.nan}), ("sgd_step", {"lr": -0.1}), ("sgd_step", {"momentum": -0.1}),
    ("sgd_step", {"weight_decay": -1.0}), ("sgd_step", {"momentum": 0.0, "nesterov": True})])
def test_optimizer_attributes_outside_their_domain(op: str, attrs: dict, backend: str) -> None:
    unchanged(op, state(op, (3,), (4,)), errors.ArgumentError, backend, **attrs)


def test_momentum_needs_buffers(backend: str) -> None:
    unchanged("sgd_step", [[np.ones(3)], [np.ones(3)], None], errors.ArgumentError, backend)


@pytest.mark.parametrize("op", STEPS)
def test_optimizers_take_arrays_and_sequences(op: str, backend: str) -> None:
    """One array, a list, a tuple, arrays in Fortran order: the same new values."""
    rng = np.random.default_rng(4)
    start = [rng.uniform(0.1, 1, (5, 3)) for _ in SPECS[op].inputs]
    results = []
    wraps: list[Callable[[np.ndarray], Any]] = [
        lambda x: x, lambda x: [x], lambda x: (x,),
        lambda x: [np.asfortranarray(x)], lambda x: [np.repeat(x, 2, 0)[::2]]]
    for wrap in wraps:
        lists = [wrap(x.copy()) for x in start]
        getattr(ops, op)(*lists, backend=backend, **STEPS[op])
        results.append([np.array(many if isinstance(many, np.ndarray) else many[0]) for many in lists])
    for result in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], result, strict=True))
    assert not (results[0][0] == start[0]).any()


def test_clip_grad_norm(backend: str) -> None:
    """The norm of all together; nothing changes where it is small enough."""
    g, h = np.array([3.0, 0.0]), np.array([[4.0]])
    norm = tw.clip_grad_norm([g, h], 10.0, backend=backend)
    assert type(norm) is float
    assert (norm, g[0], h[0, 0]) == (5.0, 3.0, 4.0)
    assert tw.clip_grad_norm([g, h], 1.0, backend=backend) == 5.0
    np.testing.assert_allclose([g[0], h[0, 0]], [0.6, 0.8], rtol=1e-6)
    for value in (np.nan, np.inf):
        g[:] = [value, 1.0]
        assert str(tw.clip_grad_norm([g], 1.0, backend=backend)) == str(value)
    big = np.full(3, 1e20, np.float32)  # squares overflow float32
    assert abs(tw.clip_grad_norm([big], 1.0, backend=backend) / (1e20 * 3**0.5) - 1) < 1e-6
    refused(errors.ArgumentError, "clip_grad_norm", [np.ones(3)], -1.0)
