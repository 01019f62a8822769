"""What matmul, gemm, linear and its gradients are.

Source: NumPy's matmul, ONNX Gemm (opset 13), PyTorch's functional.linear. Bound: Higham, "Accuracy and Stability of
Numerical Algorithms", 3.1: a dot product of length K in any order errs by at most K·u/(1-K·u) · (|a|·|b|), u = eps/2.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.checking import eps, tiny, ulp
from tilewright.core.errors import AliasError, ArgumentError, DTypeError, GradientError, ShapeError
from tilewright.core.packed import PackedMatrix
from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import FLOATS, HALVES, Call, Spec, spec

from . import samples

# Position = the code of the activation in the C library.
ACTIVATIONS = (None, "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softplus",
               "hardswish")
PRECISIONS = (None, "tf32")
TF32 = 2.0**-10 + 2.0**-22  # two operands rounded to 11 bits: (1 + 2^-11)^2 - 1
_FLOAT32 = np.dtype(np.float32)
LIPSCHITZ = 1.5  # no activation above is steeper: hardswish reaches 1.5, gelu 1.13, silu 1.10


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the sums: float32 for the half-precision storage types."""
    return _FLOAT32 if arrays.name_of(dtype) in HALVES else dtype


# ---- normal forms

def _precision(op: str, attrs: dict, dtype: np.dtype) -> str | None:
    """Of a call: None, or "tf32" where products of float32 may be computed with operands of 11 bits."""
    precision = attrs.get("precision")
    if precision not in PRECISIONS:
        raise ArgumentError(f"{op}: no precision {precision!r}; there are: {', '.join(map(str, PRECISIONS))}")
    if precision is not None and dtype != _FLOAT32:
        raise DTypeError(f"{op}: precision={precision!r} is of float32, not of {dtype}")
    return precision


def _packed(given: Any, b: np.ndarray, transposed: bool) -> tuple[PackedMatrix, bool] | None:
    """What goes into Call.packed: nothing where b is no PackedMatrix, or is converted to another dtype."""
    return (given, transposed) if isinstance(given, PackedMatrix) and b is given.numpy() else None


def _prepare_matmul(inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    a, b = arrays.operands("matmul", ("a", "b"), inputs, FLOATS + HALVES, copies)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("matmul: a and b need at least one dimension; multiply by a number with *")
    rows = a[None, :] if a.ndim == 1 else a
    cols = b[:, None] if b.ndim == 1 else b
    if rows.shape[-1] != cols.shape[-2]:
        raise ShapeError(f"matmul: a {a.shape} has {rows.shape[-1]} columns, b {b.shape} has {cols.shape[-2]} rows; "
                         "they must be equal")
    packed, full = _packed(inputs[1], b, False), {"precision": _precision("matmul", attrs, a.dtype)}
    if a.ndim == 2 and b.ndim == 2:
        return Call("matmul", (a, b), full, (((a.shape[0], b.shape[1]), a.dtype),), copies=copies, packed=packed)
    try:
        batch = np.broadcast_shapes(rows.shape[:-2], cols.shape[:-2])
    except ValueError:
        raise ShapeError(f"matmul: the batch dimensions of a {a.shape} and b {b.shape} do not broadcast") from None
    shape = batch + rows.shape[-2:-1] * (a.ndim > 1) + cols.shape[-1:] * (b.ndim > 1)
    view = _MATMUL_VIEWS[a.ndim == 1, b.ndim == 1]
    rows, cols = np.broadcast_to(rows, batch + rows.shape[-2:]), np.broadcast_to(cols, batch + cols.shape[-2:])
    return Call("matmul", (rows, cols), full, ((shape, a.dtype),), (view,), copies, packed)


# The result as a matrix, by whether a and b are vectors.
_MATMUL_VIEWS: dict[tuple[bool, bool], Any] = {
    (False, False): None,
    (True, False): lambda out: out[..., None, :],
    (False, True): lambda out: out[..., None],
    (True, True): lambda out: out[None, None],
}


def _matrix(x: np.ndarray, op: str, name: str) -> np.ndarray:
    if x.ndim != 2:
        raise ShapeError(f"{op}: {name} must be a matrix, it has shape {x.shape}")
    return x


def _prepare_gemm(inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    a, b, c = arrays.operands("gemm", ("a", "b", "c"), inputs, FLOATS, copies, optional=("c",))
    full = {"alpha": 1.0, "beta": 1.0, "trans_a": False, "trans_b": False} | attrs
    a, b = _matrix(a, "gemm", "a"), _matrix(b, "gemm", "b")
    packed = _packed(inputs[1], b, bool(full["trans_b"]))
    op_a, op_b = a.T if full["trans_a"] else a, b.T if full["trans_b"] else b
    if op_a.shape[1] != op_b.shape[0]:
        raise ShapeError(f"gemm: op(a) {op_a.shape} and op(b) {op_b.shape} do not fit "
                         f"(trans_a={full['trans_a']}, trans_b={full['trans_b']})")
    shape = (op_a.shape[0], op_b.shape[1])
    if c is not None:
        try:
            c = np.broadcast_to(c, shape)
        except ValueError:
            raise ShapeError(f"gemm: c {c.shape} does not broadcast to the result's shape {shape}") from None
    # the transposes are views: kernels see op(a), op(b) and no flags
    return Call("gemm", (op_a, op_b, c), {"alpha": float(full["alpha"]), "beta": float(full["beta"])},
                ((shape, a.dtype),), copies=copies, packed=packed)


def _rows(x: np.ndarray, name: str, copies: list[str]) -> np.ndarray:
    """x (..., K) as (R, K), by a view where its strides allow."""
    flat = x.reshape(-1, x.shape[-1]) if x.size else np.empty((int(np.prod(x.shape[:-1])), x.shape[-1]), x.dtype)
    if x.size and not np.may_share_memory(flat, x):
        copies.append(f"{name} {x.shape}: its leading axes cannot be one axis of a view")
    return flat


def _prepare_linear(inputs: tuple, attrs: dict) -> Call:
    if isinstance(inputs[1], QuantizedMatrix):
        return spec("quantized_linear").prepare(inputs, attrs)
    copies: list[str] = []
    x, w, bias, residual = arrays.operands("linear", ("x", "w", "bias", "residual"), inputs, FLOATS + HALVES, copies,
                                           optional=("bias", "residual"))
    activation = attrs.get("activation")
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"linear: no activation {activation!r}; there are: {', '.join(map(str, ACTIVATIONS))}")
    _check_linear("linear", x, w)
    if bias is not None and bias.shape != w.shape[:1]:
        raise ShapeError(f"linear: bias {bias.shape} must have the shape ({w.shape[0]},) of w's rows")
    shape = x.shape[:-1] + w.shape[:1]
    flat = (int(np.prod(x.shape[:-1])), w.shape[0])
    if residual is not None:
        if residual.shape != shape:
            raise ShapeError(f"linear: residual {residual.shape} must have the shape {shape} of the result")
        residual = _rows(residual, "residual", copies)
    return Call("linear", (_rows(x, "x", copies), w, bias, residual),
                {"activation": activation, "precision": _precision("linear", attrs, x.dtype)},
                ((shape, x.dtype),), (lambda out: out.reshape(flat),), copies, _packed(inputs[1], w, True))


def _check_linear(op: str, x: np.ndarray, w: np.ndarray) -> None:
    _matrix(w, op, "w")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"{op}: x {x.shape} must end in {w.shape[1]}, the number of columns of w {w.shape} (out, in)")


def _prepare_linear_backward(inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    if isinstance(inputs[2], PackedMatrix):
        raise GradientError("linear_backward: w is packed, a snapshot without a gradient; pass the matrix itself, or "
                            "call matmul(dy, w) for dx alone")
    dy, x, w = arrays.operands("linear_backward", ("dy", "x", "w"), inputs, FLOATS, copies)
    _check_linear("linear_backward", x, w)
    if dy.shape != x.shape[:-1] + w.shape[:1]:
        raise ShapeError(f"linear_backward: dy {dy.shape} must have the shape {x.shape[:-1] + w.shape[:1]} "
                         "of the result of linear")
    dtype, flat = x.dtype, (int(np.prod(x.shape[:-1])), x.shape[-1])
    return Call("linear_backward", (_rows(dy, "dy", copies), _rows(x, "x", copies), w), {},
                ((x.shape, dtype), (w.shape, dtype), (w.shape[:1], dtype)),
                (lambda dx: dx.reshape(flat), None, None), copies)


def _prepare_linear_backward_weights(inputs: tuple, attrs: dict) -> Call:
    op, copies = "linear_backward_weights", list[str]()
    dy, x = arrays.operands(op, ("dy", "x"), inputs[:2], FLOATS, copies)
    dw, dbias = inputs[2:]
    if dy.ndim == 0 or x.ndim == 0 or dy.shape[:-1] != x.shape[:-1]:
        raise ShapeError(f"{op}: dy {dy.shape} and x {x.shape} must agree in all axes but the last")
    _check_mutable(op, "dw", dw, (dy.shape[-1], x.shape[-1]), (dy, x))
    if dbias is not None:
        _check_mutable(op, "dbias", dbias, dy.shape[-1:], (dy, x, dw))
    flat = _rows(dy, "dy", copies), _rows(x, "x", copies)
    return Call(op, (*flat, dw, dbias), {"beta": float(attrs.get("beta", 0.0))}, copies=copies)


def _check_mutable(op: str, name: str, out: Any, shape: tuple[int, ...], others: tuple[np.ndarray, ...]) -> None:
    """An array that is changed in place: nothing may be converted, and it lies apart from the others."""
    arrays.check_out(f"{op}: {name}", out, shape, others[0].dtype)
    if not (out.dtype.isnative and out.flags.aligned):
        raise DTypeError(f"{op}: {name} must be aligned and in native byte order to be changed in place")
    if any(arrays.overlaps(out, x) for x in others):
        raise AliasError(f"{op}: {name} shares memory with another of its arrays")


# ---- oracles and bounds

def _wide(*xs: np.ndarray | None) -> list[Any]:
    return [None if x is None else x.astype(np.float64) for x in xs]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.matmul(a, b)


def dot_bound(a: np.ndarray, b: np.ndarray, dtype: np.dtype, terms: int = 1) -> np.ndarray:
    """K·u for the kernel, as much for a float64 oracle's own sum, `terms` roundings more, underflow of each product."""
    k = a.shape[-1]
    magnitude = _product(np.abs(a), np.abs(b))
    bound = (k + terms) * eps(dtype) * magnitude + (k + terms) * tiny(dtype)
    return np.nan_to_num(bound, nan=0.0, posinf=0.0)  # NaN and infinity are to be met exactly


def _tf32_bound(a: np.ndarray, b: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """The bound of float32 where operands may be rounded to tf32.

    A normal number is off by at most 2^-11 of itself, a subnormal one by no more than the least normal: a product by
    TF32 of itself. The sum of products that are greater by that much errs by as much more.
    """
    least = tiny(_FLOAT32)
    magnitude = _product(np.maximum(np.abs(a), least), np.maximum(np.abs(b), least))
    return (1 + TF32) * bound + TF32 * np.nan_to_num(magnitude, nan=0.0, posinf=0.0)


def _store(bound: np.ndarray, expected: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The rounding to the storage dtype on top of the error of the sums."""
    if dtype.name not in HALVES:
        return bound
    return bound + 0.5 * ulp(np.abs(np.nan_to_num(expected)) + bound, dtype)


def _matmul_bound(call: Call, expected: tuple) -> tuple:
    a, b = _wide(*call.inputs)
    bound = dot_bound(a, b, compute_dtype(call.dtype))
    if call.attrs["precision"] is not None:
        bound = _tf32_bound(a, b, bound)
    return (_store(bound, expected[0], call.dtype),)


def _gemm_oracle(call: Call) -> tuple:
    a, b, c = _wide(*call.inputs)
    alpha, beta = call.attrs["alpha"], call.attrs["beta"]
    y = np.zeros(call.outputs[0][0])
    with np.errstate(all="ignore"):
        if alpha != 0:
            y = alpha * _product(a, b)
        return (y if c is None or beta == 0 else y + beta * c,)


def _gemm_bound(call: Call, expected: tuple) -> tuple:
    a, b, c = _wide(*call.inputs)
    alpha, beta = abs(call.attrs["alpha"]), abs(call.attrs["beta"])
    bound = np.zeros(call.outputs[0][0])
    if alpha != 0:  # alpha rounds once itself and once in the product
        bound = alpha * dot_bound(a, b, call.dtype, terms=4) + tiny(call.dtype)
    if c is not None and beta != 0:
        bound = bound + 2 * eps(call.dtype) * beta * np.abs(np.nan_to_num(c, posinf=0.0, neginf=0.0)) + tiny(call.dtype)
    return (bound + eps(call.dtype) * np.abs(np.nan_to_num(expected[0], posinf=0.0, neginf=0.0)),)


def activate(name: str | None, z: np.ndarray) -> np.ndarray:
    """The exact activation of the exact sum."""
    from tilewright.kernels.activation.spec import FUNCTIONS, wide
    return z if name is None else FUNCTIONS[name](wide(z)).astype(np.float64)


def _linear_oracle(call: Call) -> tuple:
    x, w, bias, residual = _wide(*call.inputs)
    z = _product(x, w.T)
    y = activate(call.attrs["activation"], z if bias is None else z + bias)
    with np.errstate(invalid="ignore"):
        return (y if residual is None else y + residual,)


def _linear_bound(call: Call, expected: tuple) -> tuple:
    """The sum's error passed through the activation (Lipschitz), and 4 ULP of the activation itself.

    A residual adds one rounding of the result; where it comes in before the bias, one of a sum no larger than both. The
    activation is no larger than the result and the residual together.
    """
    x, w, bias, residual = _wide(*call.inputs)
    dtype = compute_dtype(call.dtype)
    bound = dot_bound(x, w.T, dtype, terms=2)
    if call.attrs["precision"] is not None:
        bound = _tf32_bound(x, w.T, bound)
    if bias is not None:
        bound = bound + eps(dtype) * np.abs(bias)
    size = np.abs(expected[0]) if residual is None else np.abs(expected[0]) + np.abs(residual)
    if call.attrs["activation"] is not None:
        bound = LIPSCHITZ * bound + 4 * ulp(size, dtype)
    if residual is not None:
        bound = bound + eps(dtype) * np.nan_to_num(size, posinf=0.0)
    return (_store(bound, expected[0], call.dtype),)


def _linear_backward_oracle(call: Call) -> tuple:
    dy, x, w = _wide(*call.inputs)
    return _product(dy, w), _product(dy.T, x), dy.sum(0)


def _linear_backward_bound(call: Call, expected: tuple) -> tuple:
    dy, x, w = _wide(*call.inputs)
    ones = np.ones((dy.shape[0], 1))
    return dot_bound(dy, w, call.dtype), dot_bound(dy.T, x, call.dtype), dot_bound(dy.T, ones, call.dtype)[:, 0]


def _linear_backward_weights_oracle(call: Call) -> tuple:
    dy, x, dw, dbias = _wide(*call.inputs)
    beta = call.attrs["beta"]
    with np.errstate(all="ignore"):
        return tuple(new + beta * old if beta else new
                     for new, old in ((_product(dy.T, x), dw), (dy.sum(0), dbias)) if old is not None)


def _linear_backward_weights_bound(call: Call, expected: tuple) -> tuple:
    """That of gemm with alpha = 1, one rounding for beta and one for the sum more."""
    dy, x, dw, dbias = _wide(*call.inputs)
    beta, u = abs(call.attrs["beta"]), 2 * eps(call.dtype)
    sums = dot_bound(dy.T, x, call.dtype, 2), dot_bound(dy.T, np.ones((dy.shape[0], 1)), call.dtype, 2)[:, 0]
    return tuple(bound + u * np.nan_to_num(np.abs(new) + (beta * np.abs(old) if beta else 0), posinf=0.0)
                 for bound, old, new in zip(sums, [v for v in (dw, dbias) if v is not None], expected, strict=False))


# ---- gradients

def _matmul_gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    a, b = inputs
    dy = grads[0]
    if isinstance(b, PackedMatrix):
        return run("linear", dy, b, **attrs), None
    rows = a[None, :] if a.ndim == 1 else a
    cols = b[:, None] if b.ndim == 1 else b
    if a.ndim == 1:
        dy = np.expand_dims(dy, -2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        dy = np.expand_dims(dy, -1)
    da = run("matmul", dy, np.swapaxes(cols, -1, -2), **attrs)
    db = run("matmul", np.swapaxes(rows, -1, -2), dy, **attrs)
    return (arrays.sum_to(da.reshape(da.shape[:-2] + da.shape[-1:]) if a.ndim == 1 else da, a.shape),
            arrays.sum_to(db[..., 0] if b.ndim == 1 else db, b.shape))


def _gemm_gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    a, b, c = inputs
    dy, alpha, ta, tb = grads[0], attrs.get("alpha", 1.0), attrs.get("trans_a", False), attrs.get("trans_b", False)
    da = (run("gemm", b, dy, alpha=alpha, trans_a=tb, trans_b=True) if ta else
          run("gemm", dy, b, alpha=alpha, trans_b=not tb))
    db = (None if isinstance(b, PackedMatrix) else
          run("gemm", dy, a, alpha=alpha, trans_a=True, trans_b=ta) if tb else
          run("gemm", a, dy, alpha=alpha, trans_a=not ta))
    return da, db, None if c is None else arrays.sum_to(attrs.get("beta", 1.0) * dy, c.shape)


def before_activation(run: Any, op: str, dy: Any, x: Any, w: Any, bias: Any, activation: str | None) -> Any:
    """The gradient by what a layer's activation was applied to, which is computed once more."""
    if activation is None:
        return dy
    more = {"approximate": "tanh"} if activation == "gelu_tanh" else {}
    return run(activation.removesuffix("_tanh") + "_backward", dy, run(op, x, w, bias), **more)


def _linear_gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    x, w, bias, residual = inputs
    if isinstance(w, QuantizedMatrix):
        gradient = spec("quantized_linear").gradient
        assert gradient is not None
        return gradient(run, inputs, outputs, grads, attrs)
    dy = before_activation(run, "linear", grads[0], x, w, bias, attrs.get("activation"))
    dresidual = None if residual is None else grads[0]
    if isinstance(w, PackedMatrix):
        dbias = None if bias is None else dy.reshape(-1, dy.shape[-1]).sum(0)
        return run("matmul", dy, w), None, dbias, dresidual
    dx, dw, dbias = run("linear_backward", dy, x, w)
    return dx, dw, None if bias is None else dbias, dresidual


# ---- the table

def _flops(call: Call) -> float:
    a, b = call.inputs[:2]
    return 2.0 * np.prod(a.shape[:-1]) * a.shape[-1] * b.shape[-1 if call.op != "linear" else 0]


def _nbytes(call: Call) -> float:
    return float(sum(x.nbytes for x in call.inputs if x is not None)
                 + sum(np.prod(s) * d.itemsize for s, d in call.outputs))


SPECS = [
    Spec("matmul", "gemm", "a @ b, with NumPy's batches and broadcasting", ("a", "b"), _prepare_matmul,
         lambda call: (_product(*_wide(*call.inputs)),), _matmul_bound, _flops, _nbytes, samples.matmul_cases,
         samples.bench(lambda new, m, n, k: ((new(m, k), new(k, n)), {})), _matmul_gradient, FLOATS + HALVES),
    Spec("gemm", "gemm", "alpha · op(a) @ op(b) + beta · c", ("a", "b", "c"), _prepare_gemm,
         _gemm_oracle, _gemm_bound, _flops, _nbytes, samples.gemm_cases,
         samples.bench(lambda new, m, n, k: ((new(m, k), new(n, k), new(m, n)),
                                             {"alpha": 0.5, "beta": 2.0, "trans_b": True})),
         _gemm_gradient, may_alias=(2,)),
    Spec("linear", "gemm", "activation(x @ w.T + bias) + residual", ("x", "w", "bias", "residual"), _prepare_linear,
         _linear_oracle, _linear_bound, _flops, _nbytes, samples.linear_cases(ACTIVATIONS),
         samples.bench(lambda new, m, n, k: ((new(m, k), new(n, k), new(n), None), {"activation": "relu"}), packs=True),
         _linear_gradient, FLOATS + HALVES, may_alias=(3,)),
    Spec("linear_backward", "gemm", "dx = dy @ w, dw = dy.T @ x, dbias = dy.sum(0)", ("dy", "x", "w"),
         _prepare_linear_backward, _linear_backward_oracle, _linear_backward_bound,
         lambda call: 4.0 * call.inputs[0].size * call.inputs[1].shape[1], _nbytes, samples.linear_backward_cases,
         samples.bench(lambda new, m, n, k: ((new(m, n), new(m, k), new(n, k)), {})), like=(1, 2, None)),
    Spec("linear_backward_weights", "gemm", "dw = dy.T @ x + beta · dw, dbias = dy.sum(0) + beta · dbias, in place",
         ("dy", "x", "dw", "dbias"), _prepare_linear_backward_weights, _linear_backward_weights_oracle,
         _linear_backward_weights_bound, lambda call: 2.0 * call.inputs[0].size * call.inputs[1].shape[1], _nbytes,
         samples.linear_backward_weights_cases,
         samples.bench(lambda new, m, n, k: ((new(m, n), new(m, k), new(n, k), new(n)), {})),
         mutates=(2, 3)),
]
