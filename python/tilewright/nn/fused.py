"""A linear layer and its activation as one node of the tape.

    z (M, N) = x (M, K) @ w.T (K, N) + bias (N,)        y = activation(z)
    dz = dy * activation'(z)      dx = dz @ w      dw = dz.T @ x      dbias = dz summed over its rows
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..autograd.tape import Node, recording
from ..autograd.tensor import Tensor, made

# The derivative of these can be told from the sign of y, which is that of z: y is kept and z never written.
_BY_SIGN = (None, "relu", "leaky_relu")


def _activate(name: str, z: np.ndarray) -> np.ndarray:
    return ops.gelu(z, approximate="tanh") if name == "gelu_tanh" else getattr(ops, name)(z)


def _activation_backward(name: str, dy: np.ndarray, z: np.ndarray) -> np.ndarray:
    if name == "gelu_tanh":
        return ops.gelu_backward(dy, z, approximate="tanh")
    return getattr(ops, name + "_backward")(dy, z)


def linear(x: Tensor, w: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """activation(x @ w.T + bias) for x (..., in) and w (out, in)."""
    x_data, w_data, bias_data = x.data, w.data, None if bias is None else bias.data
    if not ((w.requires_grad or x.requires_grad or (bias is not None and bias.requires_grad)) and recording()):
        return made(ops.linear(x_data, w_data, bias_data, activation=activation))
    if activation in _BY_SIGN:
        z = y = ops.linear(x_data, w_data, bias_data, activation=activation)
    else:
        z = ops.linear(x_data, w_data, bias_data)
        y = _activate(activation, z)  # type: ignore[arg-type]
    t = made(y)
    guards = (x._version, x._version.count), (w._version, w._version.count)
    if activation is not None and z is y:
        guards += ((t._version, 0),)  # type: ignore[assignment]
    parents = ((x._node or x) if x.requires_grad else None, (w._node or w) if w.requires_grad else None,
               (bias._node or bias) if bias is not None and bias.requires_grad else None)
    t._node = Node("linear", _backward, parents, (x_data, w_data, z if activation else None, activation), guards)
    t.requires_grad = True
    return t


def _backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    x, w, z, activation = saved
    dz = dy if activation is None else _activation_backward(activation, dy, z)
    if parents[0] is not None:
        return ops.linear_backward(dz, x, w)
    # The first layer: nobody asks for dx, a third of the work.
    if x.ndim != 2:
        dz, x = dz.reshape(-1, dz.shape[-1]), x.reshape(-1, x.shape[-1])
    return None, ops.matmul(dz.T, x), np.add.reduce(dz, 0)
