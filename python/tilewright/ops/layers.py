"""What works on rows: softmax, norms, cross_entropy; dropout and embedding."""
from __future__ import annotations

from typing import Any

from ..core.dispatch import call, door
from ..kernels.loss.spec import REDUCTIONS

_REDUCTION_CODES = {name: code for code, name in enumerate(REDUCTIONS)}
_NEW = (None, None, None)  # out of three results that are to be made


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
