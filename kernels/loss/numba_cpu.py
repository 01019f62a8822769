"""cross_entropy in Numba, over a range of rows.

    cross_entropy_range(logits, labels, ignore_index, smoothing, losses, n, lo, hi)
    cross_entropy_backward_range(dloss, logits, labels, ignore_index, smoothing, out, n, lo, hi)

logits: contiguous rows of n classes as one 1-D array, float32 or float64; labels: int64, within range or
ignore_index; losses: one a row; dloss: one a row, or one for all. Serial, without the GIL, callable from other
compiled code. Probabilities are not stored: the exponentials are computed once for their sum and, backward, once more
for the gradient.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.vector import rows, vmath
from tilewright.kernels.vector.host import njit
from tilewright.kernels.vector.memory import lanes, load_n, store_n
from tilewright.kernels.vector.ranges import note_copies, run_rows, width


@njit
def cross_entropy_range(logits, labels, ignore_index, smoothing, losses, n, lo, hi):
    for row in range(lo, hi):
        at, label = row * n, labels[row]
        if label == ignore_index:
            losses[row] = 0
            continue
        top = rows.row_max(logits, at, n)
        log_sum = math.log(rows.row_sum(rows.shifted_exp, logits, logits, at, n, top))
        picked = logits[at + label] - top - log_sum
        loss = (smoothing - logits.dtype.type(1)) * picked
        if smoothing != 0:  # the mean of log_softmax over the classes
            mean = rows.row_sum(rows.shifted, logits, logits, at, n, top) / logits.dtype.type(n) - log_sum
            loss -= smoothing * mean
        losses[row] = loss


@njit
def cross_entropy_backward_range(dloss, logits, labels, ignore_index, smoothing, out, n, lo, hi):
    w = lanes(logits)
    for row in range(lo, hi):
        at, end, label = row * n, (row + 1) * n, labels[row]
        if label == ignore_index:
            out[at:end] = 0
            continue
        top = rows.row_max(logits, at, n)
        total = rows.row_sum(rows.shifted_exp, logits, logits, at, n, top)
        one, scale = logits.dtype.type(1), dloss[row % len(dloss)]
        spread = smoothing / logits.dtype.type(n)
        picked = (math.exp(logits[at + label] - top) / total - spread - (one - smoothing)) * scale
        for i in range(at, end, w):
            k = min(w, end - i)
            store_n(out, i, (vmath.exp(load_n(logits, i, k) - top) * (one / total) - spread) * scale, k)
        out[at + label] = picked


def _row_parameters(call: Call) -> tuple[int, float]:
    return call.attrs["ignore_index"], call.attrs["label_smoothing"]


def _forward(call: Call, outs: Sequence[np.ndarray]) -> None:
    logits, labels = call.inputs
    reduction = call.attrs["reduction"]
    losses = outs[0] if reduction == "none" else np.empty(len(labels), logits.dtype)
    run_rows(cross_entropy_range, "xlifyiii", logits.dtype, (logits, labels, *_row_parameters(call)), (losses,),
             logits.shape)
    if reduction != "none":
        total = losses.sum(dtype=np.float64)
        if reduction == "mean":
            counted = np.count_nonzero(labels != call.attrs["ignore_index"])
            total = total / counted if counted else np.nan
        outs[0][...] = total


def _backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dloss, logits, labels = call.inputs
    if call.attrs["reduction"] == "mean":
        dloss = dloss / dloss.dtype.type(max(1, np.count_nonzero(labels != call.attrs["ignore_index"])))
    inputs = (np.atleast_1d(dloss), logits, labels, *_row_parameters(call))
    run_rows(cross_entropy_backward_range, "xxlifyiii", logits.dtype, inputs, outs, logits.shape)


def _describe(call: Call) -> str:
    note_copies(call, ("dloss", "logits", "labels") if call.op.endswith("backward") else ("logits", "labels"))
    return width(call.dtype)


KERNELS = [Kernel(op, "numba", run, describe=_describe) for op, run in (
    ("cross_entropy", _forward), ("cross_entropy_backward", _backward))]
