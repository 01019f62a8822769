"""Integer products in Numba, and linear layers on them: wrappers around product_range (blocked.py) and finish.py.

From other compiled code, serial and without the GIL, these two and the functions of finish.py:

    pack_range(b, panels, first, end)             panels of b, which is int8 or uint8
    product_range(a, a_zero, panels, shift, b_zero, out, memory, i0, i1, j0, j1)      one rectangle, int32 modulo 2^32

What the kernels cannot write directly: out with scattered elements (a stand-in, copied back).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tilewright.core.registry import BYTES, Call, Kernel
from tilewright.core.threads import get_num_threads, run_ranges
from tilewright.kernels.gemm.epilogue import activate_range, add_range
from tilewright.kernels.gemm.numba_cpu import product as float_product
from tilewright.kernels.gemm.numba_cpu import rectangles
from tilewright.kernels.gemm.spec import ACTIVATIONS
from tilewright.kernels.vector.host import INT8_ISA
from tilewright.kernels.vector.ranges import GRAIN, compiled, flat, scratch, width

from . import weights
from .blocked import MEMORY, pack_range, product_range
from .door import DOORS, PRODUCT, pack
from .finish import quantize_rows, requantize, scale_sums
from .microkernel import DEPTH, MR, NR, SHIFT
from .spec import weights_of

Finish = Callable[[np.ndarray, slice, slice], None]
SUMS_BYTES = 256 * 1024  # sums of so many rows at once stay in L2 until they are finished


class _Product:
    """(a - a_zero) @ (b - b_zero) of matrices, b already in panels; zero points (M,) and (N,), None for zeros."""

    def __init__(self, a: np.ndarray, a_zero: np.ndarray | None, panels: np.ndarray, b_dtype: np.dtype,
                 b_zero: np.ndarray | None, n: int):
        self.m, self.n, self.a, self.panels = a.shape[0], n, a, panels
        self.a_zero, self.b_zero = _zeros(a_zero, self.m), _zeros(b_zero, n)
        if self.b_zero.strides[0] not in (0, 4):
            self.b_zero = np.ascontiguousarray(self.b_zero)
        self.shift = SHIFT * (b_dtype == np.uint8)
        self.kernel = compiled(product_range, PRODUCT, a.dtype)

    def into(self, out: np.ndarray, rows: slice, columns: slice) -> None:
        """A rectangle, to an int32 matrix of its size with contiguous columns; it begins at a panel."""
        self.kernel(self.a[rows], self.a_zero[rows], self.panels[columns.start // NR:], self.shift,
                    self.b_zero[columns], out, scratch(MEMORY, np.dtype(np.uint8)), 0, out.shape[0], 0, out.shape[1])

    def whole(self, out: np.ndarray) -> None:
        """All of it."""
        self.each(lambda rows, columns: self.into(out[rows, columns], rows, columns))

    def each(self, run: Callable[[slice, slice], None]) -> None:
        """run(rows, columns) for rectangles that are the whole, on the threads that it is worth."""
        pieces = rectangles(self.m, self.n, -(-self.a.shape[1] // DEPTH), 4)

        def run_pieces(lo: int, hi: int) -> None:
            for i0, i1, j0, j1 in pieces[lo:hi]:
                run(slice(i0, i1), slice(j0, j1))
        run_ranges(run_pieces, len(pieces), 1)

    def finished(self, finish: Finish) -> None:
        """finish(sums, rows, columns) for rectangles whose sums are still in the cache."""
        def run(rows: slice, columns: slice) -> None:
            width = columns.stop - columns.start
            at_once = max(1, SUMS_BYTES // (4 * MR * max(width, 1))) * MR
            memory = scratch(4 * min(at_once, self.m) * width, np.dtype(np.int32))
            for i in range(rows.start, rows.stop, at_once):
                part = slice(i, min(i + at_once, rows.stop))
                sums = memory[:(part.stop - i) * width].reshape(part.stop - i, width)
                self.into(sums, part, columns)
                finish(sums, part, columns)
        self.each(run)


def _zeros(zero: np.ndarray | None, n: int) -> np.ndarray:
    return np.broadcast_to(np.int32(0), (n,)) if zero is None else zero


def _products(call: Call, b: np.ndarray, a_zero: Any, b_zero: Any) -> Iterator[tuple[tuple[int, ...], _Product]]:
    """The product of each place of the batch; a b that all share is packed once."""
    a, panels = call.inputs[0], None
    if call.packed is not None:
        panels = call.packed[0].form("numba_b", pack)
    for place in np.ndindex(a.shape[:-2]):
        if panels is None or any(b.strides[:-2]) and call.packed is None:
            panels = pack(b[place])
        zeros = (None if zero is None else zero[place] for zero in (a_zero, b_zero))
        yield place, _Product(a[place], next(zeros), panels, b.dtype, next(zeros), b.shape[-1])


def _whole(run: Callable[[Call, np.ndarray], None]) -> Callable[[Call, Sequence[np.ndarray]], None]:
    """A kernel's run(call, outs) from one that writes to an array in C order, which has elements."""
    def wrapper(call: Call, outs: Sequence[np.ndarray]) -> None:
        out, = outs
        if out.size and out.flags.c_contiguous:
            run(call, out)
        elif out.size:
            stand_in = np.empty(out.shape, out.dtype)
            run(call, stand_in)
            out[...] = stand_in
    return wrapper


def _matmul_integer(call: Call, out: np.ndarray) -> None:
    _, b, a_zero, b_zero = call.inputs
    for place, product in _products(call, b, a_zero, b_zero):
        product.whole(out[place])


def _contiguous(x: np.ndarray | None, n: int) -> np.ndarray:
    """n numbers that lie without gaps; float32 zeros for None."""
    return np.zeros(n, np.float32) if x is None else np.ascontiguousarray(x)


def _requantize(out: np.ndarray, row_scale: np.ndarray, column_scale: np.ndarray, bias: np.ndarray | None, relu: bool,
                y_scale: np.ndarray, y_zero: np.ndarray) -> Finish:
    """Sums to integers in a rectangle of out."""
    kernel, limits = compiled(requantize, "IsssiszYii", out.dtype), np.iinfo(out.dtype)
    columns_at_once, addend = _contiguous(column_scale, out.shape[1]), _contiguous(bias, out.shape[1])

    def finish(sums: np.ndarray, rows: slice, columns: slice) -> None:
        kernel(sums, row_scale[rows], columns_at_once[columns], addend[columns], relu, y_scale[rows], y_zero[rows],
               out[rows, columns], limits.min, limits.max)
    return finish


def _qlinear_matmul(call: Call, out: np.ndarray) -> None:
    _, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = call.inputs
    for place, product in _products(call, b, a_zero, b_zero):
        product.finished(_requantize(out[place], a_scale[place], b_scale[place], None, False, y_scale[place],
                                     y_zero[place]))


def _layer(call: Call, x: np.ndarray, x_zero: np.ndarray) -> tuple[_Product, np.ndarray]:
    """The product of integers x (R, K) and a QuantizedMatrix, and the scales of its rows."""
    w, zeros = weights_of(call)
    panels = w.form("numba", lambda matrix: pack(matrix.values.T))
    return _Product(x, x_zero, panels, w.values.dtype, zeros, w.shape[0]), w.scales[:, 0]


def _to_floats(product: _Product, out: np.ndarray, scales: tuple[np.ndarray, np.ndarray], bias: np.ndarray | None,
               activation: str | None, residual: np.ndarray | None) -> None:
    """out, C-contiguous: the sums, which lie there first; then scaled, bias, activation and residual."""
    code, (row_scale, column_scale), n = ACTIVATIONS.index(activation), scales, out.shape[1]
    scale, activate, add = (compiled(scale_sums, "Tsss", out.dtype), compiled(activate_range, "iyiiiii", out.dtype),
                            compiled(add_range, "Xyiiiii", out.dtype))
    column_scale, addend = _contiguous(column_scale, n), _contiguous(bias, n)
    sums, y = out.view(np.int32), out.reshape(-1)

    def run(rows: slice, columns: slice) -> None:
        product.into(sums[rows, columns], rows, columns)
        scale(out[rows, columns], row_scale[rows], column_scale[columns], addend[columns])
        place = rows.start, rows.stop, columns.start, columns.stop
        if code:
            activate(code, y, n, *place)
        if residual is not None:
            add(residual, y, n, *place)
    product.each(run)


def _finish_floats(out: np.ndarray, bias: np.ndarray | None, activation: str | None,
                   residual: np.ndarray | None) -> None:
    """out, C-contiguous: + bias, activation, + residual."""
    activate, add = compiled(activate_range, "iyiiiii", out.dtype), compiled(add_range, "Xyiiiii", out.dtype)
    (m, n), y = out.shape, out.reshape(-1)
    if bias is not None:
        add(np.broadcast_to(bias, out.shape), y, n, 0, m, 0, n)
    if activation is not None:
        activate(ACTIVATIONS.index(activation), y, n, 0, m, 0, n)
    if residual is not None:
        add(residual, y, n, 0, m, 0, n)


def _quantized_linear(call: Call, out: np.ndarray) -> None:
    x, _, bias, residual = call.inputs
    w, activation = weights_of(call)[0], call.attrs["activation"]
    if residual is not None and np.may_share_memory(residual, out):
        residual = residual.copy()
    if w.method == "weight-only":
        if weights.multiply(x, w, out):
            _finish_floats(out, bias, activation, residual)
        else:
            addend = None if bias is None else flat(bias)[None, :]
            float_product(1.0, x, w.dequantize().T, 1.0, addend, out, ACTIVATIONS.index(activation), residual)
        return
    if x.strides[1] != x.itemsize:
        x = np.ascontiguousarray(x)
    rows, k = x.shape
    q, scale, zero = np.empty(x.shape, np.uint8), np.empty((rows, 1), np.float32), np.empty((rows, 1), np.int32)
    kernel = compiled(quantize_rows, "SYTJii", q.dtype)
    run_ranges(lambda lo, hi: kernel(x, q, scale, zero, lo, hi), rows, max(1, GRAIN // max(k, 1)))
    product, column_scale = _layer(call, q, zero[:, 0])
    _to_floats(product, out, (scale[:, 0], column_scale), bias, activation, residual)


def _qlinear(call: Call, out: np.ndarray) -> None:
    x, bias, attrs = call.inputs[0], call.inputs[4], call.attrs

    def each_row(value: Any, dtype: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, dtype), (x.shape[0],))
    product, column_scale = _layer(call, x, each_row(attrs["x_zero"], np.int32))
    row_scale = each_row(attrs["x_scale"], np.float32)
    if out.dtype == np.float32:
        _to_floats(product, out, (row_scale, column_scale), bias, attrs["activation"], None)
    else:
        product.finished(_requantize(out, row_scale, column_scale, bias, attrs["activation"] == "relu",
                                     each_row(attrs["y_scale"], np.float32), each_row(attrs["y_zero"], np.int32)))


def _describe(call: Call) -> str:
    if call.op == "quantized_linear" and weights_of(call)[0].method == "weight-only":
        return f"{width(call.dtype)}, panels of {weights.WIDTH} columns"
    a, n = call.inputs[0], call.outputs[0][0][-1]
    if call.packed is not None:
        n = call.packed[0].shape[not call.packed[1]]
    threads = min(get_num_threads(), len(rectangles(a.shape[-2], n, -(-a.shape[-1] // DEPTH), 4)))
    ready = ", b packed beforehand" * (call.packed is not None)
    return f"{INT8_ISA}, tile {MR}x{NR}, {DEPTH} deep{ready}, {threads} thread{'s' * (threads > 1)}"


KERNELS = [
    Kernel("matmul_integer", "numba", _whole(_matmul_integer), dtypes=BYTES, describe=_describe),
    Kernel("qlinear_matmul", "numba", _whole(_qlinear_matmul), dtypes=BYTES, describe=_describe),
    Kernel("quantized_linear", "numba", _whole(_quantized_linear), dtypes=("float32",), describe=_describe),
    Kernel("qlinear", "numba", _whole(_qlinear), dtypes=BYTES, describe=_describe),
]

__all__ = ["DOORS", "KERNELS", "pack_range", "product_range"]
