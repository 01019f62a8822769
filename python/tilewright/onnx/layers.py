"""What each layer is in ONNX: a function (graph, layer, name of its input[, activation]) -> name of its output.

A layer is known by its `forward`, so that a subclass which computes something else is not taken for its parent.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn
from ..core.errors import ArgumentError
from ..nn.activations import activation as activation_named
from .graph import Graph

_PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus", "hardswish": "HardSwish"}
_ALPHA = {"leaky_relu": ("LeakyRelu", "negative_slope"), "elu": ("Elu", "alpha")}


def write(graph: Graph, layer: nn.Module, x: str, prefix: str = "", activation: str | None = None) -> str:
    """Add one layer (or all that are in it) and the activation fused with it; ArgumentError where there is no form."""
    emit = EMITTERS.get(type(layer).forward)
    if emit is None:
        known = sorted(f.__qualname__.partition(".")[0] for f in EMITTERS)
        raise ArgumentError(f"onnx: {prefix.rstrip('.') or 'the model'} is a {type(layer).__name__}, which has no ONNX "
                            f"form here; there are: {', '.join(known)}")
    graph.scope = prefix
    if layer.takes_activation:
        return emit(graph, layer, x, activation)
    return fused_activation(graph, activation, emit(graph, layer, x))


def _sequential(graph: Graph, layer: nn.Sequential, x: str) -> str:
    prefix = graph.scope
    for name, child, activation in layer.steps():
        x = write(graph, child, x, f"{prefix}{name}.", activation)
    return x


def _linear(graph: Graph, layer: nn.Linear, x: str) -> str:
    outputs, inputs = layer.weight.shape
    graph.layer((layer.weight.dtype, inputs), (layer.weight.dtype, outputs))
    weight = graph.constant("weight", layer.weight.data)
    bias = None if layer.bias is None else graph.constant("bias", layer.bias.data)
    return graph.add("Gemm", x, weight, bias, transB=1)


def _activation(graph: Graph, layer: nn.Activation, x: str) -> str:
    """An activation with its parameters."""
    op, attrs = layer.op, layer.attrs
    if op == "gelu":
        return graph.add("Gelu", x, approximate=attrs["approximate"])
    if op == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if op in _ALPHA:
        name, attribute = _ALPHA[op]
        return graph.add(name, x, alpha=attrs[attribute])
    return graph.add(_PLAIN[op], x)


def fused_activation(graph: Graph, name: str | None, x: str) -> str:
    """An activation by its name in `tw.linear`."""
    return x if name is None else _activation(graph, activation_named(name), x)


def _layer_norm(graph: Graph, layer: nn.LayerNorm, x: str) -> str:
    _row_by_row(graph, layer)
    weight, bias = graph.constant("weight", layer.weight.data), graph.constant("bias", layer.bias.data)
    return graph.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)


def _rms_norm(graph: Graph, layer: nn.RMSNorm, x: str) -> str:
    """Spelled out: ONNX has an operator for it from opset 23 on."""
    dtype = layer.weight.dtype
    _row_by_row(graph, layer)
    mean = graph.add("ReduceMean", graph.add("Mul", x, x), graph.number(np.array([-1])), keepdims=1)
    root = graph.add("Sqrt", graph.add("Add", mean, graph.number(dtype.type(layer.eps))))
    return graph.add("Mul", graph.add("Div", x, root), graph.constant("weight", layer.weight.data))


def _row_by_row(graph: Graph, layer: nn.LayerNorm | nn.RMSNorm) -> None:
    value = layer.weight.dtype, layer.weight.shape[0]
    graph.layer(value, value)


def _nothing(graph: Graph, layer: nn.Module, x: str) -> str:
    """Dropout, which a model in use does not do."""
    return x


EMITTERS: dict[Any, Callable[..., str]] = {
    nn.Sequential.forward: _sequential, nn.Linear.forward: _linear, nn.Activation.forward: _activation,
    nn.LayerNorm.forward: _layer_norm, nn.RMSNorm.forward: _rms_norm, nn.Dropout.forward: _nothing,
}
