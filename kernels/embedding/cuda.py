"""embedding in CUDA, a warp a row; the gradient without atomics on floats, in the order of the indices.

Backward, a first launch counts how often each row is used. Then the warps of a row of the gradient, 8 or 4 columns a
lane, look through the indices for it, 32 at a time, and add what belongs to it in that order; they stop when all is
found, and rows that nobody used are not looked for.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, launch, maps, rows
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, inline, int64, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel, specialise
from tilewright.kernels.ptx.warp import ALL

LAYOUTS = [(dtype, layout) for dtype in FLOATS for layout in rows.LAYOUTS]
ROWS = 4  # of a block, a warp each


@inline
def index_at(indices, number, rows, plane_step, row_step):
    return int64(ptx.ldg_nc_u64(indices + _place(number, rows, plane_step, row_step)))


_place = rows.place


@specialise(*LAYOUTS)
def embedding(dtype: str, layout: str) -> launch.Kernel:
    """out[i] = weight[indices[i]], or NaN where that is out of range"""
    real = rows.REAL[dtype]
    t, nan = rows.team(real, layout, "warp"), real(np.nan)
    items, piece, read, write, number, lane_of = t.items, t.piece, t.read, t.write, t.number, t.lane
    place, number_type = rows.place, t.real

    @kernel(f"r indices, w out, r weight, u32 vocabulary, i64 w0, i64 w1, {rows.COUNTS}, {rows.steps('i', 'o')}",
            threads=rows.threads_of("warp"))
    def embedding(indices, out, weight, vocabulary, w0, w1, count, rows, n, i0, i1, i2, o0, o1, o2):
        row, lane, first = number(), lane_of(), uint32(0)
        v = cuda.local.array(items, number_type)
        if row < count:
            index = index_at(indices, row, rows, i0, i1)
            out += place(row, rows, o0, o1)
            known = index >= 0 and index < int64(vocabulary)
            while True:
                if known:
                    read(v, weight + uint64(index * w0), first, lane, n, w1, nan)
                else:
                    for k in range(items):
                        v[k] = nan
                write(v, out, first, lane, n, o2)
                first = uint32(first + uint32(piece))
                if first >= n:
                    break
    return embedding


@kernel("w used, u32 vocabulary", threads=maps.THREADS)
def clear(used, vocabulary):
    """used[i] = 0"""
    i = maps.thread_number()
    if i < vocabulary:
        ptx.stg_u32(used + uint64(i) * uint64(4), uint32(0))


@kernel("r indices, rw used, u32 vocabulary, u32 count, u32 rows, i64 i0, i64 i1", threads=maps.THREADS)
def tally(indices, used, vocabulary, count, rows, i0, i1):
    """used[i] += how often i is among the indices"""
    number = maps.thread_number()
    if number < count:
        index = index_at(indices, number, rows, i0, i1)
        if index >= 0 and index < int64(vocabulary):
            ptx.atom_add_u32(used + uint64(index) * uint64(4), uint32(1))


@specialise(*LAYOUTS)
def embedding_backward(dtype: str, layout: str) -> launch.Kernel:
    """out[i] = (out[i] if `more`, else 0) + the sum of dy where the index is i; block (x, y): rows, pieces of them"""
    real = rows.REAL[dtype]
    t, zero = rows.team(real, layout, "warp"), real(0)
    items, piece, read, write, number, lane_of = t.items, t.piece, t.read, t.write, t.number, t.lane
    place, number_type = rows.place, t.real

    @kernel(f"r indices, r dy, rw out, r used, u32 more, u32 vocabulary, i64 o0, i64 o1, "
            f"{rows.COUNTS}, {rows.steps('i', 'd')}", threads=rows.threads_of("warp"), harmless={
                "guard: while left > uint32(0):": "looks for a row that nobody used, and finds it nowhere"})
    def embedding_backward(indices, dy, out, used, more, vocabulary, o0, o1, count, rows, n, i0, i1, i2, d0, d1, d2):
        row, lane, base = number(), lane_of(), uint32(0)
        first = uint32(uint32(cuda.blockIdx.y) * uint32(piece))
        total, v = cuda.local.array(items, number_type), cuda.local.array(items, number_type)
        if row < vocabulary:
            out += uint64(int64(row) * o0)
            for k in range(items):
                total[k] = zero
            if more != uint32(0):
                read(total, out, first, lane, n, o1, zero)
            left = ptx.ldg_nc_u32(used + uint64(row) * uint64(4))
            while left > uint32(0):
                i = uint32(base + lane)
                mine = i < count and index_at(indices, min(i, uint32(count - uint32(1))), rows, i0, i1) == int64(row)
                found = uint32(cuda.ballot_sync(ALL, mine))
                left = uint32(left - uint32(cuda.popc(found)))
                while found != uint32(0):
                    at = uint32(base + uint32(cuda.ffs(found) - 1))
                    found = uint32(found & uint32(found - uint32(1)))
                    read(v, dy + place(at, rows, d0, d1), first, lane, n, d2, zero)
                    for k in range(items):
                        total[k] += v[k]
                base = uint32(base + uint32(32))
            write(total, out, first, lane, n, o1)
    return embedding_backward


# ---- host side

def _layout(part: elementwise.Rows, matrix: np.ndarray) -> str:
    """By the rows of the array beside the indices, the second one, and of the matrix."""
    lanes = elementwise.ALIGNMENT // matrix.itemsize
    rows_alone = elementwise.Rows(part.arrays[1:], part.total, part.rows, part.steps[3:])
    whole = elementwise.Rows((matrix,), len(matrix), len(matrix), (0, *matrix.strides))
    return "vector" if rows_alone.vectors(lanes) and whole.vectors(lanes) else "scalar"


def _forward(call: Call, outs: Sequence[np.ndarray]) -> None:
    indices, weight = call.inputs
    if outs[0].size == 0:
        return
    for part in elementwise.rows(indices[..., np.newaxis], outs[0]):
        embedding(arrays.name_of(weight.dtype), _layout(part, weight)).launch(
            blocks(part.total, ROWS), *part.arrays, weight, len(weight), *weight.strides, part.total, part.rows,
            weight.shape[1], *part.steps)


def _backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, indices = call.inputs
    out, dtype = outs[0], arrays.name_of(dy.dtype)
    vocabulary, n = out.shape
    if out.size == 0:
        return
    used = launch.scratch(vocabulary, np.uint32)
    pieces = blocks(n, rows.team(rows.REAL[dtype], "scalar", "warp").piece)
    pair = indices[..., np.newaxis], dy
    for number, part in enumerate(list(elementwise.rows(*pair)) or [elementwise.Rows(pair, 0, 1, (0,) * 6)]):
        clear.launch(blocks(vocabulary, maps.THREADS), used, vocabulary)
        tally.launch(blocks(part.total, maps.THREADS), part.arrays[0], used, vocabulary, part.total, part.rows,
                     *part.steps[:2])
        embedding_backward(dtype, _layout(part, out)).launch(
            (blocks(vocabulary, ROWS), pieces), *part.arrays, out, used, int(number > 0), vocabulary, *out.strides,
            part.total, part.rows, n, *part.steps)


def _supports(call: Call) -> str | None:
    rows_of_table = call.outputs[0][0][0] if call.op.endswith("backward") else len(call.inputs[1])
    return f"more than {elementwise.MOST} rows" if rows_of_table > elementwise.MOST else None


KERNELS = [Kernel(op, "cuda", run, supports=_supports, describe=lambda call: "a warp a row")
           for op, run in (("embedding", _forward), ("embedding_backward", _backward))]
