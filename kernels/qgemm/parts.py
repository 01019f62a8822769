"""What the fused operations are made of: calls of other operations that compute the same one after the other.

Each function has the arguments of the public call. Where quantized_linear quantizes each row of x over a range of its
own, the call apart, ONNX's, takes one range for all: the work is the same. Bias and activation, which cost little, are
left out.
"""
from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from tilewright.core.packed import pack
from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import Case

Parts = Iterator[tuple[str, Case]]


def qlinear_matmul(a: np.ndarray, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any,
                   y_zero: Any) -> Parts:
    """One scale of a."""
    f = yield from _product(a, b, a_zero, b_zero, np.float32(a_scale) * b_scale)
    yield "quantize_linear", Case((f, y_scale, y_zero), {"axis": 0}, "quantize")


def qlinear(x: np.ndarray, x_scale: Any, x_zero: Any, w: QuantizedMatrix, bias: Any = None, y_scale: Any = None,
            y_zero: Any = None, *, activation: str | None = None) -> Parts:
    f = yield from _product(x, pack(w.values.T), x_zero, _zeros(w), np.float32(x_scale) * w.scales[:, 0])
    if y_scale is not None:
        yield "quantize_linear", Case((f, y_scale, y_zero), {"axis": 0}, "quantize")


def quantized_linear(x: np.ndarray, w: QuantizedMatrix, bias: Any = None, residual: Any = None, *,
                     activation: str | None = None) -> Parts:
    if w.method == "weight-only":
        per_group = {"axis": 1, "block_size": w.group_size or w.shape[1]}
        yield "dequantize_linear", Case((w.integers(), w.scales, w.zero_points), per_group, "dequantize")
        yield "linear", Case((x, w.dequantize(), bias, residual), {"activation": activation}, "GEMM")
        return
    yield "dynamic_quantize_linear", Case((x,), label="quantize")
    scale = np.float32(np.ptp(x) / 255)
    zero = np.uint8(np.rint(-x.min() / scale))
    q = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    yield from _product(q, pack(w.values.T), zero, _zeros(w), scale * w.scales[:, 0])


def _zeros(w: QuantizedMatrix) -> np.ndarray | None:
    return None if w.zero_points is None else w.zero_points[:, 0]


def _product(a: np.ndarray, b: Any, a_zero: Any, b_zero: Any,
             scale: np.ndarray) -> Generator[tuple[str, Case], None, np.ndarray]:
    """a @ b as integers and their way back, with a scale for each column; returns the float32 result."""
    yield "matmul_integer", Case((a, b, a_zero, b_zero), label="GEMM")
    wide = np.asarray(b if isinstance(b, np.ndarray) else b.numpy(), np.float64) - (0 if b_zero is None else b_zero)
    sums = ((a.astype(np.float64) - (0 if a_zero is None else a_zero)) @ wide).astype(np.int64).astype(np.int32)
    yield "dequantize_linear", Case((sums, scale, None), {"axis": 1}, "dequantize")
    return sums.astype(np.float32) * scale
