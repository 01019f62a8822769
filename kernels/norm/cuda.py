"""layer_norm and rms_norm in CUDA, forward and backward: one pass over memory where a row fits into registers.

How a row is taken stands in kernels/ptx/rows.py. The deviation is taken from the mean, in a second pass over what is
held: exact where the mean is far above it.

Backward, a team takes `own` rows, one after the other, and adds up what they give to dweight and dbias where it holds
the columns anyway. Each team leaves a row of such sums, which a second launch adds in their order; how many teams there
are depends on the shape alone.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, launch, maps, rows
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, inline, uint32, uint64
from tilewright.kernels.ptx.launch import Specialised, blocks, kernel, specialise

TEAMS = 512  # blocks that share the rows: each leaves sums, and too few would leave multiprocessors idle
COLUMNS, ACROSS = 32, 32  # a block of column sums: columns, and threads that share the rows


def parameter_of(t: Any) -> Any:
    """read for a parameter as long as a row; where it has no address, it becomes what it is filled with."""
    items, read = t.items, t.read

    @inline
    def parameter(v, address, first, lane, n, step, fill):
        if address != uint64(0):
            read(v, address, first, lane, n, step, fill)
        else:
            for k in range(items):
                v[k] = fill
    return parameter


def moments_of(t: Any, real: Any, centre: bool) -> Any:
    """(v, x, ...) -> (mean, 1 / sqrt(variance + eps)) of a row, as a device function; v holds what was read last.

    share: 1 / n, from the host, as divisions are slow.
    """
    items, held, piece, read, end, index, team_sum = t.items, t.held, t.piece, t.read, t.end, t.index, t.sum
    zero, one = real(0), real(1)

    @inline
    def moments(v, x, lane, n, step, share, eps, part, other):
        mean, total, first = zero, zero, uint32(0)
        if held:
            read(v, x, first, lane, n, step, zero)
        if centre:
            while True:
                if not held:
                    read(v, x, first, lane, n, step, zero)
                for k in range(items):
                    mean += v[k]
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
            mean = team_sum(mean, part) * share
        first = uint32(0)
        while True:
            if not held:
                read(v, x, first, lane, n, step, zero)
            for k in range(items):
                d = v[k] - mean
                if not centre or index(first, lane, k) < n:
                    total = cuda.fma(d, d, total)
            first = uint32(first + uint32(piece))
            if first >= end(n):
                break
        return mean, one / math.sqrt(cuda.fma(team_sum(total, other), share, eps))
    return moments


def _forward(centre: bool, dtype: str, layout: str, size: str) -> launch.Kernel:
    real, f = rows.REAL[dtype], maps.NUMBER[rows.REAL[dtype]]
    t, zero, one = rows.team(real, layout, size), real(0), real(1)
    items, held, piece, read, write, end = t.items, t.held, t.piece, t.read, t.write, t.end
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real
    moments, parameter = moments_of(t, real, centre), parameter_of(t)

    @kernel(f"r x, w y, r weight, r bias, i64 weight_step, i64 bias_step, {f} share, {f} eps, "
            f"{rows.COUNTS}, {rows.steps('x', 'y')}", threads=rows.threads_of(size))
    def forward(x, y, weight, bias, weight_step, bias_step, share, eps, count, rows, n, x0, x1, x2, y0, y1, y2):
        row, lane = number(), lane_of()
        part, other = cuda.shared.array(32, number_type), cuda.shared.array(32, number_type)
        v = cuda.local.array(items, number_type)
        w, b = cuda.local.array(items, number_type), cuda.local.array(items, number_type)
        if inside(row, count):
            x += place(row, rows, x0, x1)
            y += place(row, rows, y0, y1)
            mean, scale = moments(v, x, lane, n, x2, share, eps, part, other)
            first = uint32(0)
            while True:
                if not held:
                    read(v, x, first, lane, n, x2, zero)
                parameter(w, weight, first, lane, n, weight_step, one)
                if centre:
                    parameter(b, bias, first, lane, n, bias_step, zero)
                for k in range(items):
                    v[k] = cuda.fma((v[k] - mean) * scale, w[k], b[k]) if centre else v[k] * scale * w[k]
                write(v, y, first, lane, n, y2)
                first = uint32(first + uint32(piece))
                if first >= end(n):
                    break
    return forward


@specialise(*rows.EXAMPLES)
def layer_norm(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _forward(True, dtype, layout, size)


@specialise(*rows.EXAMPLES)
def rms_norm(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _forward(False, dtype, layout, size)


def _backward(centre: bool, dtype: str, layout: str, size: str) -> launch.Kernel:
    """dx = scale (g - mean g - y mean(g y)), g = dy weight, y = (x - mean) scale; mean g only if centre.

    dweight, dbias: a row of n sums for each team.
    """
    real, f = rows.REAL[dtype], maps.NUMBER[rows.REAL[dtype]]
    t, zero, one, itemsize = rows.team(real, layout, size), real(0), real(1), np.dtype(real).itemsize
    items, held, piece, read, write, end, team_sum = t.items, t.held, t.piece, t.read, t.write, t.end, t.sum
    number, inside, lane_of, place, number_type = t.number, t.inside, t.lane, rows.place, t.real
    moments, parameter, add = moments_of(t, real, centre), parameter_of(t), t.add

    @kernel(f"r dy, r x, w dx, r weight, i64 weight_step, w dweight, w dbias, {f} share, {f} eps, u32 own, "
            f"{rows.COUNTS}, {rows.steps('d', 'x', 'y')}", threads=rows.threads_of(size),
            blocks_per_sm=2 if size == "long" else None)  # else ptxas spills rather than take more than 80 registers
    def backward(dy, x, dx, weight, weight_step, dweight, dbias, share, eps, own, count, rows, n,
                 d0, d1, d2, x0, x1, x2, y0, y1, y2):
        team, lane = number(), lane_of()
        part, other = cuda.shared.array(32, number_type), cuda.shared.array(32, number_type)
        v = cuda.local.array(items, number_type)
        d, w = cuda.local.array(items, number_type), cuda.local.array(items, number_type)
        dw, db = cuda.local.array(items, number_type), cuda.local.array(items, number_type)
        row = uint32(team * own)
        last = min(uint32(row + own), count)
        dweight += uint64(team) * uint64(n) * uint64(itemsize)
        dbias += uint64(team) * uint64(n) * uint64(itemsize)
        begun = uint32(0)
        if inside(row, last):
            for k in range(items):
                dw[k], db[k] = zero, zero
            if held:
                parameter(w, weight, uint32(0), lane, n, weight_step, one)
            while True:
                x_row, dy_row = x + place(row, rows, x0, x1), dy + place(row, rows, d0, d1)
                dx_row = dx + place(row, rows, y0, y1)
                if held:
                    read(d, dy_row, uint32(0), lane, n, d2, zero)
                mean, scale = moments(v, x_row, lane, n, x2, share, eps, part, other)
                sum_g, sum_gy, first = zero, zero, uint32(0)
                while True:
                    if not held:
                        read(v, x_row, first, lane, n, x2, zero)
                        read(d, dy_row, first, lane, n, d2, zero)
                        parameter(w, weight, first, lane, n, weight_step, one)
                        for k in range(items):
                            dw[k], db[k] = zero, zero
                    for k in range(items):
                        y, g = (v[k] - mean) * scale, d[k] * w[k]
                        dw[k] = cuda.fma(d[k], y, dw[k])
                        sum_gy = cuda.fma(g, y, sum_gy)
                        if centre:
                            db[k] += d[k]
                            sum_g = cuda.fma(d[k], w[k], sum_g)  # NVVM 13 fails on sum_g + g, for some sizes
                    if not held:
                        add(dw, dweight, first, lane, n, itemsize, begun)
                        if centre:
                            add(db, dbias, first, lane, n, itemsize, begun)
                    first = uint32(first + uint32(piece))
                    if first >= end(n):
                        break
                mean_gy, mean_g = team_sum(sum_gy, part) * share, zero
                if centre:
                    mean_g = team_sum(sum_g, other) * share
                first = uint32(0)
                while True:
                    if not held:
                        read(v, x_row, first, lane, n, x2, zero)
                        read(d, dy_row, first, lane, n, d2, zero)
                        parameter(w, weight, first, lane, n, weight_step, one)
                    for k in range(items):
                        v[k] = (d[k] * w[k] - mean_g - (v[k] - mean) * scale * mean_gy) * scale
                    write(v, dx_row, first, lane, n, y2)
                    first = uint32(first + uint32(piece))
                    if first >= end(n):
                        break
                row, begun = uint32(row + uint32(1)), uint32(1)
                if row >= last:
                    break
            if held:
                write(dw, dweight, uint32(0), lane, n, itemsize)
                if centre:
                    write(db, dbias, uint32(0), lane, n, itemsize)
    return backward


@specialise(*rows.EXAMPLES)
def layer_norm_backward(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _backward(True, dtype, layout, size)


@specialise(*rows.EXAMPLES)
def rms_norm_backward(dtype: str, layout: str, size: str) -> launch.Kernel:
    return _backward(False, dtype, layout, size)


@specialise(*((dtype,) for dtype in FLOATS))
def column_sums(dtype: str) -> launch.Kernel:
    """out[j] = the sum of parts[:, j], for one matrix (count, n), or for two that follow each other"""
    real = rows.REAL[dtype]
    load = ptx.ldg_nc_f32 if real is np.float32 else ptx.ldg_nc_f64
    store, number_type, itemsize, zero = maps.STORE[real], rows.NUMBA[real], np.dtype(real).itemsize, real(0)

    @kernel("r parts, w first, w second, i64 first_step, i64 second_step, u32 count, u32 n", threads=(COLUMNS, ACROSS))
    def column_sums(parts, first, second, first_step, second_step, count, n):
        sums = cuda.shared.array((ACROSS, COLUMNS), number_type)
        lane, own = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y)
        column = uint32(uint32(cuda.blockIdx.x) * uint32(COLUMNS) + lane)
        total, i = zero, own
        if column < n:
            parts += uint64(cuda.blockIdx.y) * uint64(count) * uint64(n) * uint64(itemsize)
            while i < count:
                total += load(parts + (uint64(i) * uint64(n) + uint64(column)) * uint64(itemsize))
                i = uint32(i + uint32(ACROSS))
        sums[own, lane] = total
        cuda.syncthreads()
        if own == 0 and column < n:
            for k in range(1, ACROSS):
                total += sums[k, lane]
            if cuda.blockIdx.y == 0:
                store(first + uint64(column) * uint64(first_step), total)
            else:
                store(second + uint64(column) * uint64(second_step), total)
    return column_sums


# ---- host side

def _run(kernel: Specialised) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        x, weight, bias = (*call.inputs, None)[:3]
        rows.run(kernel, x, outs[0], along=(weight, bias), others=(1 / max(1, x.shape[-1]), call.attrs["eps"]))
    return run


def _run_backward(kernel: Specialised) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        dy, x, weight = call.inputs
        n, dtype, sums = x.shape[-1], x.dtype, outs[1:]
        if n == 0:
            return
        each = rows.per_block(rows.size_for(n, dtype.itemsize))
        parts = list(elementwise.rows(dy, x, outs[0]))
        own = [blocks(part.total, TEAMS * each) for part in parts]
        teams = [blocks(part.total, rows_of_one) for part, rows_of_one in zip(parts, own, strict=True)]
        left, at = launch.scratch((len(sums), sum(teams), n), dtype), 0
        for part, rows_of_one, count in zip(parts, own, teams, strict=True):
            rows.chosen(kernel, part, (weight,)).launch(
                blocks(count, each), *part.arrays, weight, *rows.steps_along((weight,)), left[0, at:at + count],
                left[1, at:at + count] if len(sums) > 1 else None, 1 / n, call.attrs["eps"], rows_of_one,
                part.total, part.rows, n, *part.steps)
            at += count
        pair = (*sums, None)[:2]
        column_sums(arrays.name_of(dtype)).launch((blocks(n, COLUMNS), len(sums)), left, *pair, *rows.steps_along(pair),
                                                  sum(teams), n)
    return run


KERNELS = [Kernel(op, "cuda", run, describe=lambda call: rows.describe(call.inputs[call.op.endswith("backward")]))
           for op, run in (("layer_norm", _run(layer_norm)), ("rms_norm", _run(rms_norm)),
                           ("layer_norm_backward", _run_backward(layer_norm_backward)),
                           ("rms_norm_backward", _run_backward(rms_norm_backward)))]
