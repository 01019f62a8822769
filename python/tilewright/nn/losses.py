"""Losses: one number for how wrong a model is."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, apply
from ..core.errors import ArgumentError, ShapeError


def cross_entropy(logits: Any, labels: Any, *, reduction: str = "mean", ignore_index: int = -100,
                  label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label], averaged over the rows, as PyTorch's.

    logits (R, C) float32 or float64, labels (R,) integers in [0, C). reduction: "mean", "sum", or "none" for (R,). Rows
    whose label is ignore_index count for nothing. Raises as `tw.cross_entropy`.

    >>> import numpy as np, tilewright as tw
    >>> round(tw.nn.cross_entropy(np.zeros((3, 10)), np.array([1, 2, 3])).item(), 6)  # log(10)
    2.302585
    """
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return apply("cross_entropy", (logits, labels), attrs)


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
    difference = (prediction if isinstance(prediction, Tensor) else Tensor(prediction)) - target
    square = difference * difference
    return square if reduction == "none" else square.mean() if reduction == "mean" else square.sum()
