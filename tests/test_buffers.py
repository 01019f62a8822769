"""The memory of a training step: none is allocated after the first, and nothing that somebody holds is used again."""
from __future__ import annotations

import copy
import gc
import os
import pickle
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.autograd import buffers
from tilewright.core import registry

MODELS: dict[str, dict[str, Any]] = {
    "relu": {}, "gelu": {"activation": "gelu"}, "gelu_tanh, dropout": {"activation": "gelu_tanh", "dropout": 0.2},
    "silu, layer norm": {"activation": "silu", "norm": "layer"}, "rms norm": {"norm": "rms"}}
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": tw.optim.SGD, "momentum": lambda p: tw.optim.SGD(p, momentum=0.9), "adam": tw.optim.Adam,
    "adamw": tw.optim.AdamW}


def training(model: str = "relu", optimizer: str = "sgd", dtype: Any = np.float32, loss: Any = None) -> tuple[Any, Any]:
    """(model, step); every array of a step is larger than three pages or smaller than a quarter of one."""
    net = tw.nn.MLP([96, 80, 72, 64], seed=0, dtype=dtype, **MODELS[model])
    opt = OPTIMIZERS[optimizer](net.parameters())
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((64, 96)).astype(dtype), rng.integers(0, 64, 64)

    def step() -> tw.Tensor:
        opt.zero_grad()
        value = tw.nn.cross_entropy(net(tw.Tensor(x)), labels) if loss is None else loss(net(tw.Tensor(x)))
        value.backward()
        opt.step()
        return value
    return net, step


def most_at_once(step: Callable[[], Any]) -> int:
    """Bytes that Python and NumPy hold at most during one step, above what they hold before it."""
    for _ in range(4):
        step()
    gc.collect()
    tracemalloc.start()
    try:
        step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


TWO_PAGES = 8192  # small objects of a step together; its arrays are larger


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_allocates_no_array(model: str, optimizer: str, dtype: Any) -> None:
    _, step = training(model, optimizer, dtype)
    assert most_at_once(step) < TWO_PAGES


def test_other_losses_and_accumulation_allocate_no_array() -> None:
    goal = np.zeros((64, 64), np.float32)
    for loss in (lambda y: tw.nn.mse_loss(y, goal), lambda y: tw.nn.mse_loss(y, goal, reduction="sum")):
        assert most_at_once(training(loss=loss)[1]) < TWO_PAGES
    net, _ = training()
    x, labels = np.ones((64, 96), np.float32), np.zeros(64, np.int64)
    assert most_at_once(lambda: tw.nn.cross_entropy(net(x), labels).backward()) < TWO_PAGES


def test_the_measure_sees_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers.Pool, "take", lambda self, shape, dtype: np.empty(shape, dtype))
    assert most_at_once(training()[1]) > 2 * TWO_PAGES


COUNT = """
import ctypes, sys
import numpy as np, tilewright as tw
from test_buffers import MODELS, OPTIMIZERS, buffers, training
if sys.argv[1] == "new":
    buffers.Pool.take = lambda self, shape, dtype: np.empty(shape, dtype)
count = ctypes.CDLL(None).blocks_so_far
with tw.use_backend("c"), tw.threads(int(sys.argv[2])):
    steps = [training(model, optimizer)[1] for model in MODELS for optimizer in OPTIMIZERS]
    for step in steps * 3:
        step()
    before = count()
    for step in steps:
        step()
    print(count() - before)
"""


CC = shlex.split(os.environ.get("CC", "cc"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or "c" not in tw.backends() or not shutil.which(CC[0]),
                    reason="takes the place of glibc's malloc, with the help of a C compiler")
def test_no_block_above_a_page_is_allocated(tmp_path: Path, child_env: dict[str, str]) -> None:
    """Neither by NumPy nor by the C library, counted where they ask for memory."""
    here, counter = Path(__file__).parent, tmp_path / "count_blocks.so"
    subprocess.run([*CC, "-shared", "-fPIC", "-O2", str(here / "c/count_blocks.c"), "-o", str(counter)], check=True)
    env = child_env | {"LD_PRELOAD": str(counter), "PYTHONPATH": f"{child_env['PYTHONPATH']}:{here}"}

    def blocks(how: str, threads: int) -> int:
        command = [sys.executable, "-c", COUNT, how, str(threads)]
        return int(subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert [blocks("reused", 1), blocks("reused", 2)] == [0, 0]
    assert blocks("new", 1) > 100


# ---- what somebody holds

def test_the_bits_are_those_of_new_memory(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    with tw.use_backend(backend):
        net, step = training("gelu", "adam")
        for _ in range(20):
            step()
        monkeypatch.setattr(buffers.Pool, "take", lambda self, shape, dtype: np.empty(shape, dtype))
        other, step = training("gelu", "adam")
        for _ in range(20):
            step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()


HOLDERS: dict[str, Callable[[tw.Tensor], Any]] = {
    "tensor": lambda t: t, "array": lambda t: t.data, "view": lambda t: t.data[3:], "transpose": lambda t: t.data.T,
    "detached": lambda t: t.detach(), "memoryview": lambda t: memoryview(t.data),
    "dlpack": lambda t: np.from_dlpack(t.data), "reshaped tensor": lambda t: t.reshape(-1)}


@pytest.mark.parametrize("how", HOLDERS)
def test_a_result_that_is_held_stays_as_it_is(how: str) -> None:
    net, step = training()
    for _ in range(3):
        step()
    x = np.random.default_rng(2).standard_normal((64, 96)).astype(np.float32)
    held = HOLDERS[how](net(tw.Tensor(x)))
    before = np.array(held).tobytes()
    for _ in range(2 * buffers.KEEP):
        step()
    assert np.array(held).tobytes() == before


def test_a_gradient_that_is_held_stays_as_it_is() -> None:
    net, step = training()
    step()
    held = [p.grad for p in net.parameters()]
    before = [g.tobytes() for g in held]
    step()
    assert [g.tobytes() for g in held] == before
    x, labels = np.ones((64, 96), np.float32), np.zeros(64, np.int64)
    held = [p.grad for p in net.parameters()]
    before = [g.tobytes() for g in held]
    tw.nn.cross_entropy(net(x), labels).backward()  # adds to them: not in place, for we hold them
    assert [g.tobytes() for g in held] == before
    assert all(p.grad is not g for p, g in zip(net.parameters(), held, strict=True))


def test_gradients_add_up(backend: str) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal((5, 7)) for _ in range(3)]
    labels = rng.integers(0, 4, 5)

    def gradients(bias: bool, *which: int) -> list[np.ndarray]:
        net = tw.nn.MLP([7, 6, 4], "tanh", seed=0, dtype=np.float64, bias=bias)
        for i in which:
            tw.nn.cross_entropy(net(batches[i]), labels).backward()
        return [p.grad.copy() for p in net.parameters()]
    with tw.use_backend(backend):
        for bias in (True, False):
            each = [gradients(bias, i) for i in range(3)]
            for total, *parts in zip(gradients(bias, 0, 1, 2), *each, strict=True):
                np.testing.assert_allclose(total, np.sum(parts, axis=0), rtol=1e-13, atol=1e-16)


def test_gradients_of_a_layer_used_twice_partly_frozen_or_computed() -> None:
    """The tape's gradient of the layer is the table's, whatever of it is a leaf, frozen, shared or has a gradient."""
    rng = np.random.default_rng(4)
    x, w, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 4)), rng.standard_normal(4)

    def gradients(layer: Any, mode: str) -> list[Any]:
        t, u, v = (tw.Tensor(a.copy(), requires_grad=True) for a in (x, w, b))
        weight, bias = (u * 2.0, v + 1.0) if mode == "computed" else (u, v)
        if mode in ("weight frozen", "bias frozen"):
            (u if mode == "weight frozen" else v).requires_grad_(False)
        if mode == "bias has one":
            v.grad = np.ones(4)
        y = layer(layer(t, weight, bias), weight, bias)
        (y * y).sum().backward()
        return [t.grad, u.grad, v.grad]
    for mode in ("leaves", "computed", "weight frozen", "bias frozen", "bias has one"):
        fused = gradients(lambda *a: tw.nn.fused.linear(*a, "tanh"), mode)
        plain = gradients(lambda t, w, b: tw.tanh(t @ w.T + b), mode)
        for f, p in zip(fused, plain, strict=True):
            assert (f is None) == (p is None), mode
            if f is not None:
                np.testing.assert_allclose(f, p, rtol=1e-12, atol=1e-13, err_msg=mode)


def test_the_table_says_which_results_look_like_which_inputs() -> None:
    for op, spec in registry.specs().items():
        for case in spec.cases(np.random.default_rng(0), "float32") if spec.like else ():
            outputs = spec.prepare(case.inputs, case.attrs).outputs
            assert len(outputs) == len(spec.like), op
            assert all(i is None or case.inputs[i].shape == shape
                       for i, (shape, _) in zip(spec.like, outputs, strict=True)), (op, case.label)


# ---- the pool itself

def test_the_memory_goes_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_pool", weakref.ref(buffers.Pool()))  # none that other tests left
    net, step = training()
    for _ in range(3):
        step()
    pool = weakref.ref(net.parameters()[0]._spare.pool)
    assert sum(len(ring or ()) for ring in pool().rings.values()) > 3
    del net, step
    gc.collect()
    assert pool() is None


def test_copies_and_pickles_leave_the_memory_behind() -> None:
    net, step = training()
    step()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(p._spare is None for p in other.parameters())
        x = np.ones((64, 96), np.float32)
        assert other(x).data.tobytes() == net(x).data.tobytes()


def test_what_is_not_taken_is_dropped() -> None:
    pool, dtype = buffers.Pool(), np.dtype(np.float32)
    pool.take((2000,), dtype)
    held = [pool.take((3000,), dtype) for _ in range(5)]
    for _ in range(2 * buffers.KEEP):
        pool.take((3000,), dtype)
        pool.take((10,), dtype)
        pool.end_pass()
    rings = [ring for rings in (pool.rings, pool.before) for ring in rings.values() if ring]
    assert [len(ring) for ring in rings] == [1] and rings[0][0].shape == (3000,)
    assert len({id(x) for x in (*held, rings[0][0])}) == 6


def test_changed_arrays_are_not_handed_out() -> None:
    pool, key = buffers.Pool(), ((40, 50), np.dtype(np.float32))
    pool.take(*key).flags.writeable = False
    a = pool.take(*key)
    assert a.flags.writeable
    a.shape = (50, 40)
    del a
    assert pool.take(*key).shape == (40, 50)
    p = tw.Tensor(np.zeros((40, 50)), requires_grad=True)
    for _ in range(3):
        p.grad = None
        p.grad, beta = buffers.room_for(p)
        assert p.grad.flags.writeable and beta == 0
        p.grad.flags.writeable = False


def test_threads_train_as_if_alone() -> None:
    def run(results: list, number: int) -> None:
        net, step = training("gelu", "adam")
        for _ in range(30):
            step()
        results[number] = [p.data.tobytes() for p in net.parameters()]
    results: list = [None] * 5
    run(results, 0)
    workers = [threading.Thread(target=run, args=(results, i)) for i in range(1, 5)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert all(r == results[0] for r in results)
