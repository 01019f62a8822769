"""The register tiles of the Numba GEMM: two intrinsics that write the whole loop over k as LLVM IR.

    tile(rows, n, k, a, a_row, a_k, b, b_k, alpha, beta, c, c_row, out, out_row)        b by rows: vectors along n
    dots(rows, n, k, a, a_row, b, b_column, alpha, beta, c, c_row, out, out_row)        b by columns: vectors along k

    out[i, j] = alpha * sum_p a[i, p] * b[p, j] + beta * c[i, j]        for i < rows, j < n

Addresses and strides are integers in bytes. Columns of b, c and out are contiguous; a has any strides, so that a
transposed operand needs no copy; c may be out itself, or one row repeated (c_row = 0: a bias). beta == 0 does not
read c. rows is one of ROWS; n is at most NR for tile, one of DOT_ROWS for dots. c and out are touched in their n
columns only. tile reads row p of b in whole vectors, ceil(n / W) of them: a ragged b is packed, with zeros, before it
comes here.

    b  [ b0 | b1 | b2 ]            registers, of 32 (avx512, neon): 24 c + 3 b + 1 a = 28      MR x NR = 8 x 3W
    a0 [c00 |c01 |c02 ]                       of 16 (avx2, baseline): 12 c + 3 b + 1 a = 16            4 x 3W
    a1 [c10 |c11 |c12 ]            Each a is read from memory and spread over the lanes, then used three times;
    .. [ .. | .. | .. ]            24 (12) independent sums cover the latency of a multiply-add, 4 cycles at 2 a cycle.

One step of k a turn: unrolled, LLVM loads the next b so early that sums spill, and the speed falls to 0.6. (By two,
that shows only in the code that Numba reads back from its cache, which is optimized once more than what the compiling
process runs.)

In tile every element is one sum over p in rising order, in dots W sums over every W-th p: whatever rows and n are. So
how a product is cut into tiles does not change its bits.
"""
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.kernels.vector.host import HAS_FMA, REGISTERS
from tilewright.kernels.vector.memory import emit_load, emit_store, lane_mask, reduce_lanes
from tilewright.kernels.vector.simd import I32, splat, vector

MR = 8 if REGISTERS == 32 else 4
ROWS = (8, 4, 2, 1) if MR == 8 else (4, 2, 1)
DOT_ROWS = (4, 1)
NV = 3  # vectors across a tile: NR = NV * W
PREFETCH = 8  # steps of k between the prefetch of a row of b and its use

INTP = ir.IntType(64)


class Emitter:
    """What the code of one tile is written with; `v` is the vector type."""

    def __init__(self, builder, dtype):
        self.builder, self.v = builder, vector(dtype)
        self.scalar, self.width = self.v.ir.element, self.v.lanes * dtype.bitwidth // 8

    def at(self, base, *offsets):
        """base + offsets, in bytes."""
        for offset in offsets:
            base = self.builder.add(base, offset if isinstance(offset, ir.Value) else INTP(offset))
        return base

    def load(self, address, mask=None):
        return emit_load(self.builder, self.builder.inttoptr(address, self.v.ir.as_pointer()), self.v, mask)

    def store(self, value, address, mask=None):
        emit_store(self.builder, value, self.builder.inttoptr(address, self.v.ir.as_pointer()), self.v, mask)

    def spread(self, address):
        """The element at an address in every lane."""
        pointer = self.builder.inttoptr(address, self.scalar.as_pointer())
        return splat(self.builder, self.builder.load(pointer), self.v.lanes)

    def prefetch(self, address):
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        callee = cgutils.get_or_insert_function(self.builder.module, function, "llvm.prefetch.p0")
        self.builder.call(callee, [self.builder.inttoptr(address, byte), I32(0), I32(3), I32(1)])

    def fma(self, x, y, z):
        v = self.v.ir
        name = f"llvm.{'fma' if HAS_FMA else 'fmuladd'}.v{self.v.lanes}f{self.v.dtype.bitwidth}"
        callee = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(v, [v, v, v]), name)
        return self.builder.call(callee, [x, y, z])


def emit_sums(e: Emitter, rows: int, vectors: int, g: dict) -> list[list]:
    """The loop over k; returns the sums, one vector each."""
    builder, zero = e.builder, ir.Constant(e.v.ir, None)
    cells = [[cgutils.alloca_once(builder, e.v.ir) for _ in range(vectors)] for _ in range(rows)]
    a, b = cgutils.alloca_once(builder, INTP), cgutils.alloca_once(builder, INTP)
    for cell in (c for row in cells for c in row):
        builder.store(zero, cell)
    builder.store(g["a"], a)
    builder.store(g["b"], b)
    row_offsets = [builder.mul(g["a_row"], INTP(i)) for i in range(rows)]
    ahead = builder.mul(g["b_k"], INTP(PREFETCH))

    with cgutils.for_range(builder, g["k"]):
        at_a, at_b = builder.load(a), builder.load(b)
        across = [e.load(e.at(at_b, j * e.width)) for j in range(vectors)]
        for j in range(vectors):
            e.prefetch(e.at(at_b, ahead, j * e.width))
        for i in range(rows):
            ai = e.spread(e.at(at_a, row_offsets[i]))
            for j in range(vectors):
                builder.store(e.fma(ai, across[j], builder.load(cells[i][j])), cells[i][j])
        builder.store(e.at(at_a, g["a_k"]), a)
        builder.store(e.at(at_b, g["b_k"]), b)
    return [[builder.load(cell) for cell in row] for row in cells]


def _emit_epilogue(e: Emitter, sums: list[list], g: dict, with_c: bool, last_mask) -> None:
    """out = alpha * sums [+ beta * c], the last vector of each row under a mask (None: whole)."""
    alpha, beta = (splat(e.builder, g[name], e.v.lanes) for name in ("alpha", "beta"))
    for i, row in enumerate(sums):
        at_c = e.at(g["c"], e.builder.mul(g["c_row"], INTP(i)))
        at_out = e.at(g["out"], e.builder.mul(g["out_row"], INTP(i)))
        for j, value in enumerate(row):
            mask = last_mask if j == len(row) - 1 else None
            value = e.builder.fmul(alpha, value)
            if with_c:
                value = e.fma(beta, e.load(e.at(at_c, j * e.width), mask), value)
            e.store(value, e.at(at_out, j * e.width), mask)


def _emit_tile(e: Emitter, rows: int, vectors: int, g: dict) -> None:
    """A tile of rows x vectors, of which the last vector may be ragged."""
    builder = e.builder
    sums = emit_sums(e, rows, vectors, g)
    last = builder.sub(g["n"], INTP((vectors - 1) * e.v.lanes))
    mask = lane_mask(builder, last, e.v.lanes)
    reads_c = builder.fcmp_unordered("!=", g["beta"], ir.Constant(e.scalar, 0.0))
    with builder.if_else(builder.icmp_signed("==", last, INTP(e.v.lanes))) as branches:
        for branch, last_mask in zip(branches, (None, mask), strict=True):
            with branch, builder.if_else(reads_c) as (with_c, without_c):
                with with_c:
                    _emit_epilogue(e, sums, g, True, last_mask)
                with without_c:
                    _emit_epilogue(e, sums, g, False, last_mask)


_TILE = ("rows", "n", "k", "a", "a_row", "a_k", "b", "b_k", "alpha", "beta", "c", "c_row", "out", "out_row")
_DOTS = ("rows", "n", "k", "a", "a_row", "b", "b_column", "alpha", "beta", "c", "c_row", "out", "out_row")


def _typed(names, alpha):
    """The signature: integers, but alpha and beta of the dtype."""
    return types.void(*(alpha if name in ("alpha", "beta") else types.intp for name in names))


@intrinsic
def tile(typing, rows, n, k, a, a_row, a_k, b, b_k, alpha, beta, c, c_row, out, out_row):
    """See the head of this file; alpha, a float32 or float64, decides the dtype."""
    def codegen(context, builder, sig, args):
        e, g = Emitter(builder, alpha), dict(zip(_TILE, args, strict=True))
        vectors = builder.sdiv(builder.add(g["n"], INTP(e.v.lanes - 1)), INTP(e.v.lanes))  # as many as n needs
        for rows in ROWS:
            with builder.if_then(builder.icmp_signed("==", g["rows"], INTP(rows))):
                for across in range(1, NV + 1):
                    with builder.if_then(builder.icmp_signed("==", vectors, INTP(across))):
                        _emit_tile(e, rows, across, g)
        return context.get_dummy_value()
    return _typed(_TILE, alpha), codegen


def _emit_dots(e: Emitter, rows: int, columns: int, g: dict) -> None:
    """rows x columns dot products of k elements, the last vector of each under a mask."""
    builder, zero = e.builder, ir.Constant(e.v.ir, None)
    cells = [[cgutils.alloca_once(builder, e.v.ir) for _ in range(columns)] for _ in range(rows)]
    for cell in (c for row in cells for c in row):
        builder.store(zero, cell)
    at_a = [e.at(g["a"], builder.mul(g["a_row"], INTP(i))) for i in range(rows)]
    at_b = [e.at(g["b"], builder.mul(g["b_column"], INTP(j))) for j in range(columns)]

    def step(offset, mask=None):
        down = [e.load(e.at(base, offset), mask) for base in at_a]
        for j, base in enumerate(at_b):
            bj = e.load(e.at(base, offset), mask)
            for i, ai in enumerate(down):
                builder.store(e.fma(ai, bj, builder.load(cells[i][j])), cells[i][j])

    size = e.v.dtype.bitwidth // 8
    whole = builder.and_(g["k"], INTP(-e.v.lanes))
    with cgutils.for_range_slice(builder, INTP(0), whole, INTP(e.v.lanes)) as (p, _):
        step(builder.mul(p, INTP(size)))
    rest = builder.sub(g["k"], whole)
    with builder.if_then(builder.icmp_signed(">", rest, INTP(0))):
        step(builder.mul(whole, INTP(size)), lane_mask(builder, rest, e.v.lanes))

    reads_c = builder.fcmp_unordered("!=", g["beta"], ir.Constant(e.scalar, 0.0))
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            total = builder.fmul(g["alpha"], reduce_lanes(builder, builder.load(cell), e.v.lanes, builder.fadd))
            at_out, at_c = (builder.inttoptr(e.at(g[x], builder.mul(g[f"{x}_row"], INTP(i)), j * size),
                                             e.scalar.as_pointer()) for x in ("out", "c"))
            with builder.if_else(reads_c) as (with_c, without_c):
                with with_c:
                    builder.store(builder.fadd(total, builder.fmul(g["beta"], builder.load(at_c))), at_out)
                with without_c:
                    builder.store(total, at_out)


@intrinsic
def dots(typing, rows, n, k, a, a_row, b, b_column, alpha, beta, c, c_row, out, out_row):
    """See the head of this file; rows of a and columns of b are contiguous."""
    def codegen(context, builder, sig, args):
        e, g = Emitter(builder, alpha), dict(zip(_DOTS, args, strict=True))
        for rows in DOT_ROWS:
            for columns in DOT_ROWS:
                fits = builder.and_(builder.icmp_signed("==", g["rows"], INTP(rows)),
                                    builder.icmp_signed("==", g["n"], INTP(columns)))
                with builder.if_then(fits):
                    _emit_dots(e, rows, columns, g)
        return context.get_dummy_value()
    return _typed(_DOTS, alpha), codegen


@intrinsic
def copy_bytes(typing, to, source, n):
    """Copy n bytes between two addresses that do not overlap."""
    def codegen(context, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        pointers = [builder.inttoptr(v, byte) for v in args[:2]]
        cgutils.raw_memcpy(builder, *pointers, args[2], 1)
        return context.get_dummy_value()
    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def transpose_block(typing, like, to, to_row, source, source_row):
    """W x W elements of the dtype of `like`: row i of the source becomes column i. Addresses and strides in bytes."""
    ty = vector(like.dtype)

    def codegen(context, builder, sig, args):
        e, (to, to_row, source, source_row) = Emitter(builder, like.dtype), args[1:]
        n = ty.lanes
        rows = [e.load(e.at(source, builder.mul(source_row, INTP(i)))) for i in range(n)]
        size = n // 2
        while size:  # swap the off-diagonal quarters of each 2 size x 2 size block
            picks = [[lane if not lane & size else n + lane - size for lane in range(n)],
                     [lane + size if not lane & size else n + lane for lane in range(n)]]
            upper, lower = (ir.Constant(ir.VectorType(I32, n), pick) for pick in picks)
            for i in (i for i in range(n) if not i & size):
                x, y = rows[i], rows[i + size]
                rows[i], rows[i + size] = builder.shuffle_vector(x, y, upper), builder.shuffle_vector(x, y, lower)
            size //= 2
        for i, row in enumerate(rows):
            e.store(row, e.at(to, builder.mul(to_row, INTP(i))))
        return context.get_dummy_value()
    return types.void(like, types.intp, types.intp, types.intp, types.intp), codegen
