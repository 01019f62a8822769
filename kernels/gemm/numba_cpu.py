"""Products in Numba: wrappers around gemm_range (blocked.py), cut into rectangles for the threads; and the naive
kernel.

From other compiled code, serial and without the GIL, on 2-D arrays of one dtype (float32 or float64):

    gemm_into(alpha, a, b, beta, out)             out = alpha * a @ b + beta * out; out with contiguous columns
    gemm_range(alpha, a, b, beta, c, out, work, i0, i1, j0, j1)    one rectangle, with an addend and memory of your own
    naive_range(a, b, out, i0, i1)                rows i0 ... i1 - 1 of a @ b, one dot product after the other

What the kernel cannot write directly: out with scattered elements (a stand-in, copied back), a c whose columns are
not contiguous (copied into out first), float16 and bfloat16 (converted to float32 and back).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, HALVES, Call, Kernel
from tilewright.core.threads import get_num_threads, run_ranges
from tilewright.kernels.gemm.spec import ACTIVATIONS, compute_dtype
from tilewright.kernels.vector.host import BYTES, njit
from tilewright.kernels.vector.ranges import compiled, flat, scratch, width
from tilewright.kernels.vector.rows import column_sums_range

from .blocked import WORK_BYTES, gemm_range, pack_range, packed_range
from .door import DOORS
from .epilogue import activate_range, add_range
from .microkernel import MR, NV

SERIAL_FLOPS = 20_000_000  # below, some 80 us, waking a second thread costs more than it brings
RECTANGLES = 3  # for each thread: they run at unequal speed


@njit
def gemm_into(alpha, a, b, beta, out):
    scalar = out.dtype.type
    work = np.empty(WORK_BYTES // out.itemsize, out.dtype)
    gemm_range(scalar(alpha), a, b, scalar(beta), out, out, work, 0, out.shape[0], 0, out.shape[1])


@njit
def naive_range(a, b, out, i0, i1):
    for i in range(i0, i1):
        for j in range(b.shape[1]):
            total = out.dtype.type(0)
            for p in range(a.shape[1]):
                total += a[i, p] * b[p, j]
            out[i, j] = total


def rectangles(m: int, n: int, k: int, itemsize: int) -> list[tuple[int, int, int, int]]:
    """(i0, i1, j0, j1) that tile m x n: one where one thread does, else whole tiles, cut across the columns first.

    A rectangle packs the columns of b that it needs: those in one column of rectangles pack the same again.
    """
    threads = get_num_threads() if 2 * m * n * k >= SERIAL_FLOPS else 1
    if threads == 1:
        return [(0, m, 0, n)]
    nr = NV * BYTES // itemsize
    across = min(RECTANGLES * threads, -(-n // (2 * nr)))
    columns = -(-n // (across * nr)) * nr
    down = -(-RECTANGLES * threads // -(-n // columns))
    rows = -(-m // (down * MR)) * MR
    return [(i, min(i + rows, m), j, min(j + columns, n)) for i in range(0, m, rows) for j in range(0, n, columns)]


def _contiguous_columns(x: np.ndarray) -> bool:
    return x.strides[1] == x.itemsize or x.shape[1] <= 1


def product(alpha: float, a: np.ndarray, b: np.ndarray, beta: float, c: np.ndarray | None, out: np.ndarray,
            code: int = 0, residual: np.ndarray | None = None, panels: np.ndarray | None = None) -> None:
    """out = f(alpha * a @ b + beta * c) + residual, float32 or float64, any strides; c: (M, N) or (1, N).

    f: ACTIVATIONS[code]; the residual must be apart from out; panels: of b, where it was packed beforehand.
    """
    ends = code or residual is not None
    if not (out.flags.c_contiguous or not ends and _contiguous_columns(out)):
        if not ends and _contiguous_columns(out.T) and (c is None or c.shape == out.shape):
            product(alpha, b.T, a.T, beta, None if c is None else c.T, out.T)
            return
        stand_in = np.empty(out.shape, out.dtype)
        product(alpha, a, b, beta, c, stand_in, code, residual, panels)
        out[...] = stand_in
        return
    if c is None:
        c, beta = out, 0.0
    elif beta != 0 and not _contiguous_columns(c):
        out[...] = c
        c = out
    kernel = compiled(gemm_range if panels is None else packed_range, "fXXfXYyiiii", out.dtype)
    b = b if panels is None else panels
    (m, n), k = out.shape, a.shape[1]
    if ends:
        activate, add = compiled(activate_range, "iyiiiii", out.dtype), compiled(add_range, "Xyiiiii", out.dtype)
        y = out.reshape(-1)
    elif 2 * m * n * k < SERIAL_FLOPS:  # what follows would take as long as a small product
        kernel(alpha, a, b, beta, c, out, scratch(WORK_BYTES, out.dtype), 0, m, 0, n)
        return
    pieces = rectangles(m, n, k, out.itemsize)

    def run(lo: int, hi: int) -> None:
        work = scratch(WORK_BYTES, out.dtype)
        for rectangle in pieces[lo:hi]:
            kernel(alpha, a, b, beta, c, out, work, *rectangle)
            if code:
                activate(code, y, n, *rectangle)
            if residual is not None:
                add(residual, y, n, *rectangle)
    run_ranges(run, len(pieces), 1)


def _matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    (a, b), panels, out = *_single(call), outs[0]
    result = out if out.dtype == a.dtype else np.empty(out.shape, a.dtype)
    if out.ndim == 2:
        product(1.0, a, b, 0.0, None, result, panels=panels)
    else:
        places = list(np.ndindex(out.shape[:-2]))
        grain = max(1, SERIAL_FLOPS // max(1, 2 * out.shape[-2] * out.shape[-1] * a.shape[-1]))

        def run(lo: int, hi: int) -> None:
            for place in places[lo:hi]:
                product(1.0, a[place], b[place], 0.0, None, result[place], panels=panels)
        run_ranges(run, len(places), grain)
    if result is not out:
        out[...] = result


def _gemm(call: Call, outs: Sequence[np.ndarray]) -> None:
    (a, b, c), panels = _single(call)
    product(call.attrs["alpha"], a, b, call.attrs["beta"], c, outs[0], panels=panels)


def _linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    (x, w, bias, residual), panels = _single(call)
    out = outs[0]
    if residual is not None and np.may_share_memory(residual, out):
        residual = residual.copy()
    result = out if out.dtype == x.dtype else np.empty(out.shape, x.dtype)
    code = ACTIVATIONS.index(call.attrs["activation"])
    product(1.0, x, w.T, 1.0, None if bias is None else flat(bias)[None, :], result, code, residual, panels)
    if result is not out:
        out[...] = result


def _linear_backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, x, w = call.inputs
    dx, dw, dbias = outs
    product(1.0, dy, w, 0.0, None, dx)
    _weight_gradients(dy, x, dw, dbias, 0.0)


def _linear_backward_weights(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, x, dw, dbias = call.inputs
    _weight_gradients(dy, x, dw, dbias, call.attrs["beta"])


def _weight_gradients(dy: np.ndarray, x: np.ndarray, dw: np.ndarray, dbias: np.ndarray | None, beta: float) -> None:
    """dw = dy.T @ x + beta * dw; dbias, unless it is None, likewise from the column sums of dy."""
    product(1.0, dy.T, x, beta, dw if beta else None, dw)
    if dbias is None:
        return
    sums = dbias if dbias.flags.c_contiguous and not beta else np.empty(dbias.shape, dbias.dtype)
    compiled(column_sums_range, "xiiyii", dy.dtype)(flat(dy), *dy.shape, sums, 0, dy.shape[1])
    if sums is not dbias:
        dbias[...] = sums + dbias.dtype.type(beta) * dbias if beta else sums


def _naive(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b = call.inputs
    kernel = compiled(naive_range, "XXYii", a.dtype)
    for place in np.ndindex(outs[0].shape[:-2]):
        kernel(a[place], b[place], outs[0][place], 0, outs[0].shape[-2])


def _single(call: Call) -> tuple[list[Any], np.ndarray | None]:
    """The inputs, half-precision ones as float32; and the panels of a packed inputs[1], which then stays as it is."""
    panels = None
    if call.packed is not None:
        packed, transposed = call.packed
        panels = packed.form("numba_w" if transposed else "numba_b",
                             lambda matrix: _pack(matrix.T if transposed else matrix))
    return [x if x is None or (i == 1 and panels is not None) else x.astype(compute_dtype(x.dtype), copy=False)
            for i, x in enumerate(call.inputs)], panels


def _pack(b: np.ndarray) -> np.ndarray:
    """b (K, N) as the panels of packed_range."""
    dtype, (k, n) = compute_dtype(b.dtype), b.shape
    panel = NV * BYTES // dtype.itemsize
    count = -(-n // panel)
    panels = arrays.on_a_line((count, k * panel), dtype)
    compiled(pack_range, "Xyii", dtype)(b.astype(dtype, copy=False), panels.reshape(-1), 0, count)
    return panels


def _describe(call: Call) -> str:
    dtype = compute_dtype(call.dtype)
    if dtype != call.dtype:
        call.note_copy(f"{call.dtype} operands and result: converted to float32 and back")
    if call.op == "gemm" and call.inputs[2] is not None and not _contiguous_columns(call.inputs[2]):
        call.note_copy("c: its columns are not contiguous; copied into out first")
    a, b = call.inputs[:2]
    n = b.shape[0] if call.op == "linear" else b.shape[-1]
    threads = min(get_num_threads(), len(rectangles(a.shape[-2], n, a.shape[-1], dtype.itemsize)))
    ready = ", b packed beforehand" * (call.packed is not None)
    return f"{width(dtype)}, tile {MR}x{NV * BYTES // dtype.itemsize}{ready}, {threads} thread{'s' * (threads > 1)}"


KERNELS = [
    Kernel("matmul", "numba", _matmul, dtypes=FLOATS + HALVES, describe=_describe),
    Kernel("gemm", "numba", _gemm, describe=_describe),
    Kernel("linear", "numba", _linear, dtypes=FLOATS + HALVES, describe=_describe),
    Kernel("linear_backward", "numba", _linear_backward, describe=_describe),
    Kernel("linear_backward_weights", "numba", _linear_backward_weights, describe=_describe),
    Kernel("matmul", "numba", _naive, variant="naive", describe=lambda call: "three loops, one thread"),
]

__all__ = ["DOORS", "KERNELS", "gemm_into", "gemm_range", "naive_range", "product"]
