"""ONNX's own node tests, for the operations that ONNX names and the table has, on every backend.

Cases that do not fit are skipped with their reason, which the end of the run prints.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

import tilewright as tw

Result = np.ndarray | None
FLOATS = (np.float32, np.float64)


# ---- each operation: (backend, inputs, attributes) -> results; None for one that has no counterpart

def elementwise(f: Callable[..., Any], **names: str) -> Callable[..., list[Result]]:
    def adapter(backend: str, inputs: list, attrs: dict) -> list[Result]:
        named = {ours: attrs[theirs] for theirs, ours in names.items() if theirs in attrs}
        return [f(inputs[0], backend=backend, **named)]
    return adapter


def gemm(backend: str, inputs: list, attrs: dict) -> list[Result]:
    names = {"alpha": "alpha", "beta": "beta", "transA": "trans_a", "transB": "trans_b"}
    return [tw.gemm(*inputs, backend=backend, **{names[name]: value for name, value in attrs.items()})]


def gelu(backend: str, inputs: list, attrs: dict) -> list[Result]:
    return [tw.gelu(inputs[0], approximate=attrs.get("approximate", b"none").decode(), backend=backend)]


def normalization(f: Callable[..., Any]) -> Callable[..., list[Result]]:
    """Over the axes from `axis` on, which as one are the last axis of a matrix. Mean and deviation are not given."""
    def adapter(backend: str, inputs: list, attrs: dict) -> list[Result]:
        x, *parameters = inputs
        axis = attrs.get("axis", -1) % x.ndim
        rows = x.reshape(math.prod(x.shape[:axis]), -1)
        flat = [np.broadcast_to(p, x.shape[axis:]).reshape(-1) for p in parameters]
        return [f(rows, *flat, eps=attrs.get("epsilon", 1e-5), backend=backend).reshape(x.shape), None, None]
    return adapter


def cross_entropy(backend: str, inputs: list, attrs: dict) -> list[Result]:
    """Classes stand on axis 1: each place of the other axes is a row."""
    scores, labels = inputs
    rows = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
    reduction, ignored = attrs.get("reduction", b"mean").decode(), attrs.get("ignore_index", -100)
    loss = tw.cross_entropy(rows, labels.reshape(-1), reduction=reduction, ignore_index=ignored, backend=backend)
    loss = loss.reshape(labels.shape) if reduction == "none" else loss
    return [loss, tw.log_softmax(scores, axis=1, backend=backend)]


def dropout(backend: str, inputs: list, attrs: dict) -> list[Result]:
    """Inference, or training that drops nothing."""
    y = tw.dropout(inputs[0], 0.0, 0, backend=backend)
    return [y, np.ones(y.shape, bool)]


def gather(backend: str, inputs: list, attrs: dict) -> list[Result]:
    """Rows of a matrix, once the axis comes first and the others are one."""
    data, indices = inputs
    axis = attrs.get("axis", 0)
    first = np.moveaxis(data, axis, 0)
    rows = tw.embedding(indices, first.reshape(len(first), -1), backend=backend)
    rows = rows.reshape(indices.shape + first.shape[1:])
    return [np.moveaxis(rows, range(indices.ndim), range(axis, axis + indices.ndim))]


def quantization(f: Callable[..., Any], inputs: int) -> Callable[..., list[Result]]:
    """Optional inputs may be missing at the end; axis, block_size and, for quantizing, the dtype of the result."""
    def adapter(backend: str, given: list, attrs: dict) -> list[Result]:
        named = {name: attrs[name] for name in ("axis", "block_size") if name in attrs}
        if "output_dtype" in attrs:
            named["output_dtype"] = onnx.helper.tensor_dtype_to_np_dtype(attrs["output_dtype"])
        return [f(*given, *(None,) * (inputs - len(given)), backend=backend, **named)]
    return adapter


def momentum(backend: str, inputs: list, attrs: dict) -> list[Result]:
    rate, _, *arrays = inputs
    n = len(arrays) // 3
    x, g, v = ([a.copy() for a in arrays[i * n:(i + 1) * n]] for i in range(3))
    tw.sgd_step(x, g, v, lr=float(rate), momentum=attrs["alpha"], nesterov=attrs["mode"] == b"nesterov",
                weight_decay=attrs["norm_coefficient"], backend=backend)
    return [*x, *v]


ADAPTERS: dict[str, Callable[[str, list, dict], list[Result]]] = {
    "MatMul": lambda backend, inputs, attrs: [tw.matmul(*inputs, backend=backend)],
    "Gemm": gemm,
    "Relu": elementwise(tw.relu),
    "LeakyRelu": elementwise(tw.leaky_relu, alpha="negative_slope"),
    "Elu": elementwise(tw.elu, alpha="alpha"),
    "Gelu": gelu,
    "Sigmoid": elementwise(tw.sigmoid),
    "Tanh": elementwise(tw.tanh),
    "Softplus": elementwise(tw.softplus),
    "HardSwish": elementwise(tw.hardswish),
    "Swish": elementwise(tw.silu),
    "Softmax": elementwise(tw.softmax, axis="axis"),
    "LogSoftmax": elementwise(tw.log_softmax, axis="axis"),
    "LayerNormalization": normalization(tw.layer_norm),
    "RMSNormalization": normalization(tw.rms_norm),
    "SoftmaxCrossEntropyLoss": cross_entropy,
    "Dropout": dropout,
    "Gather": gather,
    "Momentum": momentum,
    "MatMulInteger": quantization(tw.matmul_integer, 4),
    "QLinearMatMul": quantization(tw.qlinear_matmul, 8),
    "QuantizeLinear": quantization(tw.quantize_linear, 3),
    "DequantizeLinear": quantization(tw.dequantize_linear, 3),
    "DynamicQuantizeLinear": lambda backend, inputs, attrs: list(tw.dynamic_quantize_linear(*inputs, backend=backend)),
}
QUANTIZED = ("MatMulInteger", "QLinearMatMul", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
OTHERS = {  # operations of ONNX that are near to ours, all of whose cases are left out
    "NegativeLogLikelihoodLoss": "takes log-probabilities as they are, where cross_entropy takes logits",
    "Adam": "its cases are at update count 0, without the bias correction that adam_step always makes",
}


def left_out(op: str, inputs: list, attrs: dict, outputs: int) -> str | None:
    """Why a case is not one of ours."""
    if op in OTHERS:
        return OTHERS[op]
    if op in QUANTIZED:
        floats = {x.dtype.name for x in inputs if x.dtype.itemsize == 1 and "float" in x.dtype.name}
        return f"{', '.join(floats)} is no integer" if floats else None
    allowed = (*FLOATS, np.float16) if op == "MatMul" else FLOATS
    if inputs[0].dtype not in allowed:
        return f"{inputs[0].dtype} is not among the dtypes"
    if op == "SoftmaxCrossEntropyLoss" and len(inputs) > 2:
        return "cross_entropy has no class weights"
    if op == "Dropout" and len(inputs) > 2 and inputs[2] and inputs[1] != 0:
        return "expects the random bits of NumPy's generator"
    if op == "Gather" and (inputs[1] < 0).any():
        return "embedding refuses negative indices"
    if op == "Swish" and attrs.get("alpha", 1.0) != 1.0:
        return "silu has no alpha"
    if op == "Momentum" and inputs[1] != 0 and attrs["beta"] != 1:
        return "sgd_step does not dampen"
    return None


def _array(x: Any) -> Any:
    """Tensors of types that NumPy lacks come as messages."""
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def cases() -> list[Any]:
    """Every case that is one node of an operation above."""
    params = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other operations' generators
        loaded = load_model_tests(kind="node")
    for case in loaded:
        graph = case.model.graph
        if len(graph.node) != 1 or graph.node[0].op_type not in {**ADAPTERS, **OTHERS}:
            continue
        node, (inputs, outputs) = graph.node[0], [[_array(x) for x in arrays] for arrays in case.data_sets[0]]
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        reason = left_out(node.op_type, inputs, attrs, len(outputs))
        skip = [pytest.mark.skip(reason=f"ONNX {node.op_type}: {reason}")] if reason else []
        params.append(pytest.param(node.op_type, inputs, attrs, outputs, case, id=case.name, marks=skip))
    return params


CASES = cases()


@pytest.mark.parametrize(("op", "inputs", "attrs", "outputs", "case"), CASES)
def test_node(op: str, inputs: list, attrs: dict, outputs: list, case: Any, backend: str) -> None:
    inputs = [np.asarray(x) for x in inputs]
    for found, want in zip(ADAPTERS[op](backend, inputs, attrs), outputs, strict=False):
        if found is not None:
            assert (found.shape, found.dtype) == (want.shape, want.dtype)
            np.testing.assert_allclose(found, want, rtol=case.rtol, atol=case.atol)


def test_every_operation_has_a_case_that_runs() -> None:
    ran = {param.values[0] for param in CASES if not param.marks}
    assert ran == set(ADAPTERS)
