"""cross_entropy in CUDA: a loss a row, and sums over the rows in one fixed order; the gradient in one pass.

How a row is taken stands in kernels/ptx/rows.py. Labels are not checked on the host here: a row whose label is out of
range has a loss, and gradients, of NaN, and nothing is read at that place.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, launch, maps, rows, vmath
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, inline, int64, uint32, uint64
from tilewright.kernels.ptx.launch import kernel, specialise
from tilewright.kernels.ptx.warp import block_sum
from tilewright.kernels.softmax.cuda_rows import row_functions

THREADS = 1024  # of the one block that sums over all rows
ALL_WARPS = "each lane of a warp finds a warp's sum: there are as many warps as lanes"


@inline
def label_of(labels, row, step):
    return int64(ptx.ldg_u64(labels + uint64(int64(row) * step)))


@specialise(*rows.EXAMPLES)
def cross_entropy(dtype: str, layout: str, size: str) -> launch.Kernel:
    """losses[i] = -(1 - smoothing) logp[i, label] - smoothing mean(logp[i]), or 0 where the label is `ignore`"""
    real, f = rows.REAL[dtype], maps.NUMBER[rows.REAL[dtype]]
    t, maximum, exponentials = row_functions(dtype, layout, size, keep=True)
    log_from_one, load, store = vmath.functions(real).log_from_one, maps.LOAD[real], maps.STORE[real]
    items, held, piece, read, end, index, team_sum = t.items, t.held, t.piece, t.read, t.end, t.index, t.sum
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real
    zero, one, low, nan = real(0), real(1), real(-np.inf), real(np.nan)

    @inline
    def mean(v, x, lane, n, step, top, part):
        """Of x - top"""
        total, first = zero, uint32(0)
        while True:
            if not held:
                read(v, x, first, lane, n, step, low)
            for k in range(items):
                if index(first, lane, k) < n:
                    total += v[k] - top
            first = uint32(first + uint32(piece))
            if first >= end(n):
                break
        return team_sum(total, part) / number_type(n)

    @kernel(f"r x, r labels, w losses, i64 labels_step, i64 losses_step, i64 ignore, {f} smoothing, "
            f"{rows.COUNTS}, {rows.steps('x')}", threads=rows.threads_of(size))
    def cross_entropy(x, labels, losses, labels_step, losses_step, ignore, smoothing, count, rows, n, x0, x1, x2):
        row, lane = number(), lane_of()
        part, other = cuda.shared.array(32, number_type), cuda.shared.array(32, number_type)
        v = cuda.local.array(items, number_type)
        if inside(row, count):
            label, loss = label_of(labels, row, labels_step), zero
            if label != ignore:
                x += place(row, rows, x0, x1)
                top = maximum(v, x, lane, n, x2, part)
                log_sum = log_from_one(exponentials(v, x, lane, n, x2, top, other))
                picked = load(x + uint64(label * x2)) if label >= 0 and label < int64(n) else nan
                loss = (smoothing - one) * (picked - top - log_sum)
                if smoothing != zero:
                    loss -= smoothing * (mean(v, x, lane, n, x2, top, part) - log_sum)
            if lane == 0:
                store(losses + uint64(int64(row) * losses_step), loss)
    return cross_entropy


@specialise(*rows.EXAMPLES)
def cross_entropy_backward(dtype: str, layout: str, size: str) -> launch.Kernel:
    """(softmax(x) - spread - rest onehot(label)) dloss, over the rows that count where `counted` is given"""
    real, f = rows.REAL[dtype], maps.NUMBER[rows.REAL[dtype]]
    t, maximum, exponentials = row_functions(dtype, layout, size, keep=False)
    m, load = vmath.functions(real), maps.LOAD[real]
    exp, recip, zero, low, nan = m.exp, m.recip, real(0), real(-np.inf), real(np.nan)
    items, held, piece, read, write, end, index = t.items, t.held, t.piece, t.read, t.write, t.end, t.index
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real

    @kernel(f"r x, w dx, r dloss, r labels, r counted, i64 dloss_step, i64 labels_step, i64 ignore, {f} spread, "
            f"{f} rest, {rows.COUNTS}, {rows.steps('x', 'y')}", threads=rows.threads_of(size),
            harmless=dict.fromkeys(("guard: if counts:", "guard: if counts and not held:",
                                    "guard: top = maximum(v, x, lane, n, x2, part)"),
                                   "reads a row that does not count, for which 0 is written all the same"))
    def cross_entropy_backward(x, dx, dloss, labels, counted, dloss_step, labels_step, ignore, spread, rest,
                               count, rows, n, x0, x1, x2, y0, y1, y2):
        row, lane = number(), lane_of()
        part, other = cuda.shared.array(32, number_type), cuda.shared.array(32, number_type)
        v = cuda.local.array(items, number_type)
        if inside(row, count):
            x += place(row, rows, x0, x1)
            dx += place(row, rows, y0, y1)
            label, top, inverse = label_of(labels, row, labels_step), zero, zero
            counts = label != ignore
            scale = load(dloss + uint64(int64(row) * dloss_step))
            if counted != uint64(0):
                scale /= load(counted)
            if label < 0 or label >= int64(n):
                scale = nan
            if counts:
                top = maximum(v, x, lane, n, x2, part)
                inverse = recip(exponentials(v, x, lane, n, x2, top, other))
            first = uint32(0)
            while True:
                if counts and not held:
                    read(v, x, first, lane, n, x2, low)
                for k in range(items):
                    if counts:
                        target = rest if int64(index(first, lane, k)) == label else zero
                        e = v[k] if held else exp(v[k] - top)
                        v[k] = (e * inverse - spread - target) * scale
                    else:
                        v[k] = zero
                write(v, dx, first, lane, n, y2)
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
    return cross_entropy_backward


@specialise(*((dtype,) for dtype in FLOATS))
def over_rows(dtype: str) -> launch.Kernel:
    """One block: total = the sum of the losses, counted = how many labels are not `ignore`, mean = total / counted.

    Each of the three is written where it has an address.
    """
    real = rows.REAL[dtype]
    number_type, zero, size = rows.NUMBA[real], real(0), np.dtype(real).itemsize
    load, store = maps.LOAD[real], maps.STORE[real]

    @kernel("r losses, r labels, w total, w mean, w counted, i64 labels_step, i64 ignore, u32 count", threads=THREADS,
            harmless=dict.fromkeys(("guard 2: own = block_sum(own, part, zero)",
                                    "guard 2: rows = number_type(block_sum(used, many, int64(0)))"), ALL_WARPS))
    def over_rows(losses, labels, total, mean, counted, labels_step, ignore, count):
        part, many = cuda.shared.array(32, number_type), cuda.shared.array(32, int64)
        own, used, i = zero, int64(0), uint32(cuda.threadIdx.x)
        while i < count:
            used += int64(label_of(labels, i, labels_step) != ignore)
            if losses != uint64(0):
                own += load(losses + uint64(i) * uint64(size))
            i = uint32(i + uint32(THREADS))
        own = block_sum(own, part, zero)
        rows = number_type(block_sum(used, many, int64(0)))
        if cuda.threadIdx.x == 0:
            if total != uint64(0):
                store(total, own)
            if mean != uint64(0):
                store(mean, own / rows)
            if counted != uint64(0):
                store(counted, rows)
    return over_rows


def _forward(call: Call, outs: Sequence[np.ndarray]) -> None:
    logits, labels = call.inputs
    dtype, a = logits.dtype, call.attrs
    losses = outs[0] if a["reduction"] == "none" else launch.scratch(len(labels), dtype)
    step = labels.strides[0]
    rows.run(cross_entropy, logits,
             others=(labels, losses, step, losses.strides[0], a["ignore_index"], a["label_smoothing"]))
    if a["reduction"] != "none":
        places = (None, outs[0]) if a["reduction"] == "mean" else (outs[0], None)
        over_rows(arrays.name_of(dtype)).launch(1, losses, labels, *places, None, step, a["ignore_index"], len(labels))


def _backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dloss, logits, labels = call.inputs
    a, counted, step = call.attrs, None, labels.strides[0]
    if a["reduction"] == "mean":
        counted = launch.scratch(1, logits.dtype)
        over_rows(arrays.name_of(logits.dtype)).launch(1, None, labels, None, None, counted, step, a["ignore_index"],
                                                       len(labels))
    smoothing = a["label_smoothing"]
    rows.run(cross_entropy_backward, logits, outs[0],
             others=(dloss, labels, counted, *(dloss.strides or (0,)), step, a["ignore_index"],
                     smoothing / max(1, logits.shape[1]), 1 - smoothing))


def _supports(call: Call) -> str | None:
    count, classes = call.inputs[-2].shape
    if count > elementwise.MOST:
        return f"more than {elementwise.MOST} rows"
    return "no classes" if count and not classes else None


KERNELS = [Kernel(op, "cuda", run, supports=_supports, describe=lambda call: rows.describe(call.inputs[-2]))
           for op, run in (("cross_entropy", _forward), ("cross_entropy_backward", _backward))]
