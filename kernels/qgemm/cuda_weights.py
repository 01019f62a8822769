"""Rows of float32 times weights of 8 or 4 bits in CUDA; for few rows, no more bytes from memory than the weights have.

    out[i, j] = activation(sum_g scale[j, g] · sum_p x[i, p] · (v[j, p] - zero[j, g]) + bias[j]) + residual[i, j]

    values     [j][chunk]     16 bytes: 16 v or 32 of 4 bits, the first lowest, each raised to be unsigned; groups are
                              filled up to whole chunks
    factors    [j][g]         scale, and what to subtract from a raised v: 2^23, the raise and the zero point

A warp takes a column and up to 4 rows, a lane every 32nd chunk: one load of 128 bits. v becomes a float by the bits of
2^23 + v, and loses the zero point in one exact subtraction, so that x · v of an infinite x is what it should be. Lanes
are summed in one fixed order. Each four rows read the weights again: for more than 16, scale · (v - zero) goes to
scratch memory, once, and from there into the product of floats.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.registry import Call
from tilewright.kernels.gemm.cuda import Product, product
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import warp
from tilewright.kernels.ptx.cuda import cuda, float32, inline, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel, scratch, specialise

from .cuda_finish import activation
from .cuda_operands import CHUNK, four_floats
from .cuda_sides import kept, steps, whole

THREADS = 256
COLUMNS = 8  # of a block, a warp each
ROWS = 4
FEW = 16  # rows; with more, weights become float32 first
FLOAT_BITS = 0x4B000000  # of 2^23, whose last bit counts 1


def _four(whole: bool) -> Any:
    """(x, step, k, limit, p): elements p ... p + 3 of a row of k, 0 from `limit` on."""
    read, one = four_floats(whole), 0 if whole else 1  # whole: all four are below the limit, or none

    @inline
    def four(x, step, k, limit, p):
        a, b, c, d = read(x, step, k, p)
        return (a if p < limit else float32(0), b if uint32(p + uint32(one)) < limit else float32(0),
                c if uint32(p + uint32(2 * one)) < limit else float32(0),
                d if uint32(p + uint32(3 * one)) < limit else float32(0))
    return four


def _weight(bits: int) -> Any:
    """(word, at, lowest): element `at` of a word of weights, as a float, without its zero point."""
    mask = uint32((1 << bits) - 1)

    @inline
    def weight(word, at, lowest):
        return ptx.bits_f32(uint32(uint32(uint32(word >> uint32(at * bits)) & mask) | uint32(FLOAT_BITS))) - lowest
    return weight


def _products(bits: int, whole: bool) -> Any:
    """Add the products of one word of weights, k from p on, to `parts`, one sum for each row."""
    weight, four = _weight(bits), _four(whole)

    @inline
    def of_four(word, at, lowest, x, x1, x2, rows, k, limit, p, parts):
        e, f, g, h = (weight(word, at, lowest), weight(word, at + 1, lowest), weight(word, at + 2, lowest),
                      weight(word, at + 3, lowest))
        for i in range(ROWS):
            if i == 0 or uint32(i) < rows:
                a, b, c, d = four(x + uint64(i) * x1, x2, k, limit, p)
                parts[i] = cuda.fma(d, h, cuda.fma(c, g, cuda.fma(b, f, cuda.fma(a, e, parts[i]))))

    @inline
    def of_eight(word, lowest, x, x1, x2, rows, k, limit, p, parts):
        of_four(word, 0, lowest, x, x1, x2, rows, k, limit, p, parts)
        of_four(word, 4, lowest, x, x1, x2, rows, k, limit, uint32(p + uint32(4)), parts)

    @inline
    def of_bytes(word, lowest, x, x1, x2, rows, k, limit, p, parts):
        of_four(word, 0, lowest, x, x1, x2, rows, k, limit, p, parts)
    return of_bytes if bits == 8 else of_eight


@specialise((8, None, True), (4, None, False), (4, "gelu", True))
def weighted(bits: int, name: str | None, whole: bool):
    """whole: a group has 4 n of a row, and so has k, and four x of a row lie at a multiple of 16 bytes"""
    products, f = _products(bits, whole), activation(name)
    depth, word = 8 * CHUNK // bits, 32 // bits  # k of a chunk and of a word

    @kernel("r x, r values, r factors, r bias, r residual, w out, u32 m, u32 n, u32 k, u32 group, u32 groups, "
            "u32 each, u64 x1, u64 x2, u64 bias1, u64 residual1, u64 residual2, u64 out1, u64 out2",
            threads=THREADS)
    def weighted(x, values, factors, bias, residual, out, m, n, k, group, groups, each, x1, x2, bias1,
                 residual1, residual2, out1, out2):
        lane = uint32(cuda.threadIdx.x & uint32(31))
        column = uint32(uint32(uint32(cuda.blockIdx.x) * uint32(COLUMNS)) + uint32(cuda.threadIdx.x >> uint32(5)))
        first = uint32(uint32(cuda.blockIdx.y) * uint32(ROWS))
        rows = min(uint32(ROWS), uint32(m - first))
        if column < n:
            x += uint64(first) * x1
            chunks = uint32(groups * each)
            values += uint64(column) * uint64(chunks) * uint64(CHUNK)
            factors += uint64(column) * uint64(groups) * uint64(8)
            sums, parts = cuda.local.array(ROWS, float32), cuda.local.array(ROWS, float32)
            for i in range(ROWS):
                sums[i] = float32(0)
            chunk = lane
            while chunk < chunks:
                g = uint32(chunk // each)
                p = uint32(uint32(g * group) + uint32(uint32(chunk - uint32(g * each)) * uint32(depth)))
                limit = min(k, uint32(uint32(g + uint32(1)) * group))
                scale, lowest = ptx.ldg_f32x2(factors + uint64(g) * uint64(8))
                a, b, c, d = ptx.ldg_u32x4(values + uint64(chunk) * uint64(CHUNK))
                for i in range(ROWS):
                    parts[i] = float32(0)
                products(a, lowest, x, x1, x2, rows, k, limit, p, parts)
                products(b, lowest, x, x1, x2, rows, k, limit, uint32(p + uint32(word)), parts)
                products(c, lowest, x, x1, x2, rows, k, limit, uint32(p + uint32(2 * word)), parts)
                products(d, lowest, x, x1, x2, rows, k, limit, uint32(p + uint32(3 * word)), parts)
                for i in range(ROWS):
                    sums[i] = cuda.fma(scale, parts[i], sums[i])
                chunk = uint32(chunk + uint32(32))
            for i in range(ROWS):
                sums[i] = warp.warp_sum(sums[i])
            y = sums[0] if lane == uint32(0) else sums[1] if lane == uint32(1) else (
                sums[2] if lane == uint32(2) else sums[3])
            if lane < rows:
                if bias != uint64(0):
                    y += ptx.ldg_f32(bias + uint64(column) * bias1)
                y = f(y)
                row = uint64(uint32(first + lane))
                if residual != uint64(0):
                    y += ptx.ldg_f32(residual + row * residual1 + uint64(column) * residual2)
                ptx.stg_f32(out + row * out1 + uint64(column) * out2, y)
    return weighted


@specialise((8, True), (4, False))
def dequantized(bits: int, whole: bool):
    """out[j, p] = scale · (v - zero), a thread for four v. whole: a group has 4 n of them, and so has k"""
    load, weight = ptx.ldg_u32 if bits == 8 else ptx.ldg_u16, _weight(bits)

    @kernel("r values, r factors, w out, u32 n, u32 k, u32 group, u32 groups, u32 each", threads=THREADS)
    def dequantized(values, factors, out, n, k, group, groups, each):
        """each: fours of a group, as they are filled up"""
        i, column = (uint32(uint32(uint32(cuda.blockIdx.y) * uint32(THREADS)) + uint32(cuda.threadIdx.x)),
                     uint64(uint32(cuda.blockIdx.x)))
        if i < uint32(groups * each):
            g = uint32(i // each)
            p = uint32(uint32(g * group) + uint32(uint32(i - uint32(g * each)) * uint32(4)))
            limit = min(k, uint32(uint32(g + uint32(1)) * group))
            scale, lowest = ptx.ldg_f32x2(factors + (column * uint64(groups) + uint64(g)) * uint64(8))
            word = uint32(load(values + (column * uint64(groups) * uint64(each) + uint64(i)) * uint64(bits // 2)))
            a, b, c, d = (ptx.mul_rn(weight(word, 0, lowest), scale), ptx.mul_rn(weight(word, 1, lowest), scale),
                          ptx.mul_rn(weight(word, 2, lowest), scale), ptx.mul_rn(weight(word, 3, lowest), scale))
            out += (column * uint64(k) + uint64(p)) * uint64(4)
            if whole:
                if p < limit:
                    ptx.stg_f32x4(out, a, b, c, d)
            else:
                for at in range(4):
                    if uint32(p + uint32(at)) < limit:
                        ptx.stg_f32(out + uint64(4 * at), (a, b, c, d)[at])
    return dequantized


# ---- from Python

def _scheme(w: QuantizedMatrix) -> tuple[int, int, int]:
    """k of a group, groups, chunks of a group."""
    k = w.shape[1]
    group = min(w.group_size or max(k, 1), max(k, 1))
    return group, -(-k // group), -(-group // (8 * CHUNK // w.bits))


def _form(w: QuantizedMatrix) -> tuple[np.ndarray, np.ndarray]:
    """See the head of this file."""
    (n, k), (group, groups, each) = w.shape, _scheme(w)
    raised = 1 << w.bits - 1
    whole = np.zeros((n, groups * group), np.uint8)
    whole[:, :k] = w.integers().astype(np.int16) + raised
    filled: np.ndarray = np.zeros((n, groups, each * 8 * CHUNK // w.bits), np.uint8)
    filled[:, :, :group] = whole.reshape(n, groups, group)
    if w.bits == 4:
        filled = filled[..., ::2] | filled[..., 1::2] << 4
    factors = np.empty((n, groups, 2), np.float32)
    factors[..., 0] = w.scales[:, :groups]
    factors[..., 1] = 2.0 ** 23 + raised + (0 if w.zero_points is None else w.zero_points[:, :groups])
    return np.ascontiguousarray(filled), factors


def multiply(call: Call, out: np.ndarray) -> None:
    """quantized_linear for a matrix of the method "weight-only"."""
    assert call.packed is not None
    (x, _, bias, residual), w = call.inputs, call.packed[0]
    group, groups, each = _scheme(w)
    values, factors = kept(w, "cuda", _form)
    (m, n), k = out.shape, x.shape[1]
    if m > FEW:
        floats = scratch((n, k), np.float32)
        fours = 2 * CHUNK // w.bits * each  # of v in a group
        dequantized(w.bits, k % 4 == 0 and group % 4 == 0).launch(
            (n, blocks(groups * fours, THREADS)), values, factors, floats, n, k, group, groups, fours)
        product(Product(x, floats.T, out, residual, bias, activation=call.attrs["activation"]))
        return
    fours = k > 0 and group % 4 == 0 and whole(x, -1, 4)
    weighted(w.bits, call.attrs["activation"], fours).launch(
        (blocks(n, COLUMNS), blocks(m, ROWS)), x, values, factors, bias, residual, out, m, n, k, group,
        groups if k else 0, each, *steps(*x.strides, 0 if bias is None else bias.strides[0],
                                         *((0, 0) if residual is None else residual.strides), *out.strides))
