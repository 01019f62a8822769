"""What the integer products are, and linear layers with quantized weights.

Sources: ONNX MatMulInteger (opset 10) and QLinearMatMul (opset 21); the layers are ours. Sums of products are int32
that wraps modulo 2^32. What becomes an integer again goes through float32 arithmetic, each operation rounded once and
no multiply-add fused, so that every backend gives the same bits:

    qlinear_matmul     f = float32(sum) * (a_scale * b_scale);                    y = quantize(f, y_scale, y_zero)
    qlinear            f = float32(sum) * (x_scale * w_scale) + bias, then relu;  y = quantize(f, y_scale, y_zero)

quantized_linear, method "dynamic", first makes of each row of x, also in float32 and step by step (`quantize_rows`)

    low = min(0, min x), high = max(0, max x), s = max(high / 255 - low / 255, 2^-100)
    z = round(-low * (1 / s)) in 0 ... 255,    q = round(x * (1 / s)) + z in 0 ... 255

so that the sums are the same integers everywhere; then y = float32(sum) * (s * w_scale) + bias, roundings being free.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.checking import eps, tiny, ulp
from tilewright.core.errors import ArgumentError, DTypeError, ShapeError
from tilewright.core.packed import PackedMatrix
from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import BYTES, FLOATS, HALVES, Call, Spec
from tilewright.kernels.gemm.spec import ACTIVATIONS, LIPSCHITZ, activate, before_activation, dot_bound
from tilewright.kernels.quantize.spec import scales, zero_points

from . import parts, samples
from .definitions import qlinear_result, quantize_rows, requantized, sums, weights_of

_FLOAT32, _INT32 = np.dtype(np.float32), np.dtype(np.int32)


# ---- normal forms of the products: matrices with batch axes; zero points and scales (…, M) or (…, N)

def _matrix(op: str, x: Any, name: str, copies: list[str]) -> np.ndarray:
    if isinstance(x, PackedMatrix):
        x = x.numpy()
    if x is None:
        raise DTypeError(f"{op} needs an array for {name}, not None")
    a = arrays.as_array(x, name)
    if arrays.name_of(a.dtype) not in BYTES:
        raise DTypeError(f"{op} multiplies {' and '.join(BYTES)}; {name} {arrays.shape_of(a)} is {a.dtype}")
    if a.ndim == 0:
        raise ShapeError(f"{op}: {name} needs at least one dimension")
    return a


class Product:
    """a @ b with batches that broadcast, as matmul has them."""

    def __init__(self, op: str, a: Any, b: Any):
        self.op, self.copies = op, list[str]()
        self.given_a, self.given_b = _matrix(op, a, "a", self.copies), _matrix(op, b, "b", self.copies)
        rows = self.given_a[None, :] if self.given_a.ndim == 1 else self.given_a
        cols = self.given_b[:, None] if self.given_b.ndim == 1 else self.given_b
        if rows.shape[-1] != cols.shape[-2]:
            raise ShapeError(f"{op}: a {self.given_a.shape} has {rows.shape[-1]} columns, b {self.given_b.shape} "
                             f"has {cols.shape[-2]} rows; they must be equal")
        try:
            self.batch = np.broadcast_shapes(rows.shape[:-2], cols.shape[:-2])
        except ValueError:
            raise ShapeError(f"{op}: the batch dimensions of a {self.given_a.shape} and b {self.given_b.shape} do not "
                             "broadcast") from None
        self.a = np.broadcast_to(rows, self.batch + rows.shape[-2:])
        self.b = np.broadcast_to(cols, self.batch + cols.shape[-2:])
        self.packed = (b, False) if isinstance(b, PackedMatrix) else None

    def each(self, p: np.ndarray | None, name: str, axis: int) -> np.ndarray | None:
        """Zero points or scales, one a row (axis 0: a number, (M,), or (…, M, 1)) or a column (1: (N,), (…, 1, N))."""
        if p is None:
            return None
        shape = self.batch + (self.a.shape[-2], self.b.shape[-1])[axis:axis + 1]
        flat = p
        if p.size == 1:
            flat = p.reshape(())
        elif p.ndim > 1:
            if p.shape[-1 - (axis == 1)] != 1:
                raise ShapeError(self._misfit(name, p, shape, axis))
            flat = p[..., 0] if axis == 0 else p[..., 0, :]
        try:
            return np.broadcast_to(flat, shape)
        except ValueError:
            raise ShapeError(self._misfit(name, p, shape, axis)) from None

    def _misfit(self, name: str, p: np.ndarray, shape: tuple[int, ...], axis: int) -> str:
        n, last = shape[-1], "(…, {}, 1)" if axis == 0 else "(…, 1, {})"
        return f"{self.op}: {name} {p.shape} must be one number, or have the shape ({n},) or {last.format(n)}"

    def call(self, inputs: tuple, dtype: np.dtype) -> Call:
        a, b = self.given_a, self.given_b
        shape = self.batch + self.a.shape[-2:-1] * (a.ndim > 1) + self.b.shape[-1:] * (b.ndim > 1)
        view = None
        if a.ndim == 1 or b.ndim == 1:
            full = self.batch + (self.a.shape[-2], self.b.shape[-1])
            view = lambda out: _as_matrices(out, a.ndim == 1, b.ndim == 1, full)  # noqa: E731
        return Call(self.op, inputs, {}, ((shape, dtype),), (view,), self.copies, self.packed, a.dtype)


def _as_matrices(out: np.ndarray, row: bool, column: bool, shape: tuple[int, ...]) -> np.ndarray:
    """A result without the axes of vectors, as the matrices that kernels write."""
    seen = out[..., None] if column else out
    seen = seen[..., None, :] if row else seen
    assert seen.shape == shape
    return seen


def _prepare_matmul_integer(inputs: tuple, attrs: dict) -> Call:
    op = "matmul_integer"
    p = Product(op, *inputs[:2])
    a_zero = p.each(zero_points(op, inputs[2], "a_zero_point", p.a.dtype), "a_zero_point", 0)
    b_zero = p.each(zero_points(op, inputs[3], "b_zero_point", p.b.dtype), "b_zero_point", 1)
    return p.call((p.a, p.b, a_zero, b_zero), _INT32)


def _prepare_qlinear_matmul(inputs: tuple, attrs: dict) -> Call:
    op = "qlinear_matmul"
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    p = Product(op, a, b)
    dtype = _byte_dtype(op, y_zero)
    rows = p.each(scales(op, a_scale, "a_scale"), "a_scale", 0)
    zeros = p.each(zero_points(op, a_zero, "a_zero_point", p.a.dtype), "a_zero_point", 0)
    columns = p.each(scales(op, b_scale, "b_scale"), "b_scale", 1)
    b_zeros = p.each(zero_points(op, b_zero, "b_zero_point", p.b.dtype), "b_zero_point", 1)
    y_scales = p.each(scales(op, y_scale, "y_scale"), "y_scale", 0)
    y_zeros = p.each(zero_points(op, y_zero, "y_zero_point", dtype), "y_zero_point", 0)
    return p.call((p.a, rows, zeros, p.b, columns, b_zeros, y_scales, y_zeros), dtype)


def _byte_dtype(op: str, y_zero: Any) -> np.dtype:
    if not isinstance(y_zero, (np.ndarray, np.generic)) or arrays.name_of(y_zero.dtype) not in BYTES:
        found = y_zero.dtype if isinstance(y_zero, (np.ndarray, np.generic)) else repr(y_zero)
        raise DTypeError(f"{op}: the dtype of y_zero_point, uint8 or int8, is that of the result; it is {found}. "
                         "Pass for example np.uint8(0)")
    return y_zero.dtype


# ---- normal forms of the layers: x (R, K), values; the QuantizedMatrix itself is call.packed

def _layer(op: str, x: np.ndarray, w: Any, bias: Any,
           activation: Any) -> tuple[tuple[int, ...], Any, np.ndarray | None]:
    """Shape of the result, its view as (R, N), and the bias."""
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"{op}: no activation {activation!r}; there are: {', '.join(map(str, ACTIVATIONS))}")
    if not isinstance(w, QuantizedMatrix):
        raise DTypeError(f"{op}: w must be a QuantizedMatrix, made by quantize_weight, not {type(w).__name__}")
    n, k = w.shape
    if x.ndim == 0 or x.shape[-1] != k:
        raise ShapeError(f"{op}: x {x.shape} must end in {k}, the number of columns of w {w.shape} (out, in)")
    if bias is not None:
        bias, = _float32(op, ("bias",), (bias,), [])
        if bias.shape != (n,):
            raise ShapeError(f"{op}: bias {bias.shape} must have the shape ({n},) of w's rows")
    flat = (int(np.prod(x.shape[:-1])), n)
    return (*x.shape[:-1], n), lambda out: out.reshape(flat), bias


def _float32(op: str, names: tuple[str, ...], given: tuple, copies: list[str]) -> list[Any]:
    """Floats of any kind as float32, in which layers with quantized weights compute; all but x may be None."""
    found = arrays.operands(op, names, given, FLOATS + HALVES, copies, names[names[0] == "x":])
    return [None if x is None else arrays.normal(x, _FLOAT32, name, copies)
            for name, x in zip(names, found, strict=True)]


def _rows(x: np.ndarray, name: str, copies: list[str]) -> np.ndarray:
    """x (…, K) as (R, K), by a view where its strides allow."""
    flat = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    if x.size and not np.may_share_memory(flat, x):
        copies.append(f"{name} {x.shape}: its leading axes cannot be one axis of a view")
    return flat


def _prepare_quantized_linear(inputs: tuple, attrs: dict) -> Call:
    op, copies = "quantized_linear", list[str]()
    _, w, bias, _ = inputs
    x, residual = _float32(op, ("x", "residual"), (inputs[0], inputs[3]), copies)
    activation = attrs.get("activation")
    shape, view, bias = _layer(op, x, w, bias, activation)
    if residual is not None:
        if residual.shape != shape:
            raise ShapeError(f"{op}: residual {residual.shape} must have the shape {shape} of the result")
        residual = _rows(residual, "residual", copies)
    return Call(op, (_rows(x, "x", copies), w.values, bias, residual), {"activation": activation}, ((shape, _FLOAT32),),
                (view,), copies, (w, True))


def _prepare_qlinear(inputs: tuple, attrs: dict) -> Call:
    """Scales and zero points are attributes, None in their places."""
    op, copies = "qlinear", list[str]()
    x = _matrix(op, inputs[0], "x", copies)
    w, bias, activation = inputs[3], inputs[4], attrs.get("activation")
    shape, view, bias = _layer(op, x, w, bias, activation)
    if w.method != "dynamic":
        raise ArgumentError(f"{op}: w must have 8 bits, no groups and method 'dynamic', not {w!r}")
    x_zero = zero_points(op, inputs[2], "x_zero_point", x.dtype)
    x_scale = _number(op, scales(op, inputs[1], "x_scale"), "x_scale")
    full: dict[str, Any] = {"activation": activation, "x_scale": x_scale, "y_scale": None, "y_zero": 0,
                            "x_zero": 0 if x_zero is None else int(_number(op, x_zero, "x_zero_point"))}
    dtype = _FLOAT32
    if inputs[5] is not None:
        if activation not in (None, "relu"):
            raise ArgumentError(f"{op}: an integer result takes no activation but relu, not {activation!r}; "
                                "leave out y_scale, and quantize the float32 result")
        dtype = _byte_dtype(op, inputs[6])
        y_zero = _number(op, zero_points(op, inputs[6], "y_zero_point", dtype), "y_zero_point")
        full |= {"y_scale": _number(op, scales(op, inputs[5], "y_scale"), "y_scale"), "y_zero": int(y_zero)}
    elif inputs[6] is not None:
        raise ArgumentError(f"{op}: y_zero_point without y_scale")
    return Call(op, (_rows(x, "x", copies), None, None, w.values, bias, None, None), full, ((shape, dtype),), (view,),
                copies, (w, True), x.dtype)


def _number(op: str, p: Any, name: str) -> Any:
    if p.size != 1:
        raise ShapeError(f"{op}: {name} {p.shape} must be one number")
    return p.reshape(())[()]


# ---- oracles and bounds

def _integer_bound(call: Call, expected: tuple) -> tuple:
    return tuple(np.zeros(e.shape) for e in expected)


def _matmul_integer_oracle(call: Call) -> tuple:
    return (sums(*call.inputs),)


def _qlinear_matmul_oracle(call: Call) -> tuple:
    a, _, a_zero, b, _, b_zero, _, _ = call.inputs
    return (requantized(sums(a, b, a_zero, b_zero), call),)


def _qlinear_sums(call: Call) -> np.ndarray:
    x, _, _, values, *_ = call.inputs
    return sums(x, values.T, np.broadcast_to(np.int32(call.attrs["x_zero"]), x.shape[:1]), weights_of(call)[1])


def _qlinear_oracle(call: Call) -> tuple:
    f = qlinear_result(_qlinear_sums(call), call)
    return (activate(call.attrs["activation"], f.astype(np.float64)) if f.dtype == np.float32 else f,)


def _qlinear_bound(call: Call, expected: tuple) -> tuple:
    """A float result is exact before its activation, which is within 4 ULP of its own."""
    exact = call.attrs["activation"] in (None, "relu")
    return (np.zeros(expected[0].shape) if exact else 4 * ulp(expected[0], _FLOAT32),)


def _dynamic_sums(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """Sums in float64 before the scale of the weights, and the same by magnitude of what is rounded."""
    x, values, _, _ = call.inputs
    q, scale, zero = quantize_rows(x)
    total = sums(q, values.T, zero, weights_of(call)[1]).astype(np.float64)
    return total * scale.astype(np.float64)[:, None], np.abs(total)


def _finish(call: Call, z: np.ndarray) -> tuple:
    _, _, bias, residual = call.inputs
    with np.errstate(invalid="ignore", over="ignore"):
        y = activate(call.attrs["activation"], z if bias is None else z + bias.astype(np.float64))
        return (y if residual is None else y + residual.astype(np.float64),)


def _quantized_linear_oracle(call: Call) -> tuple:
    w, _ = weights_of(call)
    with np.errstate(all="ignore"):
        if w.method == "dynamic":
            return _finish(call, _dynamic_sums(call)[0] * w.scales[:, 0].astype(np.float64))
        return _finish(call, np.matmul(call.inputs[0].astype(np.float64), w.dequantize(np.float64).T))


def _quantized_linear_bound(call: Call, expected: tuple) -> tuple:
    """dynamic: the sum as a float, s·w_scale, their product and the bias round once each; s·w_scale may be denormal.

    weight-only: a dot product whose terms may be x·v and x·z apart, before the scale is applied, with three roundings
    more than in float32. Then, as in linear: the activation's slope and its 4 ULP, and the residual's rounding.
    """
    x, _, bias, residual = call.inputs
    w, _ = weights_of(call)
    u, least = eps(_FLOAT32), tiny(_FLOAT32)
    with np.errstate(all="ignore"):
        if w.method == "dynamic":
            scaled, total = _dynamic_sums(call)
            bound = np.nan_to_num(2 * u * np.abs(scaled * w.scales[:, 0]) + (total + 2) * least, posinf=0.0)
        else:
            zeros = 0 if w.zero_points is None else np.abs(w.each(w.zero_points).astype(np.float64))
            size = (np.abs(w.integers().astype(np.float64)) + zeros) * w.each(w.scales)
            bound = dot_bound(np.abs(x.astype(np.float64)), size.T, _FLOAT32, terms=5)
        if bias is not None:
            bound = bound + u * (np.abs(bias) + bound) + u * np.nan_to_num(np.abs(expected[0]), posinf=0.0)
        size = np.abs(expected[0]) if residual is None else np.abs(expected[0]) + np.abs(residual)
        if call.attrs["activation"] is not None:
            bound = LIPSCHITZ * bound + 4 * ulp(size, _FLOAT32)
        if residual is not None:
            bound = bound + u * np.nan_to_num(size, posinf=0.0)
    return (bound,)


def _quantized_linear_gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    """Through the weights as they stand for: x is taken as it was before it was quantized."""
    x, w, bias, residual = inputs
    dy = before_activation(run, "quantized_linear", grads[0], x, w, bias, attrs.get("activation"))
    dresidual = None if residual is None else grads[0]
    dbias = None if bias is None else dy.reshape(-1, dy.shape[-1]).sum(0)
    return run("matmul", dy, w.dequantize()), None, dbias, dresidual


# ---- the table

def _shape(call: Call) -> tuple[float, int, int, int]:
    """(products of matrices, M, N, K)."""
    a = call.inputs[0]
    n = call.packed[0].shape[0] if call.packed is not None and call.packed[1] else call.inputs[_B[call.op]].shape[-1]
    return float(np.prod(a.shape[:-2])), a.shape[-2], n, a.shape[-1]


_B = {"matmul_integer": 1, "qlinear_matmul": 3}


def _flops(call: Call) -> float:
    batch, m, n, k = _shape(call)
    return 2.0 * batch * m * n * k


def _nbytes(call: Call) -> float:
    """a, b and the result; of a quantized matrix, its values and scales."""
    batch, _, n, k = _shape(call)
    (shape, dtype), = call.outputs
    a = call.inputs[0]
    w = None if call.packed is None else call.packed[0]
    b = w.nbytes if isinstance(w, QuantizedMatrix) else batch * n * k
    return float(a.size * a.itemsize + b + np.prod(shape) * dtype.itemsize)


def _sums(call: Call) -> str:
    """The dtype of the sums."""
    quantized = call.packed[0] if call.op == "quantized_linear" and call.packed else None
    return "float32" if quantized is not None and quantized.method == "weight-only" else "int32"


SPECS = [
    Spec("matmul_integer", "qgemm", "(a - a_zero_point) @ (b - b_zero_point) in int32",
         ("a", "b", "a_zero_point", "b_zero_point"), _prepare_matmul_integer, _matmul_integer_oracle, _integer_bound,
         _flops, _nbytes, samples.matmul_integer_cases, samples.matmul_integer_bench, dtypes=BYTES, sums=_sums),
    Spec("qlinear_matmul", "qgemm", "matmul_integer, quantized again",
         ("a", "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point", "y_scale", "y_zero_point"),
         _prepare_qlinear_matmul, _qlinear_matmul_oracle, _integer_bound, _flops, _nbytes, samples.qlinear_matmul_cases,
         samples.qlinear_matmul_bench, dtypes=BYTES, parts=parts.qlinear_matmul, sums=_sums),
    Spec("quantized_linear", "qgemm", "linear with a quantized w", ("x", "w", "bias", "residual"),
         _prepare_quantized_linear, _quantized_linear_oracle, _quantized_linear_bound, _flops, _nbytes,
         samples.quantized_linear_cases(ACTIVATIONS), samples.quantized_linear_bench, _quantized_linear_gradient,
         dtypes=("float32",), may_alias=(3,), parts=parts.quantized_linear, sums=_sums),
    Spec("qlinear", "qgemm", "a linear layer on integers with fixed scales",
         ("x", "x_scale", "x_zero_point", "w", "bias", "y_scale", "y_zero_point"), _prepare_qlinear, _qlinear_oracle,
         _qlinear_bound, _flops, _nbytes, samples.qlinear_cases(ACTIVATIONS), samples.qlinear_bench, dtypes=BYTES,
         parts=parts.qlinear, sums=_sums),
]
