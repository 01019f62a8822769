"""Float rows times weights of 8 or 4 bits in Numba: no more bytes from memory than the weights have.

    weights_range(x, x_sums, values, scales, zeros, group, memory, out, first, end)     panels number first ... end - 1

    out[i, j] = sum_g scales[j, g] * (sum_p x[i, p] * values[j, p] - zeros[j, g] * x_sums[i, g])      p in group g

    values           a row for each panel of WIDTH columns of out: k by k, 4 bytes a column at a time (a block), the
                     groups filled up with zeros to whole blocks
                         int8      4 k in a block, WIDTH bytes each
                         int32     8 k of 4 bits in the lane of each column, the first k lowest
    scales, zeros    float32, a row for each panel: [group][WIDTH]; zeros may be empty
    x, x_sums        float32 rows: x, contiguous and filled up as values are, and its sums over the groups

The columns of a panel lie in the lanes. Each step of k widens NV vectors of weights to float, and multiplies them by
the x of each of `rows` rows; one row keeps two sums a vector, since one would wait for itself. Serial, without the GIL.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.core import arrays
from tilewright.core.quantized import QuantizedMatrix
from tilewright.core.threads import run_ranges
from tilewright.kernels.gemm.microkernel import INTP, Emitter, copy_bytes
from tilewright.kernels.vector.host import BYTES, ISA, REGISTERS, njit
from tilewright.kernels.vector.memory import address
from tilewright.kernels.vector.ranges import compiled, scratch
from tilewright.kernels.vector.simd import I32, Vector

NV = 4
WIDTH = NV * BYTES // 4
BLOCK = WIDTH * 4  # bytes
ROWS = (4, 2, 1) if REGISTERS == 32 else (2, 1)  # of a tile: rows * NV sums and NV vectors of weights in registers
MEMORY = ROWS[0] * BLOCK
AHEAD = 8192  # bytes that are fetched ahead, as in C (csrc/qgemm/weights.isa.c)
GRAIN = 1 << 19  # weights worth a thread, some 10 us


class _Weights(Emitter):
    """The emitter of one tile over weights of `bits`."""

    def __init__(self, builder, bits: int):
        super().__init__(builder, types.float32)
        self.bits, self.depth, self.ints = bits, 32 // bits, ir.VectorType(I32, self.v.lanes)

    def raw(self, block, t: int, v: int):
        """What is loaded for number t of the depth of a block and vector v; for 4 bits the same for all t."""
        if self.bits == 8:
            address, ty = self.at(block, t * WIDTH + v * self.v.lanes), Vector(types.int8, self.v.lanes)
        else:
            address, ty = self.at(block, v * self.width), Vector(types.int32, self.v.lanes)
        return self.builder.load(self.builder.inttoptr(address, ty.ir.as_pointer()), align=1)

    def weight(self, raw, t: int):
        """That as floats."""
        if self.bits == 8:
            return self.builder.sitofp(self.builder.sext(raw, self.ints), self.v.ir)
        if ISA == "avx512":  # a table of 16 numbers, looked up by the low 4 bits of each lane
            table = ir.Constant(self.v.ir, [float(i - 16 * (i > 7)) for i in range(16)])
            function = ir.FunctionType(self.v.ir, [self.v.ir, self.ints])
            callee = cgutils.get_or_insert_function(self.builder.module, function, "llvm.x86.avx512.permvar.sf.512")
            return self.builder.call(callee, [table, self.builder.lshr(raw, self._each(4 * t))])
        raised = self.builder.shl(raw, self._each(28 - 4 * t))
        return self.builder.sitofp(self.builder.ashr(raised, self._each(28)), self.v.ir)

    def _each(self, value: int):
        return ir.Constant(self.ints, [value] * self.v.lanes)


def _emit_block(e: _Weights, rows: int, sums: list[list[list]], at_x, x_row, at_block) -> None:
    """Add `depth` steps of k; sums[chain][row][vector] are cells."""
    builder = e.builder
    for byte in range(0, BLOCK, 64):
        e.prefetch(e.at(at_block, AHEAD + byte))
    raw = [e.raw(at_block, 0, v) for v in range(NV)]
    for t in range(e.depth):
        if e.bits == 8 and t:
            raw = [e.raw(at_block, t, v) for v in range(NV)]
        across = [e.weight(value, t) for value in raw]
        for i in range(rows):
            x = e.spread(e.at(at_x, builder.mul(x_row, INTP(i)), 4 * t))
            for v, cell in enumerate(sums[t % len(sums)][i]):
                builder.store(e.fma(across[v], x, builder.load(cell)), cell)


def _emit_group(e: _Weights, rows: int, g: dict) -> None:
    builder = e.builder
    sums = [[[cgutils.alloca_once_value(builder, ir.Constant(e.v.ir, None)) for _ in range(NV)] for _ in range(rows)]
            for _ in range(2 if rows == 1 else 1)]
    for cell in (cell for chain in sums for row in chain for cell in row):  # again for each group
        builder.store(ir.Constant(e.v.ir, None), cell)
    with cgutils.for_range(builder, g["blocks"]) as loop:
        at_x = e.at(g["x"], builder.mul(loop.index, INTP(4 * e.depth)))
        _emit_block(e, rows, sums, at_x, g["x_row"], e.at(g["values"], builder.mul(loop.index, INTP(BLOCK))))
    has_zeros = builder.icmp_signed("!=", g["zeros"], INTP(0))
    with builder.if_then(has_zeros):
        for i in range(rows):
            x_sum = e.spread(e.at(g["x_sums"], builder.mul(g["sums_row"], INTP(i))))
            for v, cell in enumerate(sums[0][i]):
                zero = e.load(e.at(g["zeros"], v * e.width))
                builder.store(e.fma(builder.fneg(zero), x_sum, builder.load(cell)), cell)
    for i in range(rows):
        for v in range(NV):
            total = builder.load(sums[0][i][v])
            for chain in sums[1:]:
                total = builder.fadd(total, builder.load(chain[i][v]))
            to = e.at(g["totals"], i * BLOCK + v * e.width)
            e.store(e.fma(e.load(e.at(g["scales"], v * e.width)), total, e.load(to)), to)


_GROUP = ("rows", "blocks", "x", "x_row", "x_sums", "sums_row", "values", "scales", "zeros", "totals")


@intrinsic
def add_group(typing, like, rows, blocks, x, x_row, x_sums, sums_row, values, scales, zeros, totals):
    """totals (rows, WIDTH) += one group; like: an array of the dtype of the values. Addresses and strides in bytes."""
    def codegen(context, builder, sig, args):
        e, g = _Weights(builder, 8 if like.dtype.bitwidth == 8 else 4), dict(zip(_GROUP, args[1:], strict=True))
        for rows in ROWS:
            with builder.if_then(builder.icmp_signed("==", g["rows"], INTP(rows))):
                _emit_group(e, rows, g)
        return context.get_dummy_value()
    return types.void(like, *(types.intp,) * len(_GROUP)), codegen


@njit
def weights_range(x, x_sums, values, scales, zeros, group, memory, out, first, end):
    """See the head of this file; group: k of a filled up group; memory: MEMORY bytes."""
    m, n = out.shape
    groups, blocks, totals = x_sums.shape[1], group // (4 if values.itemsize == 1 else 8), address(memory)
    for panel in range(first, end):
        j = panel * WIDTH
        at_values = address(values) + panel * values.strides[0]
        at_scales = address(scales) + panel * scales.strides[0]
        at_zeros = address(zeros) + panel * zeros.strides[0] if zeros.size else 0
        i = 0
        while i < m:
            rows = min(ROWS[0], m - i)
            rows = rows if rows != 3 else 2
            memory[:rows * BLOCK] = 0
            at_x, at_sums = address(x) + i * x.strides[0], address(x_sums) + i * x_sums.strides[0]
            for g in range(groups):
                add_group(values, rows, blocks, at_x + g * group * 4, x.strides[0], at_sums + g * 4, x_sums.strides[0],
                          at_values + g * blocks * BLOCK, at_scales + g * BLOCK,
                          at_zeros + g * BLOCK if at_zeros else 0, totals)
            for row in range(rows):
                to = address(out) + (i + row) * out.strides[0] + j * 4
                copy_bytes(to, totals + row * BLOCK, min(WIDTH, n - j) * 4)
            i += rows


# ---- from Python

class Panels(NamedTuple):
    """The weights as weights_range reads them; `group` counts k, `filled` with those that fill up its last block."""

    values: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    group: int
    filled: int


def pack_weights(w: QuantizedMatrix) -> Panels:
    """The panels of a QuantizedMatrix."""
    n, k = w.shape
    depth, group = 32 // w.bits, w.group_size or max(k, 1)
    groups, panels, filled = -(-k // group), -(-n // WIDTH), -(-group // depth) * depth
    each = np.zeros((panels * WIDTH, groups * filled), np.int8)
    _fill_up(w.integers(), group, filled, each)
    by_panel = each.reshape(panels, WIDTH, -1).transpose(0, 2, 1)
    if w.bits == 8:
        values = arrays.on_a_line(by_panel.shape, np.dtype(np.int8))
        values[...] = by_panel
    else:
        values = arrays.on_a_line((panels, groups * filled // 8, WIDTH), np.dtype(np.int32))
        values[...] = 0
        for t in range(8):
            values |= (by_panel[:, t::8] & 15).astype(np.int32) << 4 * t
    scales, zeros = (_by_panel(x, panels, groups) for x in (w.scales, w.zero_points))
    return Panels(values.reshape(panels, -1), scales, zeros, group, filled)


def _fill_up(x: np.ndarray, group: int, filled: int, to: np.ndarray) -> None:
    """The groups of x (R, K), `filled` apart."""
    for g in range(-(-x.shape[1] // group)):
        part = x[:, g * group:(g + 1) * group]
        to[:x.shape[0], g * filled:g * filled + part.shape[1]] = part


def _by_panel(x: np.ndarray | None, panels: int, groups: int) -> np.ndarray:
    """(N, G) as (panels, G * WIDTH) of float32."""
    if x is None:
        return np.empty((0, 0), np.float32)
    rows = np.zeros((panels * WIDTH, groups), np.float32)
    rows[:x.shape[0]] = x[:, :groups]
    return rows.reshape(panels, WIDTH, groups).transpose(0, 2, 1).reshape(panels, -1).copy()


def multiply(x: np.ndarray, w: QuantizedMatrix, out: np.ndarray) -> bool:
    """out (R, N), with contiguous columns, = x (R, K) times the weights; False: they have zeros, and x is not finite.

    There the products with weights and with zeros, taken apart, would give infinity - infinity.
    """
    p: Panels = w.form("numba", pack_weights)
    groups = -(-x.shape[1] // p.group)
    sums = np.empty((x.shape[0], groups), np.float32)
    filled = x
    if groups * p.filled != x.shape[1] or x.strides[1] != x.itemsize:
        filled = np.zeros((x.shape[0], groups * p.filled), np.float32)
        _fill_up(x, p.group, p.filled, filled)
    if p.zeros.size:
        with np.errstate(all="ignore"):
            filled.reshape(x.shape[0], groups, p.filled).sum(2, out=sums)
        if not np.isfinite(sums).all():
            return False
    kernel = compiled(weights_range, "SSXSSimTii", p.values.dtype)

    def run(first: int, end: int) -> None:
        memory = scratch(MEMORY, np.dtype(np.uint8))
        kernel(filled, sums, p.values, p.scales, p.zeros, p.filled, memory, out, first, end)
    run_ranges(run, p.values.shape[0], max(1, GRAIN // max(1, WIDTH * x.shape[1])))
    return True
