"""Kernels that numba-cuda compiled, run by the emulator, and then broken one instruction at a time."""
from __future__ import annotations

import math
import re
import types as python_types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

from numba import cuda
from numba.cuda import dispatcher, types

from conformance import SEED
from tilewright import emulate

CAPABILITIES = [(8, 0), (9, 0), (10, 0)]


@pytest.fixture(params=CAPABILITIES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that gives a kernel's PTX for a device of some capability; device functions ask which one it is."""
    cc = request.param
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: python_types.SimpleNamespace(compute_capability=cc))

    def compile_(kernel: Callable[..., None], *signature: Any, **options: Any) -> str:
        ptx, _ = cuda.compile(kernel, signature, cc=cc, output="ptx", abi="numba", device=False, **options)
        return str(ptx)
    yield compile_


def arguments(*values: Any) -> list[Any]:
    """Arrays as numba hands them over: two pointers to nothing, size, item size, data, shape, strides."""
    flat: list[Any] = []
    for v in values:
        if isinstance(v, np.ndarray):
            flat += [np.uint64(x) for x in (0, 0, v.size, v.itemsize, v.ctypes.data)]
            flat += [np.int64(x) for x in (*v.shape, *v.strides)]
        else:
            flat.append(v)
    return flat


F32, F64 = types.float32, types.float64


def array(dtype: Any, n: int) -> Any:
    return types.Array(dtype, n, "C")


def matmul_tiled(a, b, c):  # type: ignore[no-untyped-def]
    sa = cuda.shared.array((16, 16), F32)
    sb = cuda.shared.array((16, 16), F32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * 16 + y, cuda.blockIdx.x * 16 + x
    total = F32(0)
    for k in range(0, a.shape[1], 16):
        sa[y, x] = a[row, k + x] if row < a.shape[0] and k + x < a.shape[1] else F32(0)
        sb[y, x] = b[k + y, column] if k + y < b.shape[0] and column < b.shape[1] else F32(0)
        cuda.syncthreads()
        for i in range(16):
            total += sa[y, i] * sb[i, x]
        cuda.syncthreads()
    if row < c.shape[0] and column < c.shape[1]:
        c[row, column] = total


def test_a_tiled_product_and_its_barriers(compiled: Callable[..., str]) -> None:
    rng = np.random.default_rng(SEED)
    a, b = rng.normal(size=(37, 45)).astype(np.float32), rng.normal(size=(45, 19)).astype(np.float32)
    exact = a.astype(float) @ b
    bound = (45 + 2) * 2.0**-24 * (np.abs(a).astype(float) @ np.abs(b))
    ptx = compiled(matmul_tiled, *[array(F32, 2)] * 3)

    def run(text: str, seed: int) -> str:
        c = np.full((37, 19), np.nan, np.float32)
        try:
            emulate.Module(text).launch(None, (2, 3), (16, 16), arguments(a, b, c), [(a, "r"), (b, "r"), (c, "w")],
                                        seed=seed, limit=1 << 18)
        except emulate.Fault as fault:
            return fault.kind
        return "right" if (np.abs(c - exact) <= bound).all() else "wrong"
    assert [run(ptx, seed) for seed in (0, 1, 2)] == ["right"] * 3
    barriers = list(re.finditer(r"bar\.sync\s+0;", ptx))
    assert len(barriers) >= 2
    for barrier in barriers:
        broken = ptx[:barrier.start()] + ptx[barrier.end():]
        assert run(broken, 1) in ("race", "uninitialised")
    survivors = []
    for guard in re.finditer(r"@!?%p\d+ bra", ptx):
        always, never = (ptx[:guard.start()] + text + ptx[guard.end():] for text in ("bra", "// "))
        assert run(always, 1) != "right"
        if run(never, 1) == "right":
            survivors.append(ptx[guard.start():guard.end() + 20])
    assert len(survivors) == 1, survivors  # what skips the loop where there is no k at all


def layer_norm(x, y, eps):  # type: ignore[no-untyped-def]
    sums = cuda.shared.array(8, F32)
    squares = cuda.shared.array(8, F32)
    row, t, n = cuda.blockIdx.x, cuda.threadIdx.x, x.shape[1]
    a, b = F32(0), F32(0)
    for j in range(t, n, 256):
        a += x[row, j]
        b += x[row, j] * x[row, j]
    for d in (16, 8, 4, 2, 1):
        a += cuda.shfl_xor_sync(0xFFFFFFFF, a, d)
        b += cuda.shfl_xor_sync(0xFFFFFFFF, b, d)
    if t % 32 == 0:
        sums[t // 32] = a
        squares[t // 32] = b
    cuda.syncthreads()
    a, b = F32(0), F32(0)
    for i in range(8):
        a += sums[i]
        b += squares[i]
    mean = a / F32(n)
    scale = F32(1) / math.sqrt(b / F32(n) - mean * mean + eps)
    for j in range(t, n, 256):
        y[row, j] = (x[row, j] - mean) * scale


def test_layer_norm(compiled: Callable[..., str]) -> None:
    x = np.random.default_rng(SEED).normal(size=(3, 700)).astype(np.float32)
    y = np.full_like(x, np.nan)
    module = emulate.Module(compiled(layer_norm, array(F32, 2), array(F32, 2), F32))
    report = module.launch(None, 3, 256, arguments(x, y, np.float32(1e-5)), [(x, "r"), (y, "w")], seed=4)
    wide = x.astype(float)
    exact = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    # sums of 3 terms a thread and 5 + 8 more, as the mean and the variance take them; both are of order 1
    assert (np.abs(y - exact) <= 64 * 2.0**-24 * (1 + np.abs(exact))).all()
    assert (report.barriers, report.collectives) == (3, 3 * 8 * 10)


def functions(out, x):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    if i < x.size:
        out[i] = math.sin(x[i]) + math.pow(abs(x[i]), 0.3) + math.exp(-abs(x[i])) + math.erf(x[i])


def test_functions_of_the_device_library(compiled: Callable[..., str]) -> None:
    """sin reduces great arguments, and pow is a function, by calls."""
    x = np.concatenate([np.random.default_rng(SEED).normal(size=60) * 10, [1e5, 3e10, -7e15, 1e22]])
    out = np.full_like(x, np.nan)
    ptx = compiled(functions, array(F64, 1), array(F64, 1))
    assert "call" in ptx
    emulate.Module(ptx).launch(None, 2, 32, arguments(out, x), [(out, "w"), (x, "r")])
    exact = [math.sin(v) + abs(v)**0.3 + math.exp(-abs(v)) + math.erf(v) for v in x]
    assert (np.abs(out - exact) <= 16 * 2.0**-53 * (4 + np.abs(exact))).all()


def histogram(x, counts):  # type: ignore[no-untyped-def]
    local = cuda.shared.array(16, types.int32)
    t = cuda.threadIdx.x
    if t < 16:
        local[t] = 0
    cuda.syncthreads()
    i = cuda.grid(1)
    if i < x.size:
        cuda.atomic.add(local, x[i], 1)
    cuda.syncthreads()
    if t < 16:
        cuda.atomic.add(counts, t, local[t])


def test_histogram_and_places_in_the_source(compiled: Callable[..., str]) -> None:
    x = np.random.default_rng(SEED).integers(0, 16, 1000).astype(np.int32)
    counts = np.zeros(16, np.int32)
    ptx = compiled(histogram, array(types.int32, 1), array(types.int32, 1), lineinfo=True)
    memory = [(x, "r"), (counts, "rw")]
    emulate.Module(ptx).launch(None, 8, 128, arguments(x, counts), memory, seed=2)
    assert counts.tolist() == np.bincount(x, minlength=16).tolist()
    with pytest.raises(emulate.Fault) as caught:  # without room for the last counter
        emulate.Module(ptx).launch(None, 8, 128, arguments(x, counts), [(x, "r"), (counts[:15], "rw")])
    assert caught.value.kind == "out-of-bounds" and caught.value.source is not None
    file, line = caught.value.source
    assert file.endswith("test_emulate_kernels.py")
    assert line == histogram.__code__.co_firstlineno + 11
