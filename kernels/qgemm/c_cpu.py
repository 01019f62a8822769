"""Integer products and quantized layers in C, through their doors (csrc/python/door_qgemm.c)."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import BYTES, Call, Kernel
from tilewright.kernels.activation.c_cpu import door


def _operands(call: Call) -> tuple:
    """a, b, their zero points; b packed where it is."""
    a, b, a_zero, b_zero = call.inputs
    return a, b if call.packed is None else call.packed[0], a_zero, b_zero


def _matmul_integer(call: Call, outs: Sequence[np.ndarray]) -> None:
    door("integer_product", *_operands(call), outs[0])


def _how(call: Call) -> str:
    return door("describe_integer_product", *_operands(call))


KERNELS = [Kernel("matmul_integer", "c", _matmul_integer, dtypes=BYTES, describe=_how)]
