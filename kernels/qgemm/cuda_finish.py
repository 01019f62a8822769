"""From a sum of products to a result, in CUDA: what every kernel of the family does at its end, for one element.

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
from tilewright.kernels.quantize.cuda_elements import quantized

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
def four_at(at):
    """Four words of global memory."""
    return ptx.ldg_u32x4(at)


@inline
def centred(dot, row, column):
    """The sum of products without zero points; the records of cuda_operands.py"""
    subtracted = uint32(uint32(column[0] * row[3]) + uint32(row[0] * column[1]))
    return int32(uint32(dot - subtracted))


@inline
def real(dot, row, column, bias):
    """float32(total) · scales + bias"""
    scale = ptx.mul_rn(ptx.bits_f32(row[2]), ptx.bits_f32(column[2]))
    return ptx.add_rn(ptx.mul_rn(float32(centred(dot, row, column)), scale), bias)


def finish(kind: str, name: str | None) -> Any:
    """(dot, record, column, bias, residual, out): one result to the address `out`; record: the address of the row's."""
    f = activation(name)

    @inline
    def integer(dot, record, column, bias, residual, out):
        ptx.stg_u32(out, uint32(centred(dot, four_at(record), column)))

    @inline
    def floating(dot, record, column, bias, residual, out):
        y = f(real(dot, four_at(record), column, bias))
        ptx.stg_f32(out, ptx.add_rn(y, ptx.ldg_f32(residual)) if residual != uint64(0) else y)

    if kind == "int32":
        return integer
    if kind == "float32":
        return floating
    info = np.iinfo(kind)
    low, high = np.int32(info.min), np.int32(info.max)

    @inline
    def small(dot, record, column, bias, residual, out):
        y, grid = f(real(dot, four_at(record), column, bias)), four_at(record + uint64(16))
        ptx.stg_u8(out, uint32(quantized(y, ptx.bits_f32(grid[0]), int32(grid[1]), low, high)))
    return small


def finish_tile(kind: str, name: str | None, wide: int, pitch: int, threads: int) -> Any:
    """Make results of the sums that a block has left in shared memory, `wide` columns in rows of `pitch` words.

    A thread keeps to one column, whose parameters it reads once, and a warp to one row, whose results lie together.
    """
    end = finish(kind, name)

    @inline
    def finished(memory, tall, first_row, first_column, m, n, rows, columns, bias, residual, out, bias1, residual1,
                 residual2, out1, out2):
        across = uint32(uint32(cuda.threadIdx.x) % uint32(wide))
        down, column = uint32(uint32(cuda.threadIdx.x) // uint32(wide)), uint32(first_column + across)
        if column < n:
            line = four_at(columns + uint64(column) * uint64(RECORD_BYTES))
            offset = -float32(0)  # adding it changes nothing
            if bias != uint64(0):
                offset = ptx.ldg_f32(bias + uint64(column) * bias1)
            out += uint64(column) * out2
            while down < tall and uint32(first_row + down) < m:
                row, beside = uint64(uint32(first_row + down)), residual
                if residual != uint64(0):
                    beside = residual + row * residual1 + uint64(column) * residual2
                dot = ptx.lds_u32(uint32(memory + uint32(uint32(uint32(down * uint32(pitch)) + across) * uint32(4))))
                end(dot, rows + row * uint64(RECORD_BYTES), line, offset, beside, out + row * out1)
                down = uint32(down + uint32(threads // wide))
    return finished
