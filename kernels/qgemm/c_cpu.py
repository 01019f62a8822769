"""Integer products and quantized layers in C, through their doors (csrc/python/door_qgemm.c, door_weights.c)."""
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


def _weight_only(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, _, bias, residual = call.inputs
    w = call.packed[0]  # type: ignore[index]
    activation = ACTIVATIONS.index(call.attrs["activation"])
    door("weight_only_linear", x, w.make_c(), w.shape[0], bias, residual, activation, outs[0])


def _supports_weight_only(call: Call) -> str | None:
    assert call.packed is not None
    return None if call.packed[0].method == "weight-only" else "the matrix has another method"


KERNELS = [
    Kernel("matmul_integer", "c", _matmul_integer, dtypes=BYTES, describe=_how),
    Kernel("quantized_linear", "c", _weight_only, "weight-only", dtypes=("float32",),
           describe=lambda call: native.isa(), supports=_supports_weight_only),
]
