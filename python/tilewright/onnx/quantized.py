"""Quantized layers in ONNX, by standard operators that give the same integers.

    dynamic      per row, as we do (DynamicQuantizeLinear has one range for the whole batch):
                 ReduceMin, ReduceMax, Max, Div, ... -> scale, zero      Mul, Round, Add, Clip, Cast -> uint8
                 MatMulInteger, Sub (zero · column sums of the weights) -> int32      Cast, Mul, Add -> float
    static       QuantizeLinear [Clip] -> uint8      MatMulInteger -> int32      Cast, Mul, Add -> float
                 [activation, QuantizeLinear -> uint8, for a layer that takes it as it is]
    weight-only  DequantizeLinear (by blocks where there are groups), Gemm

QLinearMatMul would do for static layers what MatMulInteger and QuantizeLinear do, but it has no bias.
"""
from __future__ import annotations

import numpy as np

from ..core.quantized import QuantizedMatrix
from ..quant import Grid, QuantizedLinear, StaticLinear
from .graph import Graph
from .layers import EMITTERS, fused_activation

_F = np.float32


def _quantized(graph: Graph, layer: QuantizedLinear, x: str, activation: str | None) -> str:
    _note(graph, layer.weight)
    x = _balanced(graph, layer, x)
    y = _dynamic(graph, layer, x) if layer.weight.method == "dynamic" else _weight_only(graph, layer, x)
    return fused_activation(graph, activation, y)


def _static(graph: Graph, layer: StaticLinear, x: str, activation: str | None) -> str:
    _note(graph, layer.weight, np.uint8 if layer.fed else _F, _F if layer.output is None else np.uint8)
    grid = layer.input
    if not layer.fed:
        x = _on_grid(graph, grid, _balanced(graph, layer, x))
    sums = _products(graph, layer.weight, x, graph.number(grid.zero))
    scales = graph.constant("scales", grid.scale * layer.weight.scales[:, 0])
    y = fused_activation(graph, activation, _finished(graph, layer, sums, scales))
    return y if layer.output is None else _on_grid(graph, layer.output, y)


def _note(graph: Graph, w: QuantizedMatrix, takes: type = _F, gives: type = _F) -> None:
    outputs, inputs = w.shape
    graph.layer((np.dtype(takes), inputs), (np.dtype(gives), outputs))


def _balanced(graph: Graph, layer: QuantizedLinear, x: str) -> str:
    if layer.balance is None or layer.folded:
        return x
    return graph.add("Div", x, graph.constant("balance", layer.balance))


def _finished(graph: Graph, layer: QuantizedLinear, sums: str, scales: str) -> str:
    """sums · scales + bias in float32."""
    y = graph.add("Mul", graph.add("Cast", sums, to=_code(graph, _F)), scales)
    return y if layer.bias is None else graph.add("Add", y, graph.constant("bias", layer.bias))


def _on_grid(graph: Graph, grid: Grid, x: str) -> str:
    """uint8 numbers of a grid; of fewer than 8 bits the upper end is cut off."""
    q = graph.add("QuantizeLinear", x, graph.number(grid.scale), graph.number(grid.zero))
    return q if grid.bits == 8 else graph.add("Clip", q, None, graph.number(np.uint8(grid.top)))


def _products(graph: Graph, w: QuantizedMatrix, x: str, zero: str | None) -> str:
    """(x - zero) @ (w - w.zero_points).T in int32."""
    weight = graph.constant("weight", w.integers().T)
    zeros = None if w.zero_points is None else graph.constant("weight_zero_points", w.zero_points[:, 0])
    return graph.add("MatMulInteger", x, weight, zero, zeros)


def _dynamic(graph: Graph, layer: QuantizedLinear, x: str) -> str:
    w = layer.weight
    zero, top, last = graph.number(_F(0)), graph.number(_F(255)), graph.number(np.array([-1]))
    low = graph.add("Min", graph.add("ReduceMin", x, last), zero)
    high = graph.add("Max", graph.add("ReduceMax", x, last), zero)
    step = graph.add("Sub", graph.add("Div", high, top), graph.add("Div", low, top))
    scale = graph.add("Max", step, graph.number(_F(2.0 ** -100)))
    inverse = graph.add("Div", graph.number(_F(1)), scale)
    z = graph.add("Clip", graph.add("Round", graph.add("Mul", graph.add("Neg", low), inverse)), zero, top)
    q = graph.add("Clip", graph.add("Add", graph.add("Round", graph.add("Mul", x, inverse)), z), zero, top)
    sums = _products(graph, w, graph.add("Cast", q, to=_code(graph, np.uint8)), None)
    # A zero point for each row is taken out here: onnxruntime's MatMulInteger has one for all rows.
    columns = w.integers().sum(axis=1, dtype=np.int32)
    if w.zero_points is not None:
        columns -= w.zero_points[:, 0] * np.int32(w.shape[1])
    shift = graph.add("Mul", graph.add("Cast", z, to=_code(graph, np.int32)), graph.constant("column_sums", columns))
    scales = graph.add("Mul", scale, graph.constant("weight_scales", w.scales[:, 0]))
    return _finished(graph, layer, graph.add("Sub", sums, shift), scales)


def _weight_only(graph: Graph, layer: QuantizedLinear, x: str) -> str:
    """Stored as (out, in), or as (in, out), of which onnxruntime makes a product of its own."""
    w = layer.weight
    parts = [w.integers(), w.scales] if w.zero_points is None else [w.integers(), w.scales, w.zero_points]
    if w.bits == 4:
        import ml_dtypes
        parts[::2] = [part.astype(ml_dtypes.int4) for part in parts[::2]]  # all but the scales
    columns = 0 if graph.fusible else 1  # the axis of the weights that runs along x's columns
    blocks = {"axis": columns, "block_size": w.group_size}
    if w.group_size is None:
        blocks = {"axis": 1 - columns}
        parts[1:] = [part[:, 0] for part in parts[1:]]
    names = [graph.constant(name, part.T if graph.fusible else part)
             for name, part in zip(("weight", "weight_scales", "weight_zero_points"), parts, strict=False)]
    bias = None if layer.bias is None else graph.constant("bias", layer.bias)
    return graph.add("Gemm", x, graph.add("DequantizeLinear", *names, **blocks), bias, transB=columns)


def _code(graph: Graph, dtype: type) -> int:
    return graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


EMITTERS |= {QuantizedLinear.forward: _quantized, StaticLinear.forward: _static}
