"""A linear layer and its activation as one node of the tape, all of it on reused memory (autograd/buffers.py).

    z (M, N) = x (M, K) @ w.T (K, N) + bias (N,)        y = activation(z)
    dz = dy * activation'(z)      dx = dz @ w      dw += dz.T @ x      dbias += dz summed over its rows
"""
from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from .. import ops
from ..autograd import apply
from ..autograd.buffers import empty, empty_like, room_for
from ..autograd.tape import Node, recording
from ..autograd.tensor import Tensor, made
from ..core.device_arrays import DeviceArray
from ..kernels.gemm.spec import ACTIVATIONS

# The derivative of these can be told from the sign of y, which is that of z: y is kept and z never written.
_BY_SIGN = (None, "relu", "leaky_relu")


_PLAIN = [name for name in ACTIVATIONS if name not in (None, "gelu_tanh")]
_ACTIVATE = {name: getattr(ops, name) for name in _PLAIN} | {"gelu_tanh": partial(ops.gelu, approximate="tanh")}
_GRADIENT = ({name: getattr(ops, f"{name}_backward") for name in _PLAIN}
             | {"gelu_tanh": partial(ops.gelu_backward, approximate="tanh")})


def linear(x: Tensor, w: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """activation(x @ w.T + bias) for x (..., in) and w (out, in)."""
    x_data, w_data, bias_data = x.data, w.data, None if bias is None else bias.data
    if not ((w.requires_grad or x.requires_grad or (bias is not None and bias.requires_grad)) and recording()):
        return made(ops.linear(x_data, w_data, bias_data, activation=activation))
    dtype = x_data.dtype
    if (type(x_data) is DeviceArray or w_data.dtype is not dtype or not dtype.isnative
            or (bias_data is not None and bias_data.dtype is not dtype)):
        return apply("linear", (x, w, bias, None), {"activation": activation})
    z = empty(x_data.shape[:-1] + w_data.shape[:1], dtype)
    if activation in _BY_SIGN:
        y = ops.linear(x_data, w_data, bias_data, activation=activation, out=z)
    else:
        y = _ACTIVATE[activation](ops.linear(x_data, w_data, bias_data, out=z), out=empty_like(z))
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
    if dy.dtype != x.dtype:  # of a tape that goes on in another dtype
        dy = dy.astype(x.dtype)
    dz = dy if activation is None else _GRADIENT[activation](dy, z, out=empty_like(z))
    dx = None if parents[0] is None else empty_like(x)
    if x.ndim != 2:
        rows = prod(x.shape[:-1])
        dz, x = dz.reshape(rows, w.shape[0]), x.reshape(rows, w.shape[1])
    dw, dbias = _weight_gradients(dz, x, *parents[1:])
    if dx is not None:  # nobody asks for it in the first layer, a third of the work
        ops.matmul(dz, w, out=dx if dx.ndim == 2 else dx.reshape(x.shape))
    return dx, dw, dbias


def _weight_gradients(dz: np.ndarray, x: np.ndarray, w: Any, bias: Any) -> tuple[Any, Any]:
    """Added to the `grad` of w and bias where they are leaves; what is left to the tape is returned."""
    if w is None:
        return None, None if bias is None else np.add.reduce(dz, 0)
    n, k = dz.shape[1], x.shape[1]
    dw, beta = (empty((n, k), x.dtype), 0.0) if isinstance(w, Node) else room_for(w)
    dbias, beta_bias = None, beta
    if bias is not None:
        dbias, beta_bias = (empty((n,), x.dtype), 0.0) if isinstance(bias, Node) else room_for(bias)
    if beta != beta_bias:  # one of them has a gradient already
        (dw if beta == 0 else dbias).fill(0)  # type: ignore[union-attr]
        beta = 1.0
    ops.linear_backward_weights(dz, x, dw, dbias, beta=beta)
    if not isinstance(w, Node):
        w.grad, dw = dw, None  # type: ignore[assignment]
    if bias is not None and not isinstance(bias, Node):
        bias.grad, dbias = dbias, None
    return dw, dbias
