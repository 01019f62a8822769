"""Integer products, conversions between floats and small integers, and linear layers with quantized weights.

Integer results are the same bits on every backend, instruction set and number of threads.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.dispatch import call, door
from ..kernels.gemm.spec import ACTIVATIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


def quantize_linear(x: Any, y_scale: Any, y_zero_point: Any = None, *, axis: int = 1, block_size: int = 0,
                    output_dtype: Any = None, out: Any = None, backend: str | None = None) -> Any:
    """ONNX's QuantizeLinear: saturate(round_half_even(x / y_scale) + y_zero_point), in float32 arithmetic.

    x float32, float64, float16 or bfloat16 of any shape (computed in float32). y_scale > 0: one number; or one for each
    index along `axis`, 1-D; or, with `block_size`, one for each so many elements along it, of x's other axes. The
    result has output_dtype, else y_zero_point's dtype, else uint8: int8, uint8, int16, uint16, or ml_dtypes' int4,
    uint4, int2 and uint2. NaN becomes the smallest integer. Raises ArgumentError for a scale that is not finite and
    positive, or a zero point outside the dtype's range; ShapeError where scales do not fit x.

    >>> import numpy as np, tilewright as tw
    >>> tw.quantize_linear(np.array([-1.0, 0.25, 0.75, 300.0]), 0.5, np.uint8(10))
    array([  8,  10,  12, 255], dtype=uint8)
    """
    c = door(backend)
    if c is not None and (
            y := c.quantize_linear(x, y_scale, y_zero_point, block_size, output_dtype, out)) is not NotImplemented:
        return y
    attrs = {"axis": axis, "block_size": block_size, "output_dtype": output_dtype}
    return call("quantize_linear", (x, y_scale, y_zero_point), attrs, out, backend)


def dequantize_linear(x: Any, x_scale: Any, x_zero_point: Any = None, *, axis: int = 1, block_size: int = 0,
                      out: Any = None, backend: str | None = None) -> Any:
    """ONNX's DequantizeLinear: (x - x_zero_point) · x_scale in float32; scales as in quantize_linear.

    x int8, uint8, int16, uint16, int32 (without a zero point), or one of ml_dtypes' smaller integers, of any shape; the
    result float32. Raises as quantize_linear does, and ArgumentError for int32 with a zero point other than 0.

    >>> import numpy as np, tilewright as tw
    >>> tw.dequantize_linear(np.array([8, 10, 12], np.uint8), 0.5, np.uint8(10))
    array([-1.,  0.,  1.], dtype=float32)
    """
    c = door(backend)
    if c is not None and (y := c.dequantize_linear(x, x_scale, x_zero_point, block_size, out)) is not NotImplemented:
        return y
    return call("dequantize_linear", (x, x_scale, x_zero_point), {"axis": axis, "block_size": block_size}, out, backend)


def dynamic_quantize_linear(x: Any, *, backend: str | None = None) -> tuple[np.ndarray, np.float32, np.uint8]:
    """ONNX's DynamicQuantizeLinear: (y uint8, y_scale float32, y_zero_point uint8) from x's own range, 0 included.

    x float32, float64, float16 or bfloat16 of any shape, computed in float32; else DTypeError. The scale is
    (max - min) / 255, or 1 where that is 0. Where x holds a NaN or an infinity, or its range is no float32, the scale
    is NaN and y and the zero point are 0.

    >>> import numpy as np, tilewright as tw
    >>> y, scale, zero = tw.dynamic_quantize_linear(np.array([0.0, 127.5, -127.5], np.float32))
    >>> y, scale, zero
    (array([128, 255,   0], dtype=uint8), np.float32(1.0), np.uint8(128))
    """
    c = door(backend)
    if c is not None and (y := c.dynamic_quantize_linear(x, None, None, None)) is not NotImplemented:
        return y
    return call("dynamic_quantize_linear", (x,), {}, None, backend)


def matmul_integer(a: Any, b: Any, a_zero_point: Any = None, b_zero_point: Any = None, *, out: Any = None,
                   backend: str | None = None) -> Any:
    """ONNX's MatMulInteger: (a - a_zero_point) @ (b - b_zero_point) in int32 that wraps modulo 2^32.

    a (…, M, K) and b (…, K, N) int8 or uint8, with batches and vectors as in matmul; b may be packed (`pack`). Zero
    points lie in the range of their matrix: one number, or one a row of a, (M,) or (…, M, 1), and one a column of b,
    (N,) or (…, 1, N). Raises ArgumentError for others, DTypeError for matrices of other dtypes and zero points that are
    no integers, ShapeError where shapes do not fit.

    >>> import numpy as np, tilewright as tw
    >>> a, b = np.array([[250, 3]], np.uint8), np.array([[-7], [100]], np.int8)
    >>> tw.matmul_integer(a, b, 128)
    array([[-13354]], dtype=int32)
    """
    c = door(backend)
    if c is not None and (y := c.matmul_integer(a, b, a_zero_point, b_zero_point, out)) is not NotImplemented:
        return y
    return call("matmul_integer", (a, b, a_zero_point, b_zero_point), {}, out, backend)


def matmul_maddubs(a: Any, b: Any, *, backend: str | None = None) -> tuple[Any, np.int64]:
    """(y, clipped): a @ b as x86's vpmaddubsw computes it, and how many sums it clipped. matmul_integer never uses it.

    a (…, M, K) uint8, b (…, K, N) int8 (or packed), with batches and vectors as in matmul; y int32. The instruction
    holds a[2p] · b[2p] + a[2p + 1] · b[2p + 1] to -32768 ... 32767; where `clipped`, the number of such sums that this
    changed, is 0, y is matmul_integer(a, b). It tells what programs that are built on the instruction make of a model.
    The same on every processor. Raises ShapeError, and DTypeError for other dtypes.

    >>> import numpy as np, tilewright as tw
    >>> a, b = np.array([[255, 255, 1]], np.uint8), np.array([[127], [127], [-5]], np.int8)
    >>> y, clipped = tw.matmul_maddubs(a, b)
    >>> y, int(clipped), tw.matmul_integer(a, b)
    (array([[32762]], dtype=int32), 1, array([[64765]], dtype=int32))
    """
    return call("matmul_maddubs", (a, b), {}, None, backend)


def qlinear_matmul(a: Any, a_scale: Any, a_zero_point: Any, b: Any, b_scale: Any, b_zero_point: Any, y_scale: Any,
                   y_zero_point: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """ONNX's QLinearMatMul: quantize_linear(matmul_integer(a, b, …) · (a_scale · b_scale), y_scale, y_zero_point).

    Matrices and zero points as in matmul_integer; scales one number or one a row (a, y) or column (b). The result has
    y_zero_point's dtype, int8 or uint8. Raises as matmul_integer does, and ArgumentError for a scale that is not finite
    and positive in float32.

    >>> import numpy as np, tilewright as tw
    >>> a, b = np.array([[250, 3]], np.uint8), np.array([[-7], [100]], np.int8)
    >>> tw.qlinear_matmul(a, 0.1, np.uint8(128), b, 0.1, np.int8(0), 2.0, np.int8(0))
    array([[-67]], dtype=int8)
    """
    inputs = (a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point)
    c = door(backend)
    if c is not None and (y := c.qlinear_matmul(*inputs, out)) is not NotImplemented:
        return y
    return call("qlinear_matmul", inputs, {}, out, backend)


def quantized_linear(x: Any, w: Any, bias: Any = None, residual: Any = None, *, activation: str | None = None,
                     out: Any = None, backend: str | None = None) -> Any:
    """linear(x, w, …) for a QuantizedMatrix w (N, K); x (…, K). `linear` itself takes one, too. All in float32.

    What is computed is up to w's method. "dynamic": each row of x becomes uint8 over its own range, 0 included, and the
    product is one of integers, whose int32 sums can wrap for K above 66000, if x and w are at the ends of their ranges;
    a row with a NaN or an infinity gives a row of NaN. "weight-only": the product of x and w.dequantize(). bias (N,),
    residual of the result's shape; activation as in linear. See `quantize_weight`. Raises ShapeError, DTypeError, and
    ArgumentError for an unknown activation.

    >>> import numpy as np, tilewright as tw
    >>> x, w = np.array([[1.0, -0.5]], np.float32), np.array([[1.0, 0.5], [0.0, -1.0]], np.float32)
    >>> tw.quantized_linear(x, tw.quantize_weight(w)).round(2)
    array([[0.75, 0.5 ]], dtype=float32)
    """
    c = door(backend)
    if c is not None and activation in _CODES and \
            (y := c.quantized_linear(x, w, bias, residual, _CODES[activation], out)) is not NotImplemented:
        return y
    return call("quantized_linear", (x, w, bias, residual), {"activation": activation}, out, backend)


def qlinear(x: Any, x_scale: Any, x_zero_point: Any, w: Any, bias: Any = None, y_scale: Any = None,
            y_zero_point: Any = None, *, activation: str | None = None, out: Any = None,
            backend: str | None = None) -> Any:
    """A linear layer on integers with fixed scales: x (…, K) int8 or uint8, w a QuantizedMatrix (N, K) of 8 bits.

    f = matmul_integer(x, wᵀ, …) · (x_scale · w.scales) + bias, bias (N,) float32. The result is activation(f) in
    float32; or, with a y_scale, quantize_linear(activation(f), y_scale, y_zero_point) in the dtype of y_zero_point,
    int8 or uint8, where the activation is None or "relu". Scales and zero points of x and y are single numbers. Raises
    as qlinear_matmul does, and ArgumentError for a w or an activation that this does not take.

    >>> import numpy as np, tilewright as tw
    >>> w = tw.quantize_weight(np.array([[1.0, 0.5]], np.float32))
    >>> tw.qlinear(np.array([[255, 128]], np.uint8), 1 / 127, np.uint8(128), w, y_scale=0.01, y_zero_point=np.uint8(0))
    array([[100]], dtype=uint8)
    """
    inputs = (x, x_scale, x_zero_point, w, bias, y_scale, y_zero_point)
    c = door(backend)
    if c is not None and activation in _CODES and \
            (y := c.qlinear(*inputs, _CODES[activation], out)) is not NotImplemented:
        return y
    return call("qlinear", inputs, {"activation": activation}, out, backend)
