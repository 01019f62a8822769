"""The C kernels of the gemm family, through their doors (csrc/python/door_gemm.c)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import native
from tilewright.core.registry import FLOATS, HALVES, Call, Kernel

from .spec import ACTIVATIONS


def _door(name: str, call: Call, *args: Any) -> Any:
    """Call a door; normal-form arguments are what doors take, so that a refusal is a fault of ours."""
    if call.dtype.name == "bfloat16":
        native.knows_bfloat16()
    result = getattr(native.door, name)(*args)
    if result is NotImplemented:
        shapes = ", ".join(f"{x.dtype}{x.shape}" for x in args if isinstance(x, np.ndarray))
        raise RuntimeError(f"the C function {name} refused a call in normal form: {shapes}")
    return result


def _right(call: Call) -> Any:
    """inputs[1] as doors take it: packed where it is."""
    return call.inputs[1] if call.packed is None else call.packed[0]


def _matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("matmul", call, call.inputs[0], _right(call), outs[0])


def _matmul_naive(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("matmul_naive", call, *call.inputs, outs[0])


def _gemm(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, _, c = call.inputs
    transposed = call.packed is not None and call.packed[1]
    _door("gemm", call, a, _right(call), c, call.attrs["alpha"], call.attrs["beta"], False, transposed, outs[0])


def _linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, _, bias, residual = call.inputs
    _door("linear", call, x, _right(call), bias, residual, ACTIVATIONS.index(call.attrs["activation"]), outs[0])


def _linear_backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("linear_backward", call, *call.inputs, *outs)


def _linear_backward_weights(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("linear_backward_weights", call, *call.inputs, call.attrs["beta"])


def _how(call: Call) -> str:
    transposed = call.op == "linear" or call.packed is not None and call.packed[1]
    return _door("describe_matmul", call, call.inputs[0], _right(call), transposed)


def _how_backward(call: Call) -> str:
    dy, x, w = call.inputs
    return "; ".join(_door("describe_matmul", call, a, b, False) for a, b in ((dy, w), (dy.T, x)))


def _how_backward_weights(call: Call) -> str:
    return _door("describe_matmul", call, call.inputs[0].T, call.inputs[1], False)


KERNELS = [
    Kernel("matmul", "c", _matmul, dtypes=FLOATS + HALVES, describe=_how),
    Kernel("matmul", "c", _matmul_naive, "naive", describe=lambda call: "three loops, one thread"),
    Kernel("gemm", "c", _gemm, describe=_how),
    Kernel("linear", "c", _linear, dtypes=FLOATS + HALVES, describe=_how),
    Kernel("linear_backward", "c", _linear_backward, describe=_how_backward),
    Kernel("linear_backward_weights", "c", _linear_backward_weights,
           describe=_how_backward_weights),
]
