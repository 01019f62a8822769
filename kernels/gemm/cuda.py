"""The products in CUDA: which kernel a call takes, and with what. The kernels are in cuda_*.py.

All of the family is one product, out = activation(alpha · a @ b + bias) + beta · c: the gradients are products of
transposed views, and sums of columns.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tilewright.core import arrays, device
from tilewright.core.registry import FLOATS, HALVES, Call, Kernel
from tilewright.kernels.ptx.launch import blocks, scratch

from .cuda_columns import column_sums
from .cuda_ladder import SIDE, naive, tiled
from .cuda_numbers import RAW, WIDE, numbers
from .cuda_pack import packed
from .cuda_tensor import KINDS, tensor
from .cuda_tile import tile
from .cuda_vector import ACROSS, ROWS, across, dot, parts
from .spec import ACTIVATIONS

MOST_PLANES = 65535  # of a grid along z
MOST_ROWS = 65535 * SIDE  # of a grid along y, on the ladder
ALIGNMENT = 16
FILL = 128  # blocks, about those that a device runs at once
LEAST_CHUNK, MOST_CHUNKS, EVEN = 128, 32, 32  # of k, so that sums in scratch are few beside products


class Product(NamedTuple):
    """One product of matrices: a (..., M, K), b (..., K, N), out (..., M, N); c (M, N), bias (N,)."""

    a: np.ndarray
    b: np.ndarray
    out: np.ndarray
    c: np.ndarray | None = None
    bias: np.ndarray | None = None
    alpha: float = 1.0
    beta: float = 1.0
    activation: str | None = None
    precision: str | None = None


def product(p: Product) -> None:
    """Compute one."""
    if p.out.size == 0:
        return
    if p.alpha == 0:
        p = p._replace(a=p.a[..., :0], b=p.b[..., :0, :])
    if p.beta == 0:
        p = p._replace(c=None)
    for a, b, out in planes(p.a, p.b, p.out):
        (_by_vector if 1 in out.shape[1:] else _tiled)(p._replace(a=a, b=b, out=out))


def planes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The product in pieces with one leading axis, which is that of the grid."""
    if out.ndim == 2:
        yield a[None], b[None], out[None]
    elif out.ndim == 3:
        if b.strides[0] == 0 and all(x.strides[0] == x.shape[1] * x.strides[1] for x in (a, out)):
            yield _rows(a), b[:1], _rows(out)  # one matrix for all: their rows are rows of one product
            return
        for at in range(0, out.shape[0], MOST_PLANES):
            yield tuple(x[at:at + MOST_PLANES] for x in (a, b, out))  # type: ignore[misc]
    elif all(x.strides[0] == x.shape[1] * x.strides[1] for x in (a, b, out)):
        yield from planes(*(_merged(x) for x in (a, b, out)))
    else:
        for i in range(out.shape[0]):
            yield from planes(a[i], b[i], out[i])


def _merged(x: np.ndarray) -> np.ndarray:
    """The first two axes as one, by a view."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _rows(x: np.ndarray) -> np.ndarray:
    return _merged(x)[None]


def mode(x: np.ndarray) -> str | None:
    """How x (..., rows, k) is loaded 16 bytes at a time, see cuda_tile.py; None: it has to be packed for that."""
    size, lanes, (rows, k), (row, step) = x.itemsize, ALIGNMENT // x.itemsize, x.shape[-2:], x.strides[-2:]
    if arrays.address(x) % ALIGNMENT or any(v % ALIGNMENT for v in x.strides[:-2]):
        return None
    if step == size and row % ALIGNMENT == 0 and k % lanes == 0:
        return "k"
    return "r" if row == size and step % ALIGNMENT == 0 and rows % lanes == 0 else None


def _kind(dtype: str, precision: str | None) -> str | None:
    """What the tensor cores of the device are given, of cuda_tensor.py; None: they do not compute this."""
    kind, here = precision or dtype, device.current().cc
    if kind in KINDS and here >= KINDS[kind].needs:
        return kind
    return "float16_sm75" if kind == "float16" else None


def _kept(dtype: str, kind: str | None) -> str:
    """What a kernel loads: where there are no tensor cores for them, bfloat16 as float32."""
    return "tf32" if kind == "tf32" else "float32" if kind is None and dtype in HALVES else dtype


def _is_wide(x: np.ndarray | None, lanes: int) -> bool:
    """Whether x (..., rows, columns) can be accessed `lanes` columns at a time."""
    return x is None or (x.strides[-1] == x.itemsize and x.shape[-1] % lanes == 0
                         and all(v % (lanes * x.itemsize) == 0 for v in (arrays.address(x), *x.strides[:-1])))


def _steps(x: np.ndarray | None, axes: int) -> tuple[int, ...]:
    return (0,) * axes if x is None else x.strides


def _chunk(k: int, running: int) -> int:
    """How much of k a block takes, where `running` blocks take all of it: less if they do not fill a device."""
    count = max(1, min(FILL // running, k // LEAST_CHUNK, MOST_CHUNKS))
    return blocks(blocks(k, count), EVEN) * EVEN


def _tiled(p: Product) -> None:
    """By tiles of sums."""
    c, out, bias = p.c, p.out, p.bias
    (count, m, n), k, dtype = out.shape, p.a.shape[2], arrays.name_of(out.dtype)
    kind, lanes = _kind(dtype, p.precision), numbers(dtype).lanes
    (a, a_mode), (b, b_mode) = (_loadable(x, _kept(dtype, kind)) for x in (p.a, p.b.swapaxes(1, 2)))
    kernel = tile(a_mode, b_mode, dtype) if kind is None else tensor(a_mode, b_mode, kind)
    tiles = blocks(m, 32 * lanes) * blocks(n, 32 * lanes)

    def launch(chunk: int, c: Any, bias: Any, out: np.ndarray, alpha: float, flags: int, o_y: int) -> None:
        kernel.launch(
            (tiles, blocks(k, chunk) if k else 1, count), a, b, c, bias, out, alpha, p.beta if c is not None else 0.0,
            flags, m, n, k, chunk, *_strides(a), *_strides(b), *_steps(c, 2), *_steps(bias, 1), *out.strides[-2:], o_y,
            out.strides[-3])

    chunk = _chunk(k, tiles * count)
    if chunk >= k:
        wide = WIDE * (_is_wide(out, lanes) and _is_wide(c, lanes))
        launch(max(k, 1), c, bias, out, p.alpha, ACTIVATIONS.index(p.activation) | wide, 0)
        return
    sums = scratch((blocks(k, chunk), count, m, blocks(n, lanes) * lanes), numbers(dtype).real)
    launch(chunk, None, None, sums, 1.0, RAW | WIDE, sums.strides[0])
    _add_parts(p, sums)


def _loadable(x: np.ndarray, kept: str) -> tuple[np.ndarray, str]:
    """x (planes, rows, k), packed unless it can be loaded as it is, and how it is loaded."""
    found = mode(x) if arrays.name_of(x.dtype) == kept else None
    return (x, found) if found else (packed(x, kept), "k")


def _strides(x: np.ndarray) -> tuple[int, int, int]:
    """Bytes between rows, steps of k and planes, of which one may stand for all."""
    return x.strides[1], x.strides[2], x.strides[0] if x.shape[0] > 1 else 0


def _by_vector(p: Product) -> None:
    """The product of a matrix with a row or a column."""
    row = p.out.shape[1] == 1
    a, x = (p.b.swapaxes(1, 2), p.a[:, 0]) if row else (p.a, p.b[:, :, 0])
    out, c, bias = p.out[:, 0] if row else p.out[:, :, 0], p.c, p.bias
    (count, rows, k), dtype = a.shape, arrays.name_of(a.dtype)
    along = abs(a.strides[2]) <= abs(a.strides[1]) or rows == 1
    wide = WIDE * (_is_dense(a) and _is_dense(x))
    c_r = 0 if c is None else c.strides[1 if row else 0]
    bias_r = bias.strides[0] if row and bias is not None else 0

    def launch(chunk: int, c: Any, bias: Any, out: np.ndarray, alpha: float, flags: int, o_y: int) -> None:
        kernel, each = (dot, ROWS) if along else (across, ACROSS)
        kernel(dtype).launch((blocks(rows, each), blocks(k, chunk) if k else 1, count), a, x, c, bias, out, alpha,
                             p.beta if c is not None else 0.0, flags | wide, rows, k, chunk, a.strides[1],
                             a.strides[2], a.strides[0], x.strides[1], x.strides[0], c_r, bias_r, out.strides[-1], o_y,
                             out.strides[-2])

    chunk = _chunk(k, blocks(rows, ROWS if along else ACROSS) * count)
    if chunk >= k:
        launch(max(k, 1), c, bias, out, p.alpha, ACTIVATIONS.index(p.activation), 0)
        return
    sums = scratch((blocks(k, chunk), count, rows), numbers(dtype).real)
    launch(chunk, None, None, sums, 1.0, RAW, sums.strides[0])
    _add_parts(p, sums.reshape(-1, *p.out.shape))


def _is_dense(x: np.ndarray) -> bool:
    """Whether 16 bytes at a time of x's last axis can be read."""
    return x.strides[-1] == x.itemsize and all(v % ALIGNMENT == 0 for v in (arrays.address(x), *x.strides[:-1]))


def _add_parts(p: Product, sums: np.ndarray) -> None:
    """The result of sums over parts of k: (parts, planes, rows, columns and more to fill 16 bytes)."""
    out, c, bias = p.out, p.c, p.bias
    parts(arrays.name_of(out.dtype)).launch(
        (blocks(out[0].size, 256), 1, out.shape[0]), sums, c, bias, out, p.alpha, p.beta if c is not None else 0.0,
        ACTIVATIONS.index(p.activation), *out.shape[1:], sums.shape[0], *sums.strides[:3], *_steps(c, 2),
        *_steps(bias, 1), *out.strides)


# ---- operations

def _matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b = call.inputs
    product(Product(a, b, outs[0], precision=call.attrs["precision"]))


def _gemm(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b, c = call.inputs
    product(Product(a, b, outs[0], c, alpha=call.attrs["alpha"], beta=call.attrs["beta"]))


def _linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, w, bias, residual = call.inputs
    product(Product(x, w.T, outs[0], residual, bias, activation=call.attrs["activation"],
                    precision=call.attrs["precision"]))


def _linear_backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, x, w = call.inputs
    dx, dw, dbias = outs
    product(Product(dy, w, dx))
    _weight_gradients(dy, x, dw, dbias, 0.0)


def _linear_backward_weights(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, x, dw, dbias = call.inputs
    _weight_gradients(dy, x, dw, dbias, call.attrs["beta"])


def _weight_gradients(dy: np.ndarray, x: np.ndarray, dw: np.ndarray, dbias: np.ndarray | None, beta: float) -> None:
    """dw = dy.T @ x + beta · dw; dbias, unless it is None, likewise from the sums of dy's columns."""
    product(Product(dy.T, x, dw, dw if beta else None, beta=beta))
    if dbias is not None:
        column_sums(dy, dbias, beta)


def _matmul_naive(call: Call, outs: Sequence[np.ndarray]) -> None:
    _ladder(naive, call, outs[0])


def _matmul_tiled(call: Call, outs: Sequence[np.ndarray]) -> None:
    _ladder(tiled, call, outs[0])


def _ladder(step: Any, call: Call, out: np.ndarray) -> None:
    if out.size == 0:
        return
    left, right = call.inputs
    for a, b, y in planes(left, right, out):
        for at in range(0, y.shape[1], MOST_ROWS):
            operands = a[:, at:at + MOST_ROWS], b, y[:, at:at + MOST_ROWS]
            _, m, n = operands[2].shape
            step.launch((blocks(n, SIDE), blocks(m, SIDE), y.shape[0]), *operands, m, n, a.shape[2],
                        *(step for x in operands for step in x.strides))


# ---- in words

def _how(call: Call) -> str:
    a, b = call.inputs[0], call.inputs[1].T if call.op == "linear" else call.inputs[1]
    return _words(a, b, call.attrs.get("precision"))


def _how_backward(call: Call) -> str:
    dy, x, w = call.inputs
    return "; ".join(_words(a, b) for a, b in ((dy, w), (dy.T, x)))


def _how_backward_weights(call: Call) -> str:
    return _words(call.inputs[0].T, call.inputs[1])


def _words(a: np.ndarray, b: np.ndarray, precision: str | None = None) -> str:
    if a.shape[-2] == 1 or b.shape[-1] == 1:
        return "product with a vector"
    dtype = arrays.name_of(a.dtype)
    kind, side = _kind(dtype, precision), 32 * numbers(dtype).lanes
    kept = _kept(dtype, kind)
    words = f"{side}x{side} tile {'in registers' if kind is None else 'on tensor cores'}, {kept}"
    packs = [name for name, x in (("a", a), ("b", b.swapaxes(-1, -2))) if dtype != kept or not mode(x)]
    return f"{words}, after packing {' and '.join(packs)}" if packs else words


def _here(call: Call) -> str | None:
    """A packed matrix is in the host's memory; nothing is copied to the device that was not asked for."""
    if call.place is None or call.packed is None:
        return None
    return "its matrix is packed on the host; tw.to_device(packed.numpy()) is the plain one on the device"


KERNELS = [
    Kernel("matmul", "cuda", _matmul, dtypes=FLOATS + HALVES, describe=_how, supports=_here),
    Kernel("matmul", "cuda", _matmul_naive, "naive", dtypes=("float32",), supports=_here,
           describe=lambda call: "a thread an element, any strides"),
    Kernel("matmul", "cuda", _matmul_tiled, "tiled", dtypes=("float32",), supports=_here,
           describe=lambda call: "16x16 tile in shared memory"),
    Kernel("gemm", "cuda", _gemm, describe=_how, supports=_here),
    Kernel("linear", "cuda", _linear, dtypes=FLOATS + HALVES, describe=_how, supports=_here),
    Kernel("linear_backward", "cuda", _linear_backward, describe=_how_backward),
    Kernel("linear_backward_weights", "cuda", _linear_backward_weights, describe=_how_backward_weights),
]
