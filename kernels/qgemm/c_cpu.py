"""Integer products and quantized layers in C, through their doors: csrc/python/door_qgemm.c, door_qlinear.c and
door_weights.c."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import BYTES, Call, Kernel
from tilewright.kernels.activation.c_cpu import door
from tilewright.kernels.gemm.spec import ACTIVATIONS


def _operands(call: Call) -> tuple:
    """a, b, their zero points; b packed where it is."""
    a, b, a_zero, b_zero = call.inputs
    return a, b if call.packed is None else call.packed[0], a_zero, b_zero


def _matmul_integer(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("integer_product", *_operands(call), outs[0])


def _how(call: Call) -> str:
    return door("describe_integer_product", *_operands(call))


def _qlinear_matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    operands = list(call.inputs)
    if call.packed is not None:
        operands[3] = call.packed[0]
    door("requantized_product", *operands, outs[0])


def _quantized_linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    assert call.packed is not None
    x, _, bias, residual = call.inputs
    door("quantized_linear", x, call.packed[0], bias, residual, ACTIVATIONS.index(call.attrs["activation"]), outs[0])


def _qlinear(call: Call, outs: Sequence[np.ndarray]) -> None:
    assert call.packed is not None
    attrs, bias = call.attrs, call.inputs[4]
    y = (None, None) if attrs["y_scale"] is None else (attrs["y_scale"], outs[0].dtype.type(attrs["y_zero"]))
    door("qlinear", call.inputs[0], attrs["x_scale"], attrs["x_zero"], call.packed[0], bias, *y,
         ACTIVATIONS.index(attrs["activation"]), outs[0])


def _how_fused(call: Call) -> str:
    return f"{native.isa()} around an integer product, {native.int8_isa()}"


def _how_linear(call: Call) -> str:
    assert call.packed is not None
    w = call.packed[0]
    return door("describe_weights", w.make_c(), len(call.inputs[0])) if w.method == "weight-only" else _how_fused(call)


KERNELS = [
    Kernel("matmul_integer", "c", _matmul_integer, dtypes=BYTES, describe=_how),
    Kernel("qlinear_matmul", "c", _qlinear_matmul, dtypes=BYTES, describe=_how_fused),
    Kernel("quantized_linear", "c", _quantized_linear, dtypes=("float32",), describe=_how_linear),
    Kernel("qlinear", "c", _qlinear, dtypes=BYTES, describe=_how_fused),
]
