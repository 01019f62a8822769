"""From a sum of products to a result, in CUDA: what every kernel of the family does at its end.

    int32            total, zero points subtracted
    float32          activation(float32(total) * (row's scale * column's scale) + bias) + residual
    int8, uint8      that, without residual, on the row's grid for results

Each operation rounds by itself. Activation and kind are constants of the kernel.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.kernels.activation.cuda_functions import functions
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, inline, int32, uint32, uint64
from tilewright.kernels.quantize.cuda_elements import four_bytes, quantized

from .cuda_operands import RECORD

RECORD_BYTES = 4 * RECORD
PARAMETER = {"leaky_relu": 0.01, "elu": 1.0}  # the defaults of those that have one


@inline
def same(x):
    return x


def activation(name: str | None) -> Any:
    """f(x) for a float32."""
    if name is None:
        return same
    f, p = functions(np.float32)[name], np.float32(PARAMETER.get(name, 0.0))

    @inline
    def applied(x):
        return f(x, p)
    return applied


@inline
def centred(dot, row, zero, total):
    """The sum of products without zero points; of the column, its zero point and sum; row: `row_at`"""
    return int32(uint32(dot - uint32(uint32(zero * row[3]) + uint32(row[0] * total))))


@inline
def real(dot, row, zero, total, scale, bias):
    """float32(sum) · scales + bias"""
    scales = ptx.mul_rn(ptx.bits_f32(row[2]), ptx.bits_f32(scale))
    return ptx.add_rn(ptx.mul_rn(float32(centred(dot, row, zero, total)), scales), bias)


def finish(kind: str, name: str | None) -> tuple[Any, Any]:
    """(row_at, value): a row's record from its address; the bits of one result.

    value(dot, row, zero, total, scale, bias, residual): the middle three are a column's, as in its record. What there
    is not of bias and residual is -0, which changes nothing.
    """
    f = activation(name)

    @inline
    def row_at(record):
        a, b, c, d = ptx.ldg_u32x4(record)
        return a, b, c, d, uint32(0), uint32(0)

    @inline
    def row_with_grid_at(record):
        a, b, c, d = ptx.ldg_u32x4(record)
        e, f = ptx.ldg_u32x2(record + uint64(16))
        return a, b, c, d, e, f

    @inline
    def integer(dot, row, zero, total, scale, bias, residual):
        return uint32(centred(dot, row, zero, total))

    @inline
    def floating(dot, row, zero, total, scale, bias, residual):
        return ptx.f32_bits(ptx.add_rn(f(real(dot, row, zero, total, scale, bias)), residual))

    if kind in ("int32", "float32"):
        return row_at, integer if kind == "int32" else floating
    info = np.iinfo(kind)
    low, high = np.int32(info.min), np.int32(info.max)

    @inline
    def small(dot, row, zero, total, scale, bias, residual):
        y = f(real(dot, row, zero, total, scale, bias))
        return uint32(quantized(y, ptx.bits_f32(row[4]), int32(row[5]), low, high))
    return row_with_grid_at, small


@inline
def put_four_bytes(out, a, b, c, d):
    ptx.stg_u32(out, four_bytes(a, b, c, d))


def stores(kind: str) -> tuple[Any, Any]:
    """Of the bits of one result, and of four neighbours."""
    return (ptx.stg_u32, ptx.stg_u32x4) if kind in ("int32", "float32") else (ptx.stg_u8, put_four_bytes)


@inline
def optional(x, at):
    """A float32 that is added, or -0, which changes nothing, where there is none"""
    return ptx.ldg_f32(x + at) if x != uint64(0) else -float32(0)


def finish_tile(kind: str, name: str | None, wide: bool, across: int, pitch: int, threads: int) -> Any:
    """Make results of the sums that a block has left in shared memory, 4 · across columns in rows of `pitch` words.

    A thread keeps to four columns, whose parameters it reads once. wide: they are neighbours, and four of the results,
    or of the residual, are one access; else every `across`-th, so that those of a warp meet in the same sectors.
    """
    row_at, value = finish(kind, name)
    put, put_four = stores(kind)
    biased, added = kind != "int32", kind == "float32"  # what may be given
    step, each = (1, 4) if wide else (across, 1)

    if wide:
        @inline
        def read(sums, at):
            sums[0], sums[1], sums[2], sums[3] = ptx.lds_u32x4(at)

        @inline
        def add(old, residual, first, n, residual2):
            if first < n:
                old[0], old[1], old[2], old[3] = ptx.ldg_f32x4(residual + uint64(first) * uint64(4))

        @inline
        def write(out, results, first, n, out2):
            if first < n:
                put_four(out + uint64(first) * out2, results[0], results[1], results[2], results[3])
    else:
        @inline
        def read(sums, at):
            for j in range(4):
                sums[j] = ptx.lds_u32(uint32(at + uint32(4 * j * across)))

        @inline
        def add(old, residual, first, n, residual2):
            for j in range(4):
                column = uint32(first + uint32(j * across))
                if column < n:
                    old[j] = ptx.ldg_f32(residual + uint64(column) * residual2)

        @inline
        def write(out, results, first, n, out2):
            for j in range(4):
                column = uint32(first + uint32(j * across))
                if column < n:
                    put(out + uint64(column) * out2, results[j])

    @inline
    def finished(memory, tall, first_row, first_column, m, n, rows, columns, bias, residual, out, bias1, residual1,
                 residual2, out1, out2):
        down, place = (uint32(uint32(cuda.threadIdx.x) // uint32(across)),
                       uint32(uint32(uint32(cuda.threadIdx.x) % uint32(across)) * uint32(each)))
        first = uint32(first_column + place)
        zeros, totals = cuda.local.array(4, uint32), cuda.local.array(4, uint32)
        scales, biases = cuda.local.array(4, uint32), cuda.local.array(4, float32)
        sums, old = cuda.local.array(4, uint32), cuda.local.array(4, float32)
        for j in range(4):
            column = uint64(min(uint32(first + uint32(j * step)), uint32(n - uint32(1))))
            zeros[j], totals[j], scales[j], _ = ptx.ldg_u32x4(columns + column * uint64(RECORD_BYTES))
            biases[j] = optional(bias, column * bias1) if biased else -float32(0)
        stop = min(int32(tall), int32(m - first_row))
        while int32(down) < stop:
            row = uint64(uint32(first_row + down))
            line = row_at(rows + row * uint64(RECORD_BYTES))
            read(sums, uint32(memory + uint32(uint32(uint32(down * uint32(pitch)) + place) * uint32(4))))
            for j in range(4):
                old[j] = -float32(0)
            if added and residual != uint64(0):
                add(old, residual + row * residual1, first, n, residual2)
            for j in range(4):
                sums[j] = value(sums[j], line, zeros[j], totals[j], scales[j], biases[j], old[j])
            write(out + row * out1, sums, first, n, out2)
            down = uint32(down + uint32(threads // across))
    return finished
