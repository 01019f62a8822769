"""What cross_entropy is: PyTorch's functional.cross_entropy for class labels.

With logp = log_softmax(logits), s = label_smoothing and C classes, row i with label t_i costs
    l_i = -(1 - s)·logp[i, t_i] - s/C · sum_c logp[i, c],      and 0 if t_i == ignore_index.
A label that is out of range, which the host refuses and a device does not, costs NaN.
"mean" divides the sum by the number of rows that count (NaN if there is none), "sum" sums, "none" returns l.
The gradient of l_i by the logits is softmax(logits)[i] - (1 - s)·onehot(t_i) - s/C.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps, tiny
from tilewright.core.errors import ArgumentError, ShapeError
from tilewright.core.registry import FLOATS, Call, Case, Spec
from tilewright.kernels.softmax.spec import LONG, log_softmax, team_lengths

REDUCTIONS = ("none", "mean", "sum")  # position = the code in the C library
DEFAULTS = {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0}


def _prepare(op: str, inputs: tuple, attrs: dict) -> Call:
    copies: list[str] = []
    *floats, labels = inputs
    names = ("dloss", "logits")[-len(floats):]
    xs = arrays.operands(op, names, floats, FLOATS, copies)
    logits, labels = xs[-1], arrays.indices(labels, "labels", op, copies)
    full = DEFAULTS | attrs
    if full["reduction"] not in REDUCTIONS:
        raise ArgumentError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, not {full['reduction']!r}")
    smoothing, ignore = float(full["label_smoothing"]), int(full["ignore_index"])
    if not 0 <= smoothing <= 1:
        raise ArgumentError(f"{op}: label_smoothing must lie between 0 and 1, not {smoothing}")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(f"{op}: logits {logits.shape} must be (rows, classes) "
                         f"and labels {labels.shape} one number a row")
    if arrays.readable(labels):  # on a device a label out of range gives a loss, and gradients, of NaN
        _check_labels(op, labels, logits, ignore)
    loss_shape = labels.shape if full["reduction"] == "none" else ()
    if len(floats) == 2 and xs[0].shape != loss_shape:
        raise ShapeError(f"{op}: dloss {xs[0].shape} must have the shape {loss_shape} of the loss")
    full = {"reduction": full["reduction"], "ignore_index": ignore, "label_smoothing": smoothing}
    shape = loss_shape if len(floats) == 1 else logits.shape
    return Call(op, (*xs, labels), full, ((shape, logits.dtype),), copies=copies)


def _check_labels(op: str, labels: np.ndarray, logits: np.ndarray, ignore: int) -> None:
    wrong = (labels != ignore) & ~in_range(labels, logits)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ArgumentError(f"{op}: labels[{at}] is {int(labels[at])}; labels run from 0 to {logits.shape[1] - 1}, "
                            f"or are {ignore} to be ignored")


# ---- oracles and bounds

def in_range(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Which labels are of a class."""
    return (labels >= 0) & (labels < logits.shape[1])


def losses(logits: np.ndarray, labels: np.ndarray, smoothing: float, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's loss, and which rows count."""
    logp = log_softmax(logits)
    counts = labels != ignore
    picked = np.full(len(labels), np.nan, logits.dtype)
    rows = np.flatnonzero(in_range(labels, logits))
    picked[rows] = logp[rows, labels[rows]]
    loss = -(1 - smoothing) * picked
    if smoothing:
        loss = loss - smoothing * logp.mean(-1)
    return np.where(counts, loss, 0), counts


def cross_entropy(logits: np.ndarray, labels: np.ndarray, reduction: str, ignore_index: int,
                  label_smoothing: float) -> np.ndarray:
    """The definition."""
    loss, counts = losses(logits, labels, label_smoothing, ignore_index)
    if reduction == "none":
        return loss
    total = loss.sum()
    return np.asarray(total / loss.dtype.type(counts.sum()) if reduction == "mean" else total)


def cross_entropy_backward(dloss: np.ndarray, logits: np.ndarray, labels: np.ndarray, reduction: str, ignore_index: int,
                           label_smoothing: float) -> np.ndarray:
    """The definition."""
    counts, known = labels != ignore_index, in_range(labels, logits)
    d = np.exp(log_softmax(logits)) - (label_smoothing / logits.shape[1] if logits.shape[1] else 0)
    rows = np.flatnonzero(known)
    d[rows, labels[rows]] -= 1 - label_smoothing
    d[~known] = np.nan
    if reduction == "mean" and counts.any():
        dloss = dloss / counts.sum()
    return np.where(counts[:, None], d * (dloss[:, None] if reduction == "none" else dloss), 0)


def _wide(call: Call) -> list[Any]:
    return [x.astype(np.longdouble) for x in call.inputs[:-1]] + [call.inputs[-1]]


def _oracle(call: Call) -> tuple:
    with np.errstate(all="ignore"):
        return (cross_entropy(*_wide(call), **call.attrs).astype(np.float64),)


def _backward_oracle(call: Call) -> tuple:
    with np.errstate(all="ignore"):
        return (cross_entropy_backward(*_wide(call), **call.attrs).astype(np.float64),)


def _bound(call: Call, expected: tuple) -> tuple:
    """The bound of log_softmax for the picked value and, with smoothing, a row's mean; then a sum of rows terms."""
    logits, labels = _wide(call)
    n = logits.shape[1]
    with np.errstate(all="ignore"):
        top = np.abs(logits - logits.max(-1, keepdims=True)) if logits.size else logits
        spread = np.where(np.isfinite(top), top, 0).max(-1) if logits.size else np.zeros(len(labels))
        each = eps(call.dtype) * (3 * spread + n / 2 + 10 + 2 * np.log(max(n, 1)))
        if call.attrs["label_smoothing"]:
            each = each + eps(call.dtype) * (n / 2 + 2) * spread
        each = each * (labels != call.attrs["ignore_index"])
        if call.attrs["reduction"] == "none":
            return (np.nan_to_num(each.astype(np.float64), nan=0.0, posinf=0.0),)
        loss, counts = losses(logits, labels, call.attrs["label_smoothing"], call.attrs["ignore_index"])
        total = each.sum() + (len(labels) + 2) * eps(call.dtype) * np.abs(loss).sum()
        total = total / max(counts.sum(), 1) if call.attrs["reduction"] == "mean" else total
    return (np.nan_to_num(np.asarray(total, np.float64), nan=0.0, posinf=0.0),)


def _backward_bound(call: Call, expected: tuple) -> tuple:
    """softmax's relative error, the subtraction of the target, and the scale."""
    dloss, logits, labels = _wide(call)
    n = logits.shape[1]
    with np.errstate(all="ignore"):
        top = np.abs(logits - logits.max(-1, keepdims=True)) if logits.size else logits
        p = np.exp(log_softmax(logits))
        scale = np.abs(dloss[:, None] if call.attrs["reduction"] == "none" else dloss)
        if call.attrs["reduction"] == "mean":
            scale = scale / max((labels != call.attrs["ignore_index"]).sum(), 1)
        error = eps(call.dtype) * ((np.nan_to_num(top) + n / 2 + 12) * p * scale + 2 * scale * (p + 1) * (p > 0.25)
                                   + 2 * call.attrs["label_smoothing"] * scale)
        error = error + 4 * eps(call.dtype) * np.abs(expected[0])
    return (np.nan_to_num(np.asarray(error, np.float64), nan=0.0, posinf=0.0) + 8 * tiny(call.dtype),)


# ---- samples

def _cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for i, classes in enumerate((1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 64, 65, 100, 127, 129, 1000, 1031)):
        attrs = {"reduction": REDUCTIONS[i % 3], "label_smoothing": (0.0, 0.1, 1.0)[i % 3 if i % 2 else 0]}
        layout, count = sampling.any_layout(rng), (1, 5, 33)[i % 3]
        labels = rng.integers(0, classes, count)
        if i % 4 == 3:
            labels[:: 2] = -100
        logits = sampling.normal(rng, (count, classes), dtype, layout, 4.0)
        yield Case((logits, sampling.laid_out(labels, layout)), attrs, f"{count}x{classes} {layout} {attrs}")
    for i, classes in enumerate((*LONG, *team_lengths(dtype))):
        for smoothing in (0.1, 0.0):
            logits = sampling.normal(rng, (3, classes), dtype)
            if smoothing == 0:
                logits[:, 1] = -np.inf  # which costs nothing then
            attrs = {"reduction": REDUCTIONS[i % 3], "label_smoothing": smoothing}
            yield Case((logits, np.array([classes - 1, -100, 0])), attrs, f"3x{classes} {attrs}")
    for reduction in REDUCTIONS:
        yield Case((sampling.normal(rng, (6, 4), dtype), np.full(6, 2)), {"reduction": reduction, "ignore_index": 2},
                   f"all ignored {reduction}")
        yield Case((sampling.normal(rng, (0, 4), dtype), np.zeros(0, np.int64)), {"reduction": reduction},
                   f"no rows {reduction}")
        yield Case((sampling.normal(rng, (300, 10), dtype, scale=30.0), rng.integers(0, 10, 300).astype(np.int32)),
                   {"reduction": reduction}, f"wide range {reduction}")
    far = sampling.normal(rng, (4, 9), dtype)
    far[1, 3], far[2, 2] = -np.inf, np.nan
    yield Case((far, np.array([1, 2, 3, 4])), {"reduction": "none"}, "NaN and infinity")


def _backward_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for case in _cases(rng, dtype):
        logits, labels = case.inputs
        if np.isfinite(logits.astype(np.float64)).all():
            shape = labels.shape if case.attrs["reduction"] == "none" else ()
            yield Case((sampling.normal(rng, shape, dtype), logits, labels), case.attrs, case.label)


def _device_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for i, classes in enumerate((5, 129, *LONG, *team_lengths(dtype))):
        labels = np.array([1, -1, classes - 1, classes, 2**62, -2**63, -100, 0])
        attrs = {"reduction": REDUCTIONS[i % 2], "label_smoothing": (0.0, 0.1)[i % 2]}
        yield Case((sampling.normal(rng, (8, classes), dtype), labels), attrs, f"8x{classes}, some out of range")


def _device_backward_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for case in _device_cases(rng, dtype):
        logits, labels = case.inputs
        shape = labels.shape if case.attrs["reduction"] == "none" else ()
        yield Case((sampling.normal(rng, shape, dtype), logits, labels), case.attrs, case.label)


def _bench(backward: bool) -> Any:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        rows, classes = {"small": (32, 10), "medium": (128, 1000), "large": (512, 8192)}[size]
        pair = sampling.normal(rng, (rows, classes), dtype), rng.integers(0, classes, rows)
        yield Case((np.ones((), dtype), *pair) if backward else pair, {}, f"{rows}x{classes}")
    return bench


def _gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    return run("cross_entropy_backward", grads[0], *inputs, **attrs), None


SPECS = [
    Spec("cross_entropy", "loss", "-log softmax(logits)[label], reduced over the rows", ("logits", "labels"),
         lambda inputs, attrs: _prepare("cross_entropy", inputs, attrs), _oracle, _bound,
         lambda call: 24.0 * call.inputs[0].size, lambda call: float(call.inputs[0].nbytes + call.inputs[1].nbytes),
         _cases, _bench(False), _gradient, device_cases=_device_cases),
    Spec("cross_entropy_backward", "loss", "softmax(logits) - onehot(labels), scaled", ("dloss", "logits", "labels"),
         lambda inputs, attrs: _prepare("cross_entropy_backward", inputs, attrs), _backward_oracle, _backward_bound,
         lambda call: 26.0 * call.inputs[1].size, lambda call: float(2 * call.inputs[1].nbytes + call.inputs[2].nbytes),
         _backward_cases, _bench(True), like=(1,), device_cases=_device_backward_cases),
]
