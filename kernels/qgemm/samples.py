"""Sample calls of the integer products: tile edges, every layout, ends of the ranges, sums that wrap; benchmarks."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from tilewright.core import sampling
from tilewright.core.packed import pack
from tilewright.core.quantized import QuantizedMatrix, quantize_weight
from tilewright.core.registry import BYTES, Case
from tilewright.kernels.gemm.samples import BENCH_SHAPES, shapes
from tilewright.kernels.quantize.spec import integers

WRAPS = 100_000  # 255² · 100000 is three times 2^31
ENDS = {"uint8": (0, 255, 128, 127), "int8": (-128, 127, 0, -1)}  # also what is next to it with the sign bit flipped


def _whole(inputs: int) -> Any:
    """Make the cases of a function name all inputs, None for those left out at the end."""
    def decorate(cases: Any) -> Any:
        def padded(rng: np.random.Generator, dtype: str, *size: str) -> Iterator[Case]:
            for case in cases(rng, dtype, *size):
                yield replace(case, inputs=case.inputs + (None,) * (inputs - len(case.inputs)))
        return padded
    return decorate


def _zeros(rng: np.random.Generator, dtype: str, n: int, axis: int, form: int) -> Any:
    """A zero point: none, a Python integer, one of dtype, one a row or column, the same as a column or row."""
    info = np.iinfo(dtype)
    one = None, int(rng.integers(info.min, info.max + 1)), info.dtype.type(rng.choice([info.min, info.max, 0, 1]))
    if form < 3:
        return one[form]
    each = integers(rng, (2 * n,), dtype)[::2]
    return each if form == 3 else each[:, None] if axis == 0 else each[None, :]


def _extremes(dtype: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length k that alternate between two extreme values, and their zero points: every choice of the three."""
    first, second, zero = np.array([*product(ENDS[dtype], ENDS[dtype], ENDS[dtype][:3])]).T
    rows = np.where(np.arange(k) % 2 == 0, first[:, None], second[:, None])
    return rows.astype(dtype), zero.astype(dtype)


def _extreme_weights(rng: np.random.Generator, k: int) -> QuantizedMatrix:
    values, zeros = _extremes("int8", k)
    scales = rng.uniform(0.01, 0.02, (len(values), 1)).astype(np.float32)
    return QuantizedMatrix(values, scales, zeros[:, None])


@_whole(4)
def matmul_integer_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for i, (m, n, k) in enumerate(shapes(rng)):
        other, la, lb = BYTES[i % 2], sampling.any_layout(rng), sampling.any_layout(rng)
        a, b = integers(rng, (m, k), dtype, la), integers(rng, (k, n), other, lb)
        za, zb = _zeros(rng, dtype, m, 0, i % 5), _zeros(rng, other, n, 1, i // 5 % 5)
        yield Case((a, b, za, zb), {}, f"{m}x{n}x{k} {la} {other} {lb} zero points {i % 5} {i // 5 % 5}")
        if i % 3 == 0:
            yield Case((a, pack(b), za, zb), {}, f"{m}x{n}x{k} {la} {other} packed, zero points {i % 5} {i // 5 % 5}")
    for other in BYTES:
        for k in (1, 2, 3, 4, 5, 67, WRAPS):
            (a, za), (b, zb) = _extremes(dtype, k), _extremes(other, k)
            yield Case((a, b.T, za, zb), {}, f"every pair of extremes and zero point by every other, K = {k}, {other}")
            for i, j in ((0, 0), (-1, -1), (0, -1), (-1, 0))[:1 if k == WRAPS else 4]:
                yield Case((a, pack(b.T) if i == j else b.T, za[i], zb[j]), {}, f"extremes, K = {k}, {other}, {i} {j}")
        a, b = integers(rng, (2, WRAPS), dtype), integers(rng, (WRAPS, 33), other)
        yield Case((a, b), {}, f"K = {WRAPS}, {other}")
    for sa, sb in (((7,), (7,)), ((7,), (7, 5)), ((3, 7), (7,)), ((4, 3, 7), (7,)), ((7,), (4, 7, 3)),
                   ((2, 1, 3, 7), (5, 7, 4)), ((0, 3, 4), (4, 5)), ((6, 9, 17), (6, 17, 33)),
                   ((3, 2, 9, 37), (37, 70))):
        layout = sampling.any_layout(rng)
        a, b = integers(rng, sa, dtype, layout), integers(rng, sb, "int8", layout)
        yield Case((a, b, 1, -1), {}, f"{sa} @ {sb} {layout}")
        if len(sb) == 2 and len(sa) > 1:
            yield Case((a, pack(b), np.dtype(dtype).type(5)), {}, f"{sa} @ {sb} {layout}, b packed")
    for m, n in ((9, 4), (5, 3)):
        a, b = integers(rng, (m, 20), dtype), integers(rng, (20, n), "int8")
        yield Case((a, b, 3, 5), {}, f"{m}x{n}x20, in one part of some blocks")
    za, zb = integers(rng, (6, 9, 1), dtype), integers(rng, (6, 1, 33), "uint8")
    a, b = integers(rng, (6, 9, 17), dtype), integers(rng, (6, 17, 33), "uint8")
    yield Case((a, b, za, zb), {}, "zero points by batch")


def _scales(rng: np.random.Generator, n: int, axis: int, form: int, size: float = 1.0) -> Any:
    """One number, one a row or column, or a power of two, whose quotients lie half way between integers."""
    if form == 0:
        return np.float32(2.0 ** np.round(np.log2(size)))
    if form == 1:
        return float(size * rng.uniform(0.5, 2))
    each = (size * rng.uniform(0.5, 2, n)).astype(np.float32)
    return each if form == 2 else each[:, None] if axis == 0 else each[None, :]


def qlinear_matmul_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for i, (m, n, k) in enumerate(shapes(rng)):
        other, result, layout = BYTES[i % 2], BYTES[i // 2 % 2], sampling.any_layout(rng)
        a, b = integers(rng, (m, k), dtype, layout), integers(rng, (k, n), other, sampling.any_layout(rng))
        spread = 74.0 * 74 * np.sqrt(max(k, 1)) / 60  # results over most of the range, and some past it
        za, zb = _zeros(rng, dtype, m, 0, i % 5), _zeros(rng, other, n, 1, i // 5 % 5)
        zy = np.broadcast_to(integers(rng, (m,), result), (m,)) if i % 4 == 3 else integers(rng, (1,), result)[0]
        a_scale, b_scale = _scales(rng, m, 0, i % 4, 0.25), _scales(rng, n, 1, i // 4 % 4, 0.5)
        y_scale = _scales(rng, m, 0, i % 4, 0.125 * spread)
        yield Case((a, a_scale, za, b if i % 3 else pack(b), b_scale, zb, y_scale, zy), {},
                   f"{m}x{n}x{k} {layout} {other} -> {result}, {i}")
    for sa, sb in (((7,), (7, 5)), ((3, 7), (7,)), ((2, 1, 3, 7), (5, 7, 4))):
        yield Case((integers(rng, sa, dtype), 0.5, None, integers(rng, sb, "int8"), 0.25, None, 200.0, np.int8(-3)), {},
                   f"{sa} @ {sb}")
    for other, result, (k, y_scale) in product(BYTES, BYTES, ((67, 2e2), (WRAPS, 1e5))):
        (a, za), (b, zb) = _extremes(dtype, k), _extremes(other, k)
        yield Case((a, 0.01, za, b.T, 0.5, zb, y_scale, np.dtype(result).type(3)), {}, f"extremes, K = {k}, {other}")
    a, b = integers(rng, (5, 64), dtype), integers(rng, (64, 20), "int8")
    for y_scale in (1e-30, 1e30):
        yield Case((a, 1.0, None, b, 1.0, None, y_scale, np.uint8(9)), {}, f"result scale {y_scale}")


def quantized_linear_cases(activations: Sequence[str | None]) -> Any:
    @_whole(4)
    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        new = sampling.normal
        schemes: list[dict[str, Any]] = [
            {}, {"symmetric": False}, {"method": "weight-only"}, {"bits": 4, "group_size": 32}, {"bits": 4},
            {"bits": 8, "group_size": 16, "symmetric": False}, {"bits": 4, "group_size": 7, "symmetric": False}]
        for i, (m, n, k) in enumerate(shapes(rng)):
            layout, activation = sampling.any_layout(rng), activations[i % len(activations)]
            x, w = new(rng, (m, k), dtype, layout), new(rng, (n, k), dtype)
            bias = new(rng, (n,), dtype, layout) if i % 4 else None
            residual = new(rng, (m, n), dtype, sampling.any_layout(rng)) if i % 3 == 0 else None
            for scheme in (schemes[0], schemes[1 + i % (len(schemes) - 1)]):
                yield Case((x, quantize_weight(w, **scheme), bias, residual), {"activation": activation},
                           f"{m}x{n}x{k} {layout} {activation}{' + residual' * (residual is not None)}, {scheme}")
        for scheme in schemes:
            packed = quantize_weight(new(rng, (50, 133), dtype), **scheme)
            for activation in activations:
                yield Case((new(rng, (2, 3, 133), dtype), packed, new(rng, (50,), dtype), new(rng, (2, 3, 50), dtype)),
                           {"activation": activation}, f"3-D {activation} + residual, {scheme}",
                           scheme != schemes[0] and activation not in (None, "gelu"))
            yield Case((new(rng, (133,), dtype), packed), {}, f"1-D x, {scheme}")
            x = new(rng, (9, 133), dtype)
            x[1, 5], x[2, 7], x[3, 0], x[4], x[5], x[6] = np.nan, np.inf, -np.inf, 0, np.abs(x[5]), -np.abs(x[6])
            x[7] *= np.float32(1e-38)
            x[8] *= np.float32(1e30)
            yield Case((x, packed, new(rng, (50,), dtype)), {}, f"NaN, infinity, zeros, one sign, far scales, {scheme}")
        for m, n, activation, biased, added, which in (
                (70, 52, "gelu", False, False, 0), (9, 52, "gelu", True, True, 0), (9, 5, "relu", False, True, 0),
                (5, 52, "gelu", True, False, 0), (5, 9, None, True, True, 2), (5, 9, None, False, False, 2),
                (5, 9, "gelu", True, True, 4), (5, 9, "gelu", False, False, 4)):
            beside = [new(rng, shape, dtype) if there else None
                      for there, shape in ((biased, (n,)), (added, (m, n)))]
            packed = quantize_weight(new(rng, (n, 20), dtype), **schemes[which])
            yield Case((new(rng, (m, 20), dtype), packed, *beside), {"activation": activation},
                       f"{m}x{n}x20 {activation}, in one part of some blocks")
        for k in (67, WRAPS):
            x, values = _extremes("int8", k)[0].astype(dtype), _extreme_weights(rng, k)
            yield Case((x, values), {}, f"extremes, K = {k}")
        far = np.array([[3e38], [-3e38]], np.float32).repeat(16, 1)
        yield Case((far, quantize_weight(new(rng, (5, 16), dtype))), {}, "the ends of float32")
    return cases


def qlinear_cases(activations: Sequence[str | None]) -> Any:
    @_whole(7)
    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        for i, (m, n, k) in enumerate(shapes(rng)):
            layout, result = sampling.any_layout(rng), (None, *BYTES)[i % 3]
            x, w = integers(rng, (m, k), dtype, layout), sampling.normal(rng, (n, k), "float32")
            bias = sampling.normal(rng, (n,), "float32") if i % 4 else None
            activation = activations[i % len(activations)] if result is None else (None, "relu")[i % 2]
            y: tuple = (None, None)
            if result is not None:
                y = float(rng.choice([0.03, 0.0625, 0.25])), integers(rng, (1,), result)[0]
            packed = quantize_weight(w, symmetric=i % 5 > 0)
            yield Case((x, (0.01, 2.0 ** -7)[i % 2], _zeros(rng, dtype, 1, 0, i % 3), packed, bias, *y),
                       {"activation": activation}, f"{m}x{n}x{k} {layout} -> {result} {activation}",
                       activation not in (None, "relu", "gelu"))
        packed = quantize_weight(sampling.normal(rng, (50, 33), "float32"))
        yield Case((integers(rng, (2, 3, 33), dtype), 0.1, 1, packed, None, 0.5, np.int8(0)), {}, "3-D")
        for k, zero in product((67, WRAPS), ENDS[dtype][:2]):
            x, values, bias = _extremes(dtype, k)[0], _extreme_weights(rng, k), sampling.normal(rng, (48,), "float32")
            yield Case((x, 0.01, zero, values, bias, k * 0.01, np.int8(3)), {}, f"extremes, K = {k}")
    return cases


def _bench(make: Any) -> Any:
    def cases(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        for m, n, k in BENCH_SHAPES[size]:
            for inputs, attrs, label in make(rng, dtype, m, n, k):
                yield Case(inputs, attrs, f"{m}x{n}x{k}{label}")
    return cases


@_bench
def matmul_integer_bench(rng: np.random.Generator, dtype: str, m: int, n: int, k: int) -> Iterator[tuple]:
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), "int8")
    yield (a, b, np.dtype(dtype).type(7), None), {}, ""
    yield (a, pack(b), np.dtype(dtype).type(7), None), {}, ", b packed"


@_bench
def qlinear_matmul_bench(rng: np.random.Generator, dtype: str, m: int, n: int, k: int) -> Iterator[tuple]:
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), "int8")
    scale = rng.uniform(0.01, 0.02, n).astype(np.float32)
    yield (a, 0.01, np.dtype(dtype).type(7), pack(b), scale, None, np.sqrt(k) * 0.01, np.int8(3)), {}, ", b packed"


@_whole(4)
@_bench
def quantized_linear_bench(rng: np.random.Generator, dtype: str, m: int, n: int, k: int) -> Iterator[tuple]:
    x, w, bias = (sampling.normal(rng, shape, dtype) for shape in ((m, k), (n, k), (n,)))
    yield (x, quantize_weight(w), bias), {"activation": "relu"}, ", int8"
    if m <= 8:
        yield (x, quantize_weight(w, method="weight-only"), bias), {"activation": "relu"}, ", int8 weights only"
        yield (x, quantize_weight(w, 4, 32), bias), {"activation": "relu"}, ", int4 weights only"


@_bench
def qlinear_bench(rng: np.random.Generator, dtype: str, m: int, n: int, k: int) -> Iterator[tuple]:
    x, w = integers(rng, (m, k), dtype), quantize_weight(sampling.normal(rng, (n, k), "float32"))
    bias, zero = sampling.normal(rng, (n,), "float32"), np.dtype(dtype).type(3)
    yield (x, 0.01, zero, w, bias, np.sqrt(k) * 0.02, np.uint8(100)), {"activation": "relu"}, ""
