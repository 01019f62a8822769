"""QuantizedMatrix and quantize_weight: what they hold, what they refuse, and the layers on top of them."""
from __future__ import annotations

import copy
import itertools
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from calls import AVAILABLE, PURE, SPECS, arguments, refused, run
from tilewright import errors

SCHEMES: list[dict[str, Any]] = [
    {}, {"symmetric": False}, {"method": "weight-only"}, {"bits": 4}, {"bits": 4, "group_size": 32, "symmetric": False},
    {"group_size": 10}, {"bits": 4, "group_size": 7}]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(5, 67), (1, 1), (33, 64), (0, 5), (5, 0)], ids=str)
def test_the_error_is_at_most_half_a_step(scheme: dict, shape: tuple, rng: np.random.Generator) -> None:
    w = (rng.standard_normal(shape) * rng.uniform(1e-3, 1e3, (shape[0], 1))).astype(np.float32)
    q = tw.quantize_weight(w, **scheme)
    assert q.shape == shape and q.dequantize().dtype == np.float32
    step = q.each(q.scales).astype(np.float64)
    room = 1.0 if q.zero_points is not None else 0.5  # a rounded zero point may cut half a step off one end
    assert (np.abs(q.dequantize(np.float64) - w) <= room * step * (1 + 1e-5)).all()
    low = -(1 << q.bits - 1)
    assert q.integers().size == 0 or (q.integers().min() >= low and q.integers().max() <= -low - 1)


def test_four_bits_take_half_a_byte(rng: np.random.Generator) -> None:
    w = rng.standard_normal((3, 7)).astype(np.float32)
    q = tw.quantize_weight(w, 4)
    assert q.values.shape == (3, 4) and q.values.dtype == np.uint8
    for n, k in np.ndindex(3, 7):
        half = int(q.values[n, k // 2]) >> 4 * (k % 2) & 15
        assert q.integers()[n, k] == (half ^ 8) - 8


def test_zero_stays_zero(rng: np.random.Generator) -> None:
    """Also with zero points: padding and relu make many zeros."""
    w = rng.uniform(1, 2, (4, 40)).astype(np.float32)
    w[:, ::3] = 0
    for scheme in SCHEMES:
        assert (tw.quantize_weight(w, **scheme).dequantize()[:, ::3] == 0).all()
    zeros = tw.quantize_weight(np.zeros((2, 8), np.float32))
    assert (zeros.scales == 1).all() and (zeros.dequantize() == 0).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_pickles_and_cannot_be_changed(scheme: dict, rng: np.random.Generator) -> None:
    q = tw.quantize_weight(rng.standard_normal((9, 33)), **scheme)
    x = rng.standard_normal((4, 33)).astype(np.float32)
    for other in (pickle.loads(pickle.dumps(q)), copy.deepcopy(q)):
        assert repr(other) == repr(q)
        assert tw.linear(x, other).tobytes() == tw.linear(x, q).tobytes()
    with pytest.raises(AttributeError):
        q.scales = np.ones((9, 1), np.float32)
    for part in (q.values, q.scales):
        with pytest.raises(ValueError):
            part[0, 0] = 1


def test_a_snapshot(rng: np.random.Generator) -> None:
    w = rng.standard_normal((9, 33)).astype(np.float32)
    q = tw.quantize_weight(w)
    before = q.dequantize()
    w[:] = 0
    assert (q.dequantize() == before).all()


def test_refusals(rng: np.random.Generator) -> None:
    w = rng.standard_normal((4, 6)).astype(np.float32)
    for bad in (np.nan, np.inf, 1e300):
        wrong = w.astype(np.float64)
        wrong[1, 2] = bad
        with pytest.raises(errors.ArgumentError):
            tw.quantize_weight(wrong)
    for options in ({"bits": 3}, {"bits": 8.0}, {"bits": 4.0}, {"group_size": 0}, {"group_size": 2.5},
                    {"method": "static"}, {"bits": 4, "method": "dynamic"}, {"group_size": 2, "method": "dynamic"}):
        with pytest.raises(errors.ArgumentError):
            tw.quantize_weight(w, **options)
    with pytest.raises(errors.ShapeError):
        tw.quantize_weight(w[0])
    with pytest.raises(errors.DTypeError):
        tw.quantize_weight(np.ones((2, 2), int))
    values, scales = np.ones((4, 6), np.int8), np.ones((4, 1), np.float32)
    for parts, error in (((values, scales[:3]), errors.ShapeError), ((values, scales[:, 0]), errors.ShapeError),
                         ((values.astype(int), scales), errors.DTypeError), ((values, -scales), errors.ArgumentError),
                         ((values, scales * np.float32("nan")), errors.ArgumentError),
                         ((values, scales, np.zeros((4, 2), np.int8)), errors.ShapeError)):
        with pytest.raises(error):
            tw.QuantizedMatrix(*parts)
    for columns in (5, 7, "6", 6.5):
        with pytest.raises(errors.ShapeError, match="columns"):
            tw.QuantizedMatrix(values, scales, columns=columns)
    with pytest.raises(errors.ShapeError, match="-1 columns"):
        tw.QuantizedMatrix(np.ones((4, 0), np.uint8), scales, columns=-1, bits=4, method="weight-only")


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_linear_is_near_the_float_layer(scheme: dict, backend: str, rng: np.random.Generator) -> None:
    x, w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((21, 300), (40, 300), (40,)))
    q = tw.quantize_weight(w, **scheme)
    exact = x.astype(np.float64) @ w.T + bias
    error = np.linalg.norm(tw.linear(x, q, bias, backend=backend) - exact) / np.linalg.norm(exact)
    assert error < (0.02 if q.bits == 8 else 0.2)


def test_linear_takes_any_floats(backend: str, rng: np.random.Generator) -> None:
    x, q = rng.standard_normal((3, 5, 30)), tw.quantize_weight(rng.standard_normal((7, 30)))
    y = tw.linear(x.tolist(), q, backend=backend)
    assert y.dtype == np.float32 and y.shape == (3, 5, 7)
    assert (y == tw.linear(x.astype(np.float32), q, backend=backend)).all()


def test_gradient_of_a_layer_of_quantized_weights(rng: np.random.Generator) -> None:
    """Through the weights as they stand for."""
    q = tw.quantize_weight(rng.standard_normal((7, 30)), 4, 10)
    x = tw.Tensor(rng.standard_normal((5, 30)).astype(np.float32), requires_grad=True)
    tw.linear(x, q, activation="silu").sum().backward()
    same = tw.Tensor(x.numpy(), requires_grad=True)
    tw.linear(same, tw.Tensor(q.dequantize()), activation="silu").sum().backward()
    np.testing.assert_allclose(x.grad, same.grad, rtol=1e-4, atol=1e-5)


def test_products_of_integers_refuse() -> None:
    a, b = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8)
    refused(errors.ShapeError, "matmul_integer", a, b[:3])
    refused(errors.ShapeError, "matmul_integer", a, b, np.zeros(2, np.uint8))
    refused(errors.ShapeError, "matmul_integer", a, b, None, np.zeros((5, 1), np.int8))
    refused(errors.ArgumentError, "matmul_integer", a, b, 256)
    refused(errors.ArgumentError, "matmul_integer", a, b, -1)
    refused(errors.ArgumentError, "matmul_integer", a, b, 0, 128)
    for beyond in (1 << 80, -1 << 80, np.uint64(1 << 63), np.int64(-1 << 63)):
        refused(errors.ArgumentError, "matmul_integer", a, b, beyond)
        refused(errors.ArgumentError, "matmul_integer", a, b, 0, beyond)
        refused(errors.ArgumentError, "quantize_linear", np.zeros(3, np.float32), 1.0, beyond, output_dtype="int8")
    with pytest.raises(errors.ArgumentError, match=f"a_zero_point {1 << 63} is outside of uint8, 0 ... 255"):
        tw.matmul_integer(a, b, np.uint64(1 << 63))
    refused(errors.DTypeError, "matmul_integer", a, b, 0.5)
    refused(errors.DTypeError, "matmul_integer", a.astype(np.int16), b)
    refused(errors.DTypeError, "matmul_integer", a, None)
    good = [a, 0.5, np.uint8(1), b, 0.5, np.int8(1), 0.25, np.int8(3)]
    for i in (1, 4, 6):
        for scale in (0.0, -1.0, np.nan, np.inf, 1e-60):
            refused(errors.ArgumentError, "qlinear_matmul", *good[:i], scale, *good[i + 1:])
        refused(errors.ShapeError, "qlinear_matmul", *good[:i], np.ones(2, np.float32), *good[i + 1:])
    refused(errors.DTypeError, "qlinear_matmul", *good[:7], 3)
    refused(errors.DTypeError, "qlinear_matmul", *good[:7], None)


JUNK = [None, "text", b"text", object(), object, {}, [], [[1], [1, 2]], 0.5, True, 2 + 1j, np.nan, 1e300, 256, -129,
        1 << 80, np.uint64(1 << 63), np.float16(0.5), np.array(3), np.zeros((0, 4), np.uint8), np.zeros((3, 4)),
        np.ones((2, 3, 4)), np.zeros((3, 4), bool), np.zeros((3, 4), ">i2"), np.zeros((3, 4), ">f4"),
        np.array([None] * 4), np.zeros(4, "M8[s]")]


@pytest.mark.parametrize("op", [op for op in PURE if SPECS[op].family in ("quantize", "qgemm", "maddubs")])
def test_junk_computes_or_is_refused_in_words(op: str, backend: str) -> None:
    """In the place of any argument, and of two at once; no backend raises errors of another kind."""
    good, attrs = arguments(op)
    refusals = 0
    for size in (1, 2):
        for places, i in itertools.product(itertools.combinations(range(len(good)), size), range(len(JUNK))):
            inputs = list(good)
            for at, place in enumerate(places):
                inputs[place] = JUNK[(i + 5 * at) % len(JUNK)]
            try:
                with warnings.catch_warnings():  # of numbers beyond float32
                    warnings.simplefilter("ignore", RuntimeWarning)
                    run(op, inputs, attrs, backend=backend)
            except errors.TilewrightError:
                refusals += 1
    assert refusals > len(JUNK) * len(good) / 2


def test_layers_refuse() -> None:
    x, w = np.zeros((3, 4), np.float32), tw.quantize_weight(np.ones((5, 4)))
    q = x.astype(np.uint8)
    for op in ("linear", "quantized_linear"):
        for error, *given in ((errors.ShapeError, x[:, :3], w), (errors.ShapeError, x, w, x[0]),
                              (errors.ShapeError, x, w, None, x), (errors.DTypeError, q, w)):
            for backend in (None, *AVAILABLE):
                with pytest.raises(error):
                    getattr(tw, op)(*given, backend=backend)
    refused(errors.DTypeError, "quantized_linear", x, x)
    refused(errors.ArgumentError, "quantized_linear", x, w, activation="rely")
    refused(errors.ArgumentError, "qlinear", q, 0.0, 1, w)
    refused(errors.ArgumentError, "qlinear", q, 0.1, 256, w)
    refused(errors.ArgumentError, "qlinear", q, 0.1, 1, w, None, 0.1, np.uint8(0), activation="gelu")
    refused(errors.ArgumentError, "qlinear", q, 0.1, 1, w, None, None, np.uint8(0))
    refused(errors.ArgumentError, "qlinear", q, 0.1, 1, tw.quantize_weight(np.ones((5, 4)), 4))
    refused(errors.ShapeError, "qlinear", q, np.ones(3, np.float32), 1, w)
    refused(errors.DTypeError, "qlinear", x, 0.1, 1, w)
    refused(errors.DTypeError, "qlinear", q, 0.1, 1, w, None, 0.1, 0)


def test_conversions_refuse() -> None:
    x = np.zeros((3, 4), np.float32)
    for scale in (0.0, -1.0, np.nan, np.inf):
        refused(errors.ArgumentError, "quantize_linear", x, scale)
        refused(errors.ArgumentError, "dequantize_linear", x.astype(np.int8), scale)
    refused(errors.ArgumentError, "quantize_linear", x, 1.0, 256)
    refused(errors.ArgumentError, "quantize_linear", x, 1.0, -129, output_dtype="int8")
    refused(errors.DTypeError, "quantize_linear", x, 1.0, None, output_dtype="int32")
    refused(errors.DTypeError, "quantize_linear", x.astype(np.int8), 1.0)
    refused(errors.ShapeError, "quantize_linear", x, np.ones(3, np.float32))
    refused(errors.ShapeError, "quantize_linear", x, np.ones(4, np.float32), axis=2)
    refused(errors.ShapeError, "quantize_linear", x, np.ones((3, 4), np.float32), block_size=2)
    refused(errors.ArgumentError, "quantize_linear", x, 1.0, block_size=-1)
    refused(errors.DTypeError, "dequantize_linear", x, 1.0)
    refused(errors.ArgumentError, "dequantize_linear", x.astype(np.int32), 1.0, 1)
    refused(errors.DTypeError, "dynamic_quantize_linear", x.astype(int))
