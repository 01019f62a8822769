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


def _matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("matmul", call, *call.inputs, outs[0])


def _matmul_naive(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("matmul_naive", call, *call.inputs, outs[0])


def _gemm(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b, c = call.inputs
    _door("gemm", call, a, b, c, call.attrs["alpha"], call.attrs["beta"], False, False, outs[0])


def _linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, w, bias, residual = call.inputs
    _door("linear", call, x, w, bias, residual, ACTIVATIONS.index(call.attrs["activation"]), outs[0])


def _linear_backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("linear_backward", call, *call.inputs, *outs)


def _linear_backward_weights(call: Call, outs: Sequence[np.ndarray]) -> None:
    _door("linear_backward_weights", call, *call.inputs, call.attrs["beta"])


def _how(call: Call, *products: tuple[np.ndarray, np.ndarray]) -> str:
    return "; ".join(_door("describe_matmul", call, a, b) for a, b in products)


def _how_backward(call: Call) -> str:
    dy, x, w = call.inputs
    return _how(call, (dy, w), (dy.T, x))


KERNELS = [
    Kernel("matmul", "c", _matmul, dtypes=FLOATS + HALVES,
           describe=lambda call: _how(call, (call.inputs[0], call.inputs[1]))),
    Kernel("matmul", "c", _matmul_naive, "naive", describe=lambda call: "three loops, one thread"),
    Kernel("gemm", "c", _gemm, describe=lambda call: _how(call, (call.inputs[0], call.inputs[1]))),
    Kernel("linear", "c", _linear, dtypes=FLOATS + HALVES,
           describe=lambda call: _how(call, (call.inputs[0], call.inputs[1].T))),
    Kernel("linear_backward", "c", _linear_backward, describe=_how_backward),
    Kernel("linear_backward_weights", "c", _linear_backward_weights,
           describe=lambda call: _how(call, (call.inputs[0].T, call.inputs[1]))),
]
