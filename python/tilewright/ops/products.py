"""Products of matrices, and the linear layer with its gradients."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.dispatch import call, door
from ..kernels.gemm.spec import ACTIVATIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
_NEW = (None, None, None)  # out of three results that are to be made


def matmul(a: Any, b: Any, *, precision: str | None = None, out: Any = None, backend: str | None = None) -> Any:
    """NumPy's matmul: a (…, M, K) @ b (…, K, N) -> (…, M, N), with batches that broadcast and 1-D vectors.

    float16 and bfloat16 are storage: sums are float32, the result is rounded once. b may be packed (`pack`), here as in
    gemm and as the w of linear. precision="tf32", of float32, lets operands be rounded to 11 bits, for a device whose
    tensor cores are faster then; what has none computes in float32, as without it.

    >>> import numpy as np, tilewright as tw
    >>> tw.matmul(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    c = door(backend) if precision is None else None
    if c is not None and (y := c.matmul(a, b, out)) is not NotImplemented:
        return y
    return call("matmul", (a, b), {} if precision is None else {"precision": precision}, out, backend)


def gemm(a: Any, b: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0, trans_a: bool = False,
         trans_b: bool = False, out: Any = None, backend: str | None = None) -> Any:
    """ONNX's Gemm: alpha · op(a) @ op(b) + beta · c; op transposes if asked, c broadcasts to the result (M, N).

    With beta == 0, c is not read; with alpha == 0, a and b are not. `out` may be c itself.

    >>> import numpy as np, tilewright as tw
    >>> tw.gemm(np.ones((3, 2)), np.ones((3, 2)), np.array([10.0, 20.0]), alpha=2.0, trans_a=True)
    array([[16., 26.],
           [16., 26.]])
    """
    d = door(backend)
    if d is not None and (y := d.gemm(a, b, c, alpha, beta, trans_a, trans_b, out)) is not NotImplemented:
        return y
    return call("gemm", (a, b, c), {"alpha": alpha, "beta": beta, "trans_a": trans_a, "trans_b": trans_b}, out, backend)


def linear(x: Any, w: Any, bias: Any = None, residual: Any = None, *, activation: str | None = None,
           precision: str | None = None, out: Any = None, backend: str | None = None) -> Any:
    """activation(x @ w.T + bias) + residual in one pass: x (…, K), w (N, K), bias (N,) -> (…, N), the residual's shape.

    Without a residual, PyTorch's functional.linear. activation: None, "relu", "leaky_relu", "elu", "gelu", "gelu_tanh",
    "silu", "sigmoid", "tanh", "softplus" or "hardswish". `out` may be the residual itself. precision: as in matmul.

    >>> import numpy as np, tilewright as tw
    >>> tw.linear(np.array([[1.0, -1.0]]), np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0.5, 0.5]), activation="relu")
    array([[1.5, 0. ]])
    """
    c = door(backend) if precision is None else None
    if c is not None and activation in _CODES and \
            (y := c.linear(x, w, bias, residual, _CODES[activation], out)) is not NotImplemented:
        return y
    attrs = {"activation": activation} | ({} if precision is None else {"precision": precision})
    return call("linear", (x, w, bias, residual), attrs, out, backend)


def linear_backward(dy: Any, x: Any, w: Any, *, out: tuple | None = None,
                    backend: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of linear without its activation: (dx, dw, dbias) from dy (…, N), x (…, K), w (N, K).

    >>> import numpy as np, tilewright as tw
    >>> dx, dw, dbias = tw.linear_backward(np.ones((2, 1)), np.eye(2), np.array([[3.0, 4.0]]))
    >>> dx
    array([[3., 4.],
           [3., 4.]])
    """
    c = door(backend) if out is None or type(out) is tuple else None
    if c is not None and (grads := c.linear_backward(dy, x, w, *(out or _NEW))) is not NotImplemented:
        return grads
    return call("linear_backward", (dy, x, w), {}, out, backend)


def linear_backward_weights(dy: Any, x: Any, dw: np.ndarray, dbias: np.ndarray | None = None, *, beta: float = 0.0,
                            backend: str | None = None) -> None:
    """dw = dy.T @ x + beta · dw, and dbias likewise from the column sums of dy, in place: linear_backward without dx.

    dy (…, N), x (…, K), dw (N, K), dbias (N,) or None. With beta == 0 what dw and dbias held is not read; beta = 1 adds
    up the gradients of several batches.

    >>> import numpy as np, tilewright as tw
    >>> dw = np.zeros((1, 2))
    >>> for _ in range(3):
    ...     tw.linear_backward_weights(np.ones((2, 1)), np.eye(2), dw, beta=1.0)
    >>> dw
    array([[3., 3.]])
    """
    c = door(backend)
    if c is None or c.linear_backward_weights(dy, x, dw, dbias, beta) is NotImplemented:
        call("linear_backward_weights", (dy, x, dw, dbias), {"beta": beta}, None, backend)
