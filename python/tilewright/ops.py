"""The public calls: one function an operation, the same on every backend.

Every function takes `backend=None`: a name ("c", "numba", "numpy"), a step of a ladder ("c:naive"), or None for the
backend of `use_backend`, else the best that can run the call here. Functions that return one array take `out=None`,
those that return several a tuple of as many arrays, None in the places of those to be made. Arrays may have any strides
and may be empty; float32 and float64 are computed as they are, mixtures are promoted as NumPy does. Raised before
anything is written: ShapeError, DTypeError, ArgumentError, AliasError, BackendUnavailable (all of `tilewright.errors`).

The body of each is the same: the door to C where the arguments are plain, else the long way through the table.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core.dispatch import call, door
from .kernels.gemm.spec import ACTIVATIONS
from .kernels.loss.spec import REDUCTIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
_REDUCTION_CODES = {name: code for code, name in enumerate(REDUCTIONS)}
Lists = np.ndarray | Sequence[np.ndarray]
_NEW = (None, None, None)  # out of three results that are to be made

# ---- products


def matmul(a: Any, b: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """NumPy's matmul: a (…, M, K) @ b (…, K, N) -> (…, M, N), with batches that broadcast and 1-D vectors.

    float16 and bfloat16 are storage: sums are float32, the result is rounded once. b may be packed (`pack`), here as in
    gemm and as the w of linear.

    >>> import numpy as np, tilewright as tw
    >>> tw.matmul(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    c = door(backend)
    if c is not None and (y := c.matmul(a, b, out)) is not NotImplemented:
        return y
    return call("matmul", (a, b), {}, out, backend)


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


def linear(x: Any, w: Any, bias: Any = None, residual: Any = None, *, activation: str | None = None, out: Any = None,
           backend: str | None = None) -> Any:
    """activation(x @ w.T + bias) + residual in one pass: x (…, K), w (N, K), bias (N,) -> (…, N), the residual's shape.

    Without a residual, PyTorch's functional.linear. activation: None, "relu", "leaky_relu", "elu", "gelu", "gelu_tanh",
    "silu", "sigmoid", "tanh", "softplus" or "hardswish". `out` may be the residual itself.

    >>> import numpy as np, tilewright as tw
    >>> tw.linear(np.array([[1.0, -1.0]]), np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0.5, 0.5]), activation="relu")
    array([[1.5, 0. ]])
    """
    c = door(backend)
    if c is not None and activation in _CODES and \
            (y := c.linear(x, w, bias, residual, _CODES[activation], out)) is not NotImplemented:
        return y
    return call("linear", (x, w, bias, residual), {"activation": activation}, out, backend)


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


# ---- activations: float32 within 4 ULP of the exact value for every input, far tails included


def relu(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """max(x, 0), element by element; NaN stays NaN.

    >>> import numpy as np, tilewright as tw
    >>> tw.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    c = door(backend)
    if c is not None and (y := c.relu(x, out)) is not NotImplemented:
        return y
    return call("relu", (x,), {}, out, backend)


def leaky_relu(x: Any, negative_slope: float = 0.01, *, out: Any = None, backend: str | None = None) -> Any:
    """x where x > 0, else negative_slope · x.

    >>> import numpy as np, tilewright as tw
    >>> tw.leaky_relu(np.array([-1.0, 2.0]), 0.1)
    array([-0.1,  2. ])
    """
    c = door(backend)
    if c is not None and (y := c.leaky_relu(x, negative_slope, out)) is not NotImplemented:
        return y
    return call("leaky_relu", (x,), {"negative_slope": negative_slope}, out, backend)


def elu(x: Any, alpha: float = 1.0, *, out: Any = None, backend: str | None = None) -> Any:
    """x where x > 0, else alpha · (exp(x) - 1).

    >>> import numpy as np, tilewright as tw
    >>> tw.elu(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """
    c = door(backend)
    if c is not None and (y := c.elu(x, alpha, out)) is not NotImplemented:
        return y
    return call("elu", (x,), {"alpha": alpha}, out, backend)


def gelu(x: Any, *, approximate: str = "none", out: Any = None, backend: str | None = None) -> Any:
    """x·Φ(x), Φ being the normal distribution function; approximate="tanh" is Hendrycks and Gimpel's approximation.

    >>> import numpy as np, tilewright as tw
    >>> tw.gelu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.841345])
    """
    c = door(backend)
    if c is not None:
        f = c.gelu if approximate == "none" else c.gelu_tanh if approximate == "tanh" else None
        if f is not None and (y := f(x, out)) is not NotImplemented:
            return y
    return call("gelu", (x,), {"approximate": approximate}, out, backend)


def silu(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """x · sigmoid(x), also called swish.

    >>> import numpy as np, tilewright as tw
    >>> tw.silu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.731059])
    """
    c = door(backend)
    if c is not None and (y := c.silu(x, out)) is not NotImplemented:
        return y
    return call("silu", (x,), {}, out, backend)


def sigmoid(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """1 / (1 + exp(-x)).

    >>> import numpy as np, tilewright as tw
    >>> tw.sigmoid(np.array([-np.inf, 0.0]))
    array([0. , 0.5])
    """
    c = door(backend)
    if c is not None and (y := c.sigmoid(x, out)) is not NotImplemented:
        return y
    return call("sigmoid", (x,), {}, out, backend)


def tanh(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """The hyperbolic tangent.

    >>> import numpy as np, tilewright as tw
    >>> tw.tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    c = door(backend)
    if c is not None and (y := c.tanh(x, out)) is not NotImplemented:
        return y
    return call("tanh", (x,), {}, out, backend)


def softplus(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """log(1 + exp(x)), without overflow.

    >>> import numpy as np, tilewright as tw
    >>> tw.softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    c = door(backend)
    if c is not None and (y := c.softplus(x, out)) is not NotImplemented:
        return y
    return call("softplus", (x,), {}, out, backend)


def hardswish(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """x · min(max(x + 3, 0), 6) / 6.

    >>> import numpy as np, tilewright as tw
    >>> tw.hardswish(np.array([-4.0, 0.0, 4.0]))
    array([-0.,  0.,  4.])
    """
    c = door(backend)
    if c is not None and (y := c.hardswish(x, out)) is not NotImplemented:
        return y
    return call("hardswish", (x,), {}, out, backend)


def _backward(name: str) -> Callable[..., Any]:
    op = f"{name}_backward"

    def backward(dy: Any, x: Any, *, out: Any = None, backend: str | None = None) -> Any:
        c = door(backend)
        if c is not None and (dx := getattr(c, op)(dy, x, out)) is not NotImplemented:
            return dx
        return call(op, (dy, x), {}, out, backend)
    backward.__name__ = backward.__qualname__ = op
    backward.__doc__ = f"dy · {name}'(x): the gradient of {name} by x, element by element; dy has x's shape."
    return backward


relu_backward = _backward("relu")
silu_backward = _backward("silu")
sigmoid_backward = _backward("sigmoid")
tanh_backward = _backward("tanh")
softplus_backward = _backward("softplus")
hardswish_backward = _backward("hardswish")


def leaky_relu_backward(dy: Any, x: Any, negative_slope: float = 0.01, *, out: Any = None,
                        backend: str | None = None) -> Any:
    """dy · leaky_relu'(x); the derivative at 0 is the slope."""
    c = door(backend)
    if c is not None and (dx := c.leaky_relu_backward(dy, x, negative_slope, out)) is not NotImplemented:
        return dx
    return call("leaky_relu_backward", (dy, x), {"negative_slope": negative_slope}, out, backend)


def elu_backward(dy: Any, x: Any, alpha: float = 1.0, *, out: Any = None, backend: str | None = None) -> Any:
    """dy · elu'(x); the derivative at 0 is alpha."""
    c = door(backend)
    if c is not None and (dx := c.elu_backward(dy, x, alpha, out)) is not NotImplemented:
        return dx
    return call("elu_backward", (dy, x), {"alpha": alpha}, out, backend)


def gelu_backward(dy: Any, x: Any, *, approximate: str = "none", out: Any = None, backend: str | None = None) -> Any:
    """dy · gelu'(x), of the exact form or of the tanh form."""
    c = door(backend)
    if c is not None:
        f = c.gelu_backward if approximate == "none" else c.gelu_tanh_backward if approximate == "tanh" else None
        if f is not None and (dx := f(dy, x, out)) is not NotImplemented:
            return dx
    return call("gelu_backward", (dy, x), {"approximate": approximate}, out, backend)


# ---- along an axis


def softmax(x: Any, axis: int = -1, *, out: Any = None, backend: str | None = None) -> Any:
    """exp(x) / sum of exp(x) along `axis`, without overflow.

    >>> import numpy as np, tilewright as tw
    >>> tw.softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    c = door(backend)
    if c is not None and axis == -1 and (y := c.softmax(x, out)) is not NotImplemented:
        return y
    return call("softmax", (x,), {"axis": axis}, out, backend)


def log_softmax(x: Any, axis: int = -1, *, out: Any = None, backend: str | None = None) -> Any:
    """log(softmax(x)) along `axis`, without overflow or cancellation.

    >>> import numpy as np, tilewright as tw
    >>> tw.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    c = door(backend)
    if c is not None and axis == -1 and (y := c.log_softmax(x, out)) is not NotImplemented:
        return y
    return call("log_softmax", (x,), {"axis": axis}, out, backend)


def softmax_backward(dy: Any, y: Any, axis: int = -1, *, out: Any = None, backend: str | None = None) -> Any:
    """The gradient of softmax from its result y: y · (dy - sum(dy · y))."""
    c = door(backend)
    if c is not None and axis == -1 and (dx := c.softmax_backward(dy, y, out)) is not NotImplemented:
        return dx
    return call("softmax_backward", (dy, y), {"axis": axis}, out, backend)


def log_softmax_backward(dy: Any, y: Any, axis: int = -1, *, out: Any = None, backend: str | None = None) -> Any:
    """The gradient of log_softmax from its result y: dy - exp(y) · sum(dy)."""
    c = door(backend)
    if c is not None and axis == -1 and (dx := c.log_softmax_backward(dy, y, out)) is not NotImplemented:
        return dx
    return call("log_softmax_backward", (dy, y), {"axis": axis}, out, backend)


def layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *, out: Any = None,
               backend: str | None = None) -> Any:
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last axis of x (…, N); weight and bias (N,) or None.

    >>> import numpy as np, tilewright as tw
    >>> tw.layer_norm(np.array([[1.0, 3.0]]), eps=0.0)
    array([[-1.,  1.]])
    """
    c = door(backend)
    if c is not None and (y := c.layer_norm(x, weight, bias, eps, out)) is not NotImplemented:
        return y
    return call("layer_norm", (x, weight, bias), {"eps": eps}, out, backend)


def layer_norm_backward(dy: Any, x: Any, weight: Any = None, eps: float = 1e-5, *, out: tuple | None = None,
                        backend: str | None = None) -> tuple:
    """Gradients of layer_norm: (dx, dweight, dbias); the last two are sums over the rows, also where weight is None."""
    c = door(backend) if out is None or type(out) is tuple else None
    if c is not None and (grads := c.layer_norm_backward(dy, x, weight, eps, *(out or _NEW))) is not NotImplemented:
        return grads
    return call("layer_norm_backward", (dy, x, weight), {"eps": eps}, out, backend)


def rms_norm(x: Any, weight: Any = None, eps: float = 1e-5, *, out: Any = None, backend: str | None = None) -> Any:
    """x / sqrt(mean(x²) + eps) · weight over the last axis of x (…, N); weight (N,) or None.

    >>> import numpy as np, tilewright as tw
    >>> tw.rms_norm(np.array([[3.0, 3.0]]), eps=0.0)
    array([[1., 1.]])
    """
    c = door(backend)
    if c is not None and (y := c.rms_norm(x, weight, eps, out)) is not NotImplemented:
        return y
    return call("rms_norm", (x, weight), {"eps": eps}, out, backend)


def rms_norm_backward(dy: Any, x: Any, weight: Any = None, eps: float = 1e-5, *, out: tuple | None = None,
                      backend: str | None = None) -> tuple:
    """Gradients of rms_norm: (dx, dweight)."""
    c = door(backend) if out is None or type(out) is tuple else None
    if c is not None and (grads := c.rms_norm_backward(dy, x, weight, eps, *(out or _NEW[:2]))) is not NotImplemented:
        return grads
    return call("rms_norm_backward", (dy, x, weight), {"eps": eps}, out, backend)


# ---- loss, dropout, embedding


def cross_entropy(logits: Any, labels: Any, *, reduction: str = "mean", ignore_index: int = -100,
                  label_smoothing: float = 0.0, out: Any = None, backend: str | None = None) -> Any:
    """-log softmax(logits)[label] for logits (R, C) and integer labels (R,), reduced by "mean", "sum" or "none".

    As in PyTorch. Rows labelled `ignore_index` cost nothing and do not count in the mean. Any other label outside
    0 … C - 1 raises ArgumentError.

    >>> import numpy as np, tilewright as tw
    >>> float(tw.cross_entropy(np.zeros((2, 4)), np.array([1, 3])).round(6))
    1.386294
    """
    c = door(backend)
    if c is not None and (code := _REDUCTION_CODES.get(reduction)) is not None and \
            (y := c.cross_entropy(logits, labels, code, ignore_index, label_smoothing, out)) is not NotImplemented:
        return y
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return call("cross_entropy", (logits, labels), attrs, out, backend)


def cross_entropy_backward(dloss: Any, logits: Any, labels: Any, *, reduction: str = "mean", ignore_index: int = -100,
                           label_smoothing: float = 0.0, out: Any = None, backend: str | None = None) -> Any:
    """The gradient of cross_entropy by the logits, times dloss: (), or (R,) with reduction "none"."""
    c = door(backend)
    if c is not None and (code := _REDUCTION_CODES.get(reduction)) is not None and \
            (d := c.cross_entropy_backward(dloss, logits, labels, code, ignore_index, label_smoothing,
                                           out)) is not NotImplemented:
        return d
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return call("cross_entropy_backward", (dloss, logits, labels), attrs, out, backend)


def dropout(x: Any, p: float, seed: int, *, out: Any = None, backend: str | None = None) -> Any:
    """x / (1 - p) where a random bit keeps the element, else 0.

    The bits depend on the seed (0 … 2**64 - 1) and the place only. Counter-based (Philox4x32-10): the same seed gives
    the same mask on every backend, at any number of threads.

    >>> import numpy as np, tilewright as tw
    >>> tw.dropout(np.ones(6), 0.5, seed=3)
    array([2., 0., 2., 2., 0., 2.])
    """
    c = door(backend)
    if c is not None and (y := c.dropout(x, p, seed, out)) is not NotImplemented:
        return y
    return call("dropout", (x,), {"p": p, "seed": seed}, out, backend)


def dropout_backward(dy: Any, p: float, seed: int, *, out: Any = None, backend: str | None = None) -> Any:
    """The gradient of dropout: the same map with the same seed, applied to dy."""
    c = door(backend)
    if c is not None and (dx := c.dropout(dy, p, seed, out)) is not NotImplemented:
        return dx
    return call("dropout_backward", (dy,), {"p": p, "seed": seed}, out, backend)


def embedding(indices: Any, weight: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """Rows weight[i] of weight (V, D) for integer indices of any shape -> indices.shape + (D,).

    >>> import numpy as np, tilewright as tw
    >>> tw.embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[3., 4.],
           [1., 2.]])
    """
    c = door(backend)
    if c is not None and (y := c.embedding(indices, weight, out)) is not NotImplemented:
        return y
    return call("embedding", (indices, weight), {}, out, backend)


def embedding_backward(dy: Any, indices: Any, num_embeddings: int, *, backend: str | None = None) -> Any:
    """The gradient of embedding by its weight: (num_embeddings, D), rows of dy added up in the order of the indices."""
    return call("embedding_backward", (dy, indices), {"num_embeddings": num_embeddings}, None, backend)


# ---- optimizer steps, in place: an array or a sequence of arrays for each argument


def sgd_step(params: Lists, grads: Lists, momentum_buffers: Lists | None = None, *, lr: float = 1e-3,
             momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0,
             backend: str | None = None) -> None:
    """One step of stochastic gradient descent, in place, with PyTorch's formula. The buffers start as zeros.

    >>> import numpy as np, tilewright as tw
    >>> p = np.array([1.0, 2.0])
    >>> tw.sgd_step(p, np.array([10.0, -10.0]), lr=0.5)
    >>> p
    array([-4.,  7.])
    """
    c = door(backend)
    if c is not None and c.sgd_step(params, grads, momentum_buffers, lr, momentum, nesterov,
                                    weight_decay) is not NotImplemented:
        return
    attrs = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    call("sgd_step", (params, grads, momentum_buffers), attrs, None, backend)


def adam_step(params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, *, step: int, lr: float = 1e-3,
              betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
              backend: str | None = None) -> None:
    """One step of Adam (Kingma and Ba 2015), in place; `step` counts from 1, the averages start as zeros."""
    _adam("adam_step", False, params, grads, exp_avgs, exp_avg_sqs, step, lr, betas, eps, weight_decay, backend)


def adamw_step(params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, *, step: int, lr: float = 1e-3,
               betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
               backend: str | None = None) -> None:
    """One step of Adam with decoupled weight decay (Loshchilov and Hutter 2019), in place."""
    _adam("adamw_step", True, params, grads, exp_avgs, exp_avg_sqs, step, lr, betas, eps, weight_decay, backend)


def _adam(op: str, decoupled: bool, params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, step: int,
          lr: float, betas: tuple[float, float], eps: float, weight_decay: float, backend: str | None) -> None:
    c = door(backend)
    if c is not None and c.adam_step(params, grads, exp_avgs, exp_avg_sqs, step, lr, betas[0], betas[1], eps,
                                     weight_decay, decoupled) is not NotImplemented:
        return
    attrs = {"step": step, "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    call(op, (params, grads, exp_avgs, exp_avg_sqs), attrs, None, backend)


def clip_grad_norm(grads: Lists, max_norm: float, *, backend: str | None = None) -> float:
    """Scale gradients in place so that their common 2-norm is at most max_norm; returns the norm before. As in PyTorch.

    >>> import numpy as np, tilewright as tw
    >>> g = np.array([3.0, 4.0])
    >>> tw.clip_grad_norm(g, 1.0)
    5.0
    """
    c = door(backend)
    if c is not None and (norm := c.clip_grad_norm(grads, max_norm)) is not NotImplemented:
        return norm
    return call("clip_grad_norm", (grads,), {"max_norm": max_norm}, None, backend)




__all__ = [name for name, value in list(globals().items())
           if callable(value) and getattr(value, "__module__", None) == __name__ and not name.startswith("_")]
