"""Integer products in CUDA, where conformance does not look: which kernel runs, sums that wrap on tensor cores, and
what stays on the device."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

import tilewright as tw
from tilewright.core import device
from tilewright.kernels.ptx.launch import Kernel
from tilewright.kernels.quantize.spec import integers


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the kernels that a test has launched."""
    names: list[str] = []
    real = Kernel.launch

    def launch(self: Kernel, *args: Any, **options: Any) -> None:
        names.append(self.function.__name__)
        real(self, *args, **options)
    monkeypatch.setattr(Kernel, "launch", launch)
    with device.using(conformance.emulated_device()):
        yield names


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product modulo 2^32."""
    return (a.astype(np.int64) @ b.astype(np.int64)).astype(np.uint32).view(np.int32)


def aligned(x: np.ndarray) -> np.ndarray:
    """A copy at a multiple of 16 bytes."""
    memory = np.empty(x.nbytes + 15, np.uint8)
    copy = memory[-memory.ctypes.data % 16:][:x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def test_tensor_cores_wrap(launched: list[str]) -> None:
    a, b = np.full((9, 34000), 255, np.uint8), np.full((34000, 3), 255, np.uint8)
    a[:, ::7] = 254
    assert (a[0].astype(np.int64) @ b[:, 0].astype(np.int64)) > 2**31
    assert (tw.matmul_integer(a, b, backend="cuda") == exact(a, b)).all()
    assert launched[-1] == "tensor_tile"


@pytest.mark.parametrize("b_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_device_without_tensor_cores_of_bytes(launched: list[str], rng: np.random.Generator, a_dtype: str,
                                              b_dtype: str) -> None:
    with device.using(device.emulation((7, 5))):
        for m, n, k in ((9, 1, 1), (64, 65, 64), (65, 64, 90), (33, 70, 0)):
            a, b = integers(rng, (m, k), a_dtype), integers(rng, (k, n), b_dtype)
            za, zb = (integers(rng, (size,), dtype) for size, dtype in ((m, a_dtype), (n, b_dtype)))
            expected = exact(a.astype(np.int64) - za[:, None], b.astype(np.int64) - zb)
            guard = conformance.Guarded((m, n), np.int32, "step")
            tw.matmul_integer(a, b, za, zb, out=guard.array, backend="cuda")
            result, complaint = guard.take()
            assert complaint is None
            assert (result == expected).all()
            assert launched[-1] == "tile"


@pytest.mark.parametrize("rows", [1, 8, 9])
def test_few_rows(launched: list[str], rng: np.random.Generator, rows: int) -> None:
    a, b = rng.integers(-128, 128, (rows, 40), np.int8), rng.integers(-128, 128, (40, 9), np.int8)
    assert (tw.matmul_integer(a, b, backend="cuda") == exact(a, b)).all()
    assert launched[-1] == ("few" if rows <= 8 else "tensor_tile")


def test_operands_that_lie_as_kernels_read_them_are_not_copied(launched: list[str], rng: np.random.Generator,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of whole chunks of 16 bytes, and columns of a transposed matrix of such rows."""
    from tilewright.kernels.qgemm import cuda_sides
    a, b = (aligned(rng.integers(-128, 128, (n, 64), np.int8)) for n in (33, 17))
    shapes = []
    real = cuda_sides.scratch

    def scratch(shape: Any, dtype: Any) -> np.ndarray:
        shapes.append(shape)
        return real(shape, dtype)
    monkeypatch.setattr(cuda_sides, "scratch", scratch)
    assert (tw.matmul_integer(a, b.T, backend="cuda") == exact(a, b.T)).all()
    assert shapes == [(33, 8), (17, 8)]  # records alone


def test_columns_of_a_packed_matrix_are_summed_once(launched: list[str], rng: np.random.Generator) -> None:
    a, b = rng.integers(-128, 128, (9, 20), np.int8), rng.integers(-128, 128, (20, 5), np.int8)
    packed = tw.pack(b)
    for zero in (3, -7):
        launched.clear()
        y = tw.matmul_integer(a, packed, np.int8(zero), backend="cuda")
        assert (y == exact(a.astype(np.int64) - zero, b)).all()
        assert launched == ["along", "recorded", "tensor_tile"]


@pytest.mark.parametrize("rows", [16, 17])
@pytest.mark.parametrize("scheme", [{"method": "weight-only"}, {"bits": 4, "group_size": 7, "symmetric": False}])
def test_weights_for_many_rows_become_floats_once(launched: list[str], rng: np.random.Generator, rows: int,
                                                  scheme: dict[str, Any]) -> None:
    w = tw.quantize_weight(rng.standard_normal((9, 20)).astype(np.float32), **scheme)
    x = rng.standard_normal((rows, 20)).astype(np.float32)
    expected = x.astype(np.float64) @ w.dequantize().astype(np.float64).T
    y = tw.linear(x, w, backend="cuda")
    assert (np.abs(y - expected) <= 25 * 2.0**-24 * (np.abs(x) @ np.abs(w.dequantize()).T)).all()
    assert launched.count("dequantized") == (rows > 16) and launched.count("weighted") == (rows <= 16)


@pytest.mark.parametrize("scheme", [{}, {"bits": 4, "group_size": 32}])
def test_weights_go_to_the_device_once(launched: list[str], rng: np.random.Generator, scheme: dict[str, Any]) -> None:
    w = tw.quantize_weight(rng.standard_normal((20, 64)).astype(np.float32), **scheme)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    first = tw.linear(x, w, backend="cuda")
    kept = w.cuda
    assert (tw.linear(x, w, backend="cuda") == first).all()
    assert w.cuda is kept
    with device.using(device.emulation((8, 0))):  # another device gets copies of its own
        assert (tw.linear(x, w, backend="cuda") == first).all()
    assert w.cuda is kept
