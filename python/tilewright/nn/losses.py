"""Losses: one number for how wrong a model is."""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor, apply
from ..autograd.buffers import empty_like
from ..autograd.tape import Node, recording
from ..autograd.tensor import made
from ..core.device_arrays import DeviceArray
from ..core.errors import ArgumentError, ShapeError
from ..core.replay import recorded


def cross_entropy(logits: Any, labels: Any, *, reduction: str = "mean", ignore_index: int = -100,
                  label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label], averaged over the rows, as PyTorch's.

    logits (R, C) float32 or float64, labels (R,) integers in [0, C). reduction: "mean", "sum", or "none" for (R,). Rows
    whose label is ignore_index count for nothing. Raises as `tw.cross_entropy`.

    >>> import numpy as np, tilewright as tw
    >>> round(tw.nn.cross_entropy(np.zeros((3, 10)), np.array([1, 2, 3])).item(), 6)  # log(10)
    2.302585
    """
    if isinstance(labels, Tensor):
        labels = labels.data
    if reduction == "none" or not (isinstance(logits, Tensor) and logits.requires_grad and recording()) or \
            isinstance(logits.data, DeviceArray) or not logits.data.dtype.isnative:
        return apply("cross_entropy", (logits, labels),
                     {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing})
    data = logits.data
    t = made(ops.cross_entropy(data, labels, reduction=reduction, ignore_index=ignore_index,
                               label_smoothing=label_smoothing, out=np.empty((), data.dtype)))
    t._node = Node("cross_entropy", _cross_entropy_backward, (logits._node or logits,),
                   (data, labels, reduction, ignore_index, label_smoothing),
                   ((logits._version, logits._version.count),))
    t.requires_grad = True
    return t


def _cross_entropy_backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> tuple[Any]:
    logits, labels, reduction, ignore_index, label_smoothing = saved
    if dy.dtype != logits.dtype:  # of a tape that goes on in another dtype
        dy = dy.astype(logits.dtype)
    return ops.cross_entropy_backward(dy, logits, labels, reduction=reduction, ignore_index=ignore_index,
                                      label_smoothing=label_smoothing, out=empty_like(logits)),


def mse_loss(prediction: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """The squared difference of two arrays of one shape, averaged; reduction "mean", "sum" or "none".

    >>> import tilewright as tw
    >>> tw.nn.mse_loss([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"mse_loss: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    if np.shape(prediction) != np.shape(target):
        raise ShapeError(f"mse_loss: the prediction has shape {np.shape(prediction)}, the target {np.shape(target)}")
    if reduction != "none" and isinstance(prediction, Tensor) and prediction.requires_grad and recording() and \
            not isinstance(prediction.data, DeviceArray):
        goal = target.data if isinstance(target, Tensor) else np.asarray(target)
        if goal.dtype == prediction.dtype and goal.size and not (isinstance(target, Tensor) and target.requires_grad):
            return _square_error(prediction, goal, reduction == "mean")
    difference = (prediction if isinstance(prediction, Tensor) else Tensor(prediction)) - target
    square = difference * difference
    return square if reduction == "none" else square.mean() if reduction == "mean" else square.sum()


def _square_error(prediction: Tensor, goal: np.ndarray, mean: bool) -> Tensor:
    """The same as one node on reused memory."""
    difference, square, loss = empty_like(goal), empty_like(goal), np.empty((), goal.dtype)
    recorded(_square, (difference, square, loss), prediction.data, goal, mean)
    t = made(loss)
    factor = goal.dtype.type(2 / goal.size if mean else 2)
    t._node = Node("mse_loss", _square_error_backward, (prediction._node or prediction,), (difference, factor), ())
    t.requires_grad = True
    return t


def _square(difference: np.ndarray, square: np.ndarray, loss: np.ndarray, prediction: np.ndarray, goal: np.ndarray,
            mean: bool) -> None:
    np.subtract(prediction, goal, out=difference)
    np.multiply(difference, difference, out=square)
    loss[...] = square.mean() if mean else square.sum()


def _square_error_backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> tuple[Any]:
    difference, factor = saved
    gradient = empty_like(difference)
    recorded(_scaled, (gradient,), difference, factor, dy)
    return gradient,


def _scaled(out: np.ndarray, x: np.ndarray, factor: Any, dy: np.ndarray) -> None:
    np.multiply(x, factor * dy.astype(x.dtype), out=out)
