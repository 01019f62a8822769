"""Products of integers, and linear layers with quantized weights, in CUDA.

    operands of any strides ─> rows of bytes along k, filled up, with their sums and parameters      cuda_operands.py
                            ─> products, and what follows from a sum, in one kernel, on tensor
                               cores, or by dp4a before sm_80                      cuda_tensor.py, cuda_products.py
    x float32, weights only ─> a sum of floats for each row and column; for many rows, weights
                               that have become floats, and the product of gemm                    cuda_weights.py

Weights are brought to the device once and stay with their QuantizedMatrix.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import arrays, device
from tilewright.core.packed import PackedMatrix
from tilewright.core.registry import BYTES, Call, Kernel
from tilewright.kernels.ptx.launch import blocks

from . import cuda_products as products
from . import cuda_tensor as tensor
from . import cuda_weights as weight_only
from .cuda_operands import CHUNK
from .cuda_sides import Side, by_batch, packed, quantized_rows, side, steps, weights, whole
from .definitions import weights_of


def product(a: Side, b: Side, out: np.ndarray, activation: str | None = None, bias: np.ndarray | None = None,
            residual: np.ndarray | None = None) -> None:
    """out (…, M, N) from rows and columns; what is made of the sums follows from its dtype (cuda_finish.py)."""
    m, n = out.shape[-2:]
    of = arrays.name_of(out.dtype), activation, a.signed, b.signed
    if m <= products.FEW:
        kernel, tall, across = products.few(*of), products.FEW_ROWS, products.FEW_COLUMNS
    else:
        wide = whole(out, -1, 4) and (residual is None or whole(residual, -1, 4))
        make, tall = (tensor.tensor_tile, tensor.TILE) if _has_tensor_cores() else (products.tile, products.TILE)
        kernel, across = make(*of, wide), tall
    beside = (0, 0) if residual is None else residual.strides
    grid = blocks(m, tall), blocks(n, across)
    for av, ar, bv, br, to in by_batch(out.shape[:-2], a.values, a.records, b.values, b.records, out):
        kernel.launch((*grid, len(to)), av, bv, ar, br, bias, residual, to, m, n, blocks(av.shape[-1], CHUNK),
                      *steps(*av.strides[:2], *bv.strides[:2], ar.strides[0], br.strides[0],
                             0 if bias is None else bias.strides[0], *beside, *to.strides))


def _columns(call: Call, b: np.ndarray, zero: np.ndarray | None, scale: np.ndarray | None = None) -> Side:
    """b's columns; those of a packed b from the device."""
    if call.packed is None or not isinstance(call.packed[0], PackedMatrix):
        return side(b.swapaxes(-1, -2), zero, scale)
    return packed(call.packed[0], b.shape[:-2], zero, scale)


def _has_tensor_cores() -> bool:
    """Whether the device multiplies matrices of bytes as cuda_tensor.py has them."""
    return device.current().cc >= tensor.NEEDS


def _matmul_integer(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b, a_zero, b_zero = call.inputs
    if outs[0].size:
        product(side(a, a_zero), _columns(call, b, b_zero), outs[0])


def _qlinear_matmul(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = call.inputs
    if outs[0].size:
        product(side(a, a_zero, a_scale, y_scale, y_zero), _columns(call, b, b_zero, b_scale), outs[0])


def _quantized_linear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, _, bias, residual = call.inputs
    w, _ = weights_of(call)
    if outs[0].size == 0:
        return
    if w.method == "weight-only":
        weight_only.multiply(call, outs[0])
    else:
        product(quantized_rows(x), weights(w), outs[0], call.attrs["activation"], bias, residual)


def _qlinear(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, bias, attrs = call.inputs[0], call.inputs[4], call.attrs
    if outs[0].size == 0:
        return

    def each(value: object, dtype: type) -> np.ndarray | None:
        return None if value is None else np.broadcast_to(np.asarray(value, dtype), x.shape[:1])
    rows = side(x, each(attrs["x_zero"], np.int32), each(attrs["x_scale"], np.float32),
                each(attrs["y_scale"], np.float32), each(attrs["y_zero"], np.int32))
    product(rows, weights(weights_of(call)[0]), outs[0], attrs["activation"], bias)


def _how(call: Call) -> str:
    if call.inputs[0].shape[-2] <= products.FEW:
        return "a warp for each column, by dp4a"
    return "tiles of 128 x 128 on tensor cores" if _has_tensor_cores() else "tiles of 64 x 64 by dp4a"


def _how_linear(call: Call) -> str:
    w, _ = weights_of(call)
    if w.method == "dynamic":
        return _how(call)
    if call.inputs[0].shape[0] > weight_only.FEW:
        return f"weights of {w.bits} bits brought back to floats once, then the product of floats"
    return f"a warp for each column of weights of {w.bits} bits"


KERNELS = [
    Kernel("matmul_integer", "cuda", _matmul_integer, dtypes=BYTES, describe=_how),
    Kernel("qlinear_matmul", "cuda", _qlinear_matmul, dtypes=BYTES, describe=_how),
    Kernel("quantized_linear", "cuda", _quantized_linear, dtypes=("float32",), describe=_how_linear),
    Kernel("qlinear", "cuda", _qlinear, dtypes=BYTES, describe=_how),
]
