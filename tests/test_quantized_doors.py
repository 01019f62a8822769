"""The fast doors of quantization and of layers on integers: what they take, and that they agree with the long way."""
from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.core import native

pytestmark = pytest.mark.skipif(native.door is None, reason=str(native.missing_reason()))
NARROW = (np.uint8, np.int8, np.uint16, np.int16)


def same(call: Any, *args: Any, **attrs: Any) -> np.ndarray:
    """The result in C, once it is seen to have the bits and the dtype of NumPy's."""
    got, want = (call(*args, **attrs, backend=backend) for backend in ("c", "numpy"))
    np.testing.assert_array_equal(got, want, strict=True)
    return got


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("scale", [0.3, np.float32(0.3), np.float64(0.3), np.array(0.3, np.float32),
                                   np.array([0.3], np.float32)])
def test_single_numbers(kind: type, scale: Any) -> None:
    x = np.linspace(-400, 400, 333, dtype=np.float32).reshape(3, 111)[:, ::2]
    for zero in (kind(7), np.array(7, kind), np.array([7], kind)):
        y = native.door.quantize_linear(x, scale, zero, 0, None, None)
        assert y is not NotImplemented and y.dtype == kind
        same(tw.dequantize_linear, same(tw.quantize_linear, x, scale, zero), scale, zero)
    assert same(tw.quantize_linear, x, scale, 7).dtype == np.uint8


@pytest.mark.parametrize("args", [
    (0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (1e-60, None), (1, None), (0.5, 256),
    (0.5, -1), (0.5, 1 << 80), (0.5, np.int32(3)), (0.5, 2.0), (np.ones(3, np.float32), None)])
def test_door_refuses(args: tuple) -> None:
    """Errors are for the long way to raise; so are the rarer forms for it to read."""
    x = np.ones((4, 3), np.float32)
    assert native.door.quantize_linear(x, *args, 0, None, None) is NotImplemented
    assert native.door.dequantize_linear(x.astype(np.uint8), *args, 0, None) is NotImplemented


def test_dynamic_quantize_linear_gives_scalars() -> None:
    y, scale, zero = tw.dynamic_quantize_linear(np.array([-1.0, 3.0], np.float32), backend="c")
    assert (type(scale), type(zero)) == (np.float32, np.uint8)
    assert y.tolist() == [0, 255]


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_nan_alone(value: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 77), dtype=np.float32)
    w, bias = tw.quantize_weight(rng.standard_normal((19, 77))), rng.standard_normal(19, dtype=np.float32)
    clean = tw.linear(x, w, bias, backend="c")
    x[17, 60] = value
    y = tw.linear(x, w, bias, backend="c")
    assert np.isnan(y[17]).all()
    np.testing.assert_array_equal(np.delete(y, 17, 0), np.delete(clean, 17, 0))


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_layers_have_the_same_bits_on_any_strides_and_threads(activation: str | None) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 100, 70), dtype=np.float32)
    w = tw.quantize_weight(rng.standard_normal((130, 70)), symmetric=False)
    bias = rng.standard_normal(260, dtype=np.float32)[::2]
    want = tw.linear(x, w, bias, activation=activation, backend="c")
    turned, wide = np.asfortranarray(x), np.full((3, 100, 260), np.nan, np.float32)
    with tw.threads(2):
        for given in (x, x[:, ::-1][:, ::-1], turned):
            np.testing.assert_array_equal(tw.linear(given, w, bias, activation=activation, backend="c"), want)
        tw.linear(x, w, bias, activation=activation, out=wide[..., ::2], backend="c")
    np.testing.assert_array_equal(wide[..., ::2], want)
    assert np.isnan(wide[..., 1::2]).all()


def test_many_rows_go_in_blocks() -> None:
    """More quantized rows than one buffer holds, with a residual that is the result."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((9000, 600), dtype=np.float32)
    w = tw.quantize_weight(rng.standard_normal((3, 600)))
    y = rng.standard_normal((9000, 3), dtype=np.float32)
    added = tw.linear(x, w, backend="c") + y
    np.testing.assert_array_equal(tw.linear(x, w, None, y, out=y, backend="c"), added)
    np.testing.assert_array_equal(tw.linear(x[8000:], w, backend="c"), tw.linear(x, w, backend="c")[8000:])


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_static_layers_and_products(kind: type) -> None:
    rng = np.random.default_rng(11)
    a = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, (2, 9, 33), endpoint=True).astype(kind)
    b = rng.integers(-128, 128, (33, 21)).astype(np.int8)
    for right in (b, tw.pack(b)):
        same(tw.qlinear_matmul, a, 0.1, kind(3), right, np.float32(0.2), np.int8(-5), 16.5, kind(7))
        same(tw.qlinear_matmul, a[0], rng.uniform(0.1, 1, 9).astype(np.float32), kind(3), right,
             rng.uniform(0.1, 1, 21).astype(np.float32), np.int8(-5), 20.0, kind(7))
    w, bias = tw.quantize_weight(b.T.astype(np.float32), symmetric=False), rng.standard_normal(21, dtype=np.float32)
    for to in ({}, {"y_scale": 2.5, "y_zero_point": kind(3)}):
        for activation in (None, "relu"):
            same(tw.qlinear, a, 0.01, kind(3), w, bias, activation=activation, **to)


@pytest.mark.parametrize(("prepare", "slot"), [(tw.pack, "numba_b"), (tw.quantize_weight, "numba")])
def test_threads_that_make_a_form_at_once_share_the_first(prepare: Any, slot: str) -> None:
    """A second one in its place would free what a door still reads."""
    matrix, meet = prepare(np.ones((3, 4), np.float32)), threading.Barrier(2)

    def make(_: Any) -> object:
        meet.wait(timeout=30)  # both have found the slot empty
        return object()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: matrix.form(slot, make), range(2))
    assert first is second
