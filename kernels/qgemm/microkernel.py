"""The register tile of Numba's integer products, and how both operands are brought into the form that it reads.

    tile(rows, n, k, a, a_row, a_k, b, b_k, zero, zero_row, offset, sums, out, out_row)

    out[i, j] = sum_p a[i, p] . b[p, j] - (zero[i] + offset) * sums[j]          for i < rows, j < n; int32 that wraps
    out[i, j] += sum_p a[i, p] . b[p, j]                                        where sums is 0: the next block of k

A step of k is a word: a group of DEPTH neighbours along k, 4 bytes in all. The dot product of two groups is what a
multiply-add is to floats, and all the rest is the tile of floats (gemm/microkernel.py): same registers, same loop, one
word of a spread over the lanes and met by NV vectors of words of b.

    with VNNI         DEPTH 4: unsigned bytes of a, signed bytes of b, one instruction, exact
    anywhere else     DEPTH 2: 16-bit integers, multiplied and added in pairs to 32 bits, exact: 2 * 255^2 < 2^31

A product of pairs needs a register before it is added. Of 16 that leaves room for 3 rows: 9 c + 3 b + 1 a + 1 = 14;
with 4 two of the sums lie in memory, and 1024^3 runs at 0.6 of the speed.

`group` puts a's elements there, `interleave` b's. With VNNI a signed a is raised, and an unsigned b lowered, by SHIFT =
128: the zero point that is subtracted makes up for it. 16-bit integers hold either kind as it is, and SHIFT is 0.

Addresses and strides are integers in bytes. rows is one of ROWS, n at most NR; out is touched in n columns only, and b
read in whole vectors.
"""
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.kernels.gemm import microkernel as floats
from tilewright.kernels.gemm.microkernel import INTP, NV, Emitter, emit_sums
from tilewright.kernels.vector.host import BYTES, HAS_VNNI, ISA, REGISTERS, TRIPLE
from tilewright.kernels.vector.memory import emit_load, lane_mask, reduce_lanes
from tilewright.kernels.vector.simd import I32, Vector, splat

DEPTH = 4 if HAS_VNNI else 2
ROWS = (3, 2, 1) if REGISTERS == 16 and not HAS_VNNI else floats.ROWS
MR = ROWS[0]
NR = NV * BYTES // 4
SHIFT = 128 * HAS_VNNI
GROUPED = types.uint8 if HAS_VNNI else types.int16
GROUP_LANES = BYTES * DEPTH // 4
"""What a's elements are in groups, and how many a register holds."""

_PAIRS = {"avx512": "avx512.pmaddw.d.512", "avx2": "avx2.pmadd.wd", "baseline": "sse2.pmadd.wd"}


class _Words(Emitter):
    """The emitter of vectors of int32 words, whose multiply-add is z + x . y over groups."""

    def __init__(self, builder):
        super().__init__(builder, types.int32)

    def fma(self, x, y, z):
        if HAS_VNNI:
            return self._call(f"avx512.vpdpbusd.{BYTES * 8}", z, x, y)
        halves = ir.VectorType(ir.IntType(16), 2 * self.v.lanes)
        x, y = (self.builder.bitcast(v, halves) for v in (x, y))
        if TRIPLE.startswith("x86_64"):
            return self.builder.add(z, self._call(_PAIRS[ISA], x, y))
        products = [self.builder.mul(*(self._every_second(v, halves, at) for v in (x, y))) for at in (0, 1)]
        return self.builder.add(z, self.builder.add(*products))

    def _every_second(self, value, halves, at):
        """Every second of the halves, from number `at`, as words."""
        places = ir.Constant(ir.VectorType(I32, self.v.lanes), list(range(at, halves.count, 2)))
        picked = self.builder.shuffle_vector(value, ir.Constant(halves, ir.Undefined), places)
        return self.builder.sext(picked, self.v.ir)

    def _call(self, name, *values):
        function = ir.FunctionType(self.v.ir, [v.type for v in values])
        callee = cgutils.get_or_insert_function(self.builder.module, function, f"llvm.x86.{name}")
        return self.builder.call(callee, values)

    def spread(self, address, *more):
        """The word at an address, which may be odd, and what is added to it, in every lane."""
        word = self.builder.load(self.builder.inttoptr(address, I32.as_pointer()), align=1)
        for value in more:
            word = self.builder.add(word, value)
        return splat(self.builder, word, self.v.lanes)


def _emit_epilogue(e: _Words, products: list[list], g: dict, first: bool, last_mask) -> None:
    """Store the products, the last vector of each row under a mask (None: whole)."""
    masks = [None] * (len(products[0]) - 1) + [last_mask]
    sums = [e.load(e.at(g["sums"], j * e.width)) for j in range(len(masks))] if first else []
    for i, row in enumerate(products):
        at_out = e.at(g["out"], e.builder.mul(g["out_row"], INTP(i)))
        if first:
            zero = e.spread(e.at(g["zero"], e.builder.mul(g["zero_row"], INTP(i))), e.builder.trunc(g["offset"], I32))
        for j, (value, mask) in enumerate(zip(row, masks, strict=True)):
            at = e.at(at_out, j * e.width)
            if first:
                value = e.builder.sub(value, e.builder.mul(zero, sums[j]))
            else:
                value = e.builder.add(value, e.load(at, mask))
            e.store(value, at, mask)


def _emit_tile(e: _Words, rows: int, vectors: int, g: dict) -> None:
    """A tile of rows x vectors, of which the last vector may be ragged."""
    builder = e.builder
    products = emit_sums(e, rows, vectors, g)
    last = builder.sub(g["n"], INTP((vectors - 1) * e.v.lanes))
    mask = lane_mask(builder, last, e.v.lanes)
    first = builder.icmp_signed("!=", g["sums"], INTP(0))
    with builder.if_else(builder.icmp_signed("==", last, INTP(e.v.lanes))) as branches:
        for branch, last_mask in zip(branches, (None, mask), strict=True):
            with branch, builder.if_else(first) as (begins, continues):
                with begins:
                    _emit_epilogue(e, products, g, True, last_mask)
                with continues:
                    _emit_epilogue(e, products, g, False, last_mask)


_TILE = ("rows", "n", "k", "a", "a_row", "a_k", "b", "b_k", "zero", "zero_row", "offset", "sums", "out", "out_row")


@intrinsic
def tile(typing, rows, n, k, a, a_row, a_k, b, b_k, zero, zero_row, offset, sums, out, out_row):
    """See the head of this file; k counts words."""
    def codegen(context, builder, sig, args):
        e, g = _Words(builder), dict(zip(_TILE, args, strict=True))
        vectors = builder.sdiv(builder.add(g["n"], INTP(e.v.lanes - 1)), INTP(e.v.lanes))  # as many as n needs
        for rows in ROWS:
            with builder.if_then(builder.icmp_signed("==", g["rows"], INTP(rows))):
                for across in range(1, NV + 1):
                    with builder.if_then(builder.icmp_signed("==", vectors, INTP(across))):
                        _emit_tile(e, rows, across, g)
        return context.get_dummy_value()
    return types.void(*(types.intp,) * len(_TILE)), codegen


def _bytes_at(builder, address, lanes: int):
    """`lanes` bytes at an address."""
    ty = Vector(types.uint8, lanes)
    return emit_load(builder, builder.inttoptr(address, ty.ir.as_pointer()), ty)


@intrinsic
def raised(typing, a):
    """What groups of a's elements are larger by."""
    shift = SHIFT * a.dtype.signed
    return types.intp(a), lambda context, builder, sig, args: INTP(shift)


@intrinsic
def lowered(typing, b):
    """What groups of b's elements are smaller by."""
    shift = SHIFT * (not b.dtype.signed)
    return types.intp(b), lambda context, builder, sig, args: INTP(shift)


def _grouped(builder, address, signed: bool):
    """A register of a's elements as the tile reads them."""
    ty = Vector(GROUPED, GROUP_LANES)
    value = _bytes_at(builder, address, ty.lanes)
    if not HAS_VNNI:
        return (builder.sext if signed else builder.zext)(value, ty.ir)
    return builder.xor(value, ir.Constant(ty.ir, [128] * ty.lanes)) if signed else value


@intrinsic
def group(typing, like, to, source):
    """GROUP_LANES elements of a, of the dtype of `like` and contiguous, brought into groups."""
    def codegen(context, builder, sig, args):
        value = _grouped(builder, args[2], like.dtype.signed)
        builder.store(value, builder.inttoptr(args[1], value.type.as_pointer()), align=1)
        return context.get_dummy_value()
    return types.void(like, types.intp, types.intp), codegen


@intrinsic
def group_sum(typing, like, source):
    """The sum of GROUP_LANES elements of a as they are in groups: a product with ones."""
    def codegen(context, builder, sig, args):
        e, ty = _Words(builder), Vector(GROUPED, GROUP_LANES)
        value, ones = _grouped(builder, args[1], like.dtype.signed), ir.Constant(ty.ir, [1] * ty.lanes)
        words = (builder.bitcast(v, e.v.ir) for v in (value, ones))
        sums = e.fma(*words, ir.Constant(e.v.ir, None))
        return builder.sext(reduce_lanes(builder, sums, e.v.lanes, builder.add), INTP)
    return types.intp(like, types.intp), codegen


@intrinsic
def interleave(typing, like, to, source, row):
    """A vector of words of b from DEPTH rows, `row` bytes apart, of elements of the dtype of `like`."""
    signed = like.dtype.signed

    def codegen(context, builder, sig, args):
        _, to, source, row = args
        e = _Words(builder)
        bits, words = 32 // DEPTH, ir.Constant(e.v.ir, None)
        for d in range(DEPTH):
            value = _bytes_at(builder, e.at(source, builder.mul(row, INTP(d))), e.v.lanes)
            if HAS_VNNI and not signed:
                value = builder.xor(value, ir.Constant(value.type, [128] * e.v.lanes))
            wide = builder.sext if signed and not HAS_VNNI else builder.zext
            value = wide(value, ir.VectorType(ir.IntType(bits), e.v.lanes)) if bits > 8 else value
            value = builder.zext(value, e.v.ir)
            words = builder.or_(words, builder.shl(value, ir.Constant(e.v.ir, [d * bits] * e.v.lanes)))
        e.store(words, to)
        return context.get_dummy_value()
    return types.void(like, types.intp, types.intp, types.intp), codegen
