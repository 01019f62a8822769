"""Philox4x32-10 (Salmon et al. 2011) on vectors: one intrinsic, one counter a lane.

    philox(array, block, key0, key1)     four vectors of 32-bit words, for elements 4 * block ... 4 * (block + W) - 1

W is the number of lanes of the array's dtype; counter block + lane gives the words of elements 4 * (block + lane) + 0
... 3, so the four words of a lane are dealt out to four neighbouring places.
"""
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tilewright.kernels.vector.simd import I32, Vector, splat, vector

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def _zip(builder, x, y, lanes: int):
    """Two vectors as one of twice the length: x0 y0 x1 y1 ..."""
    order = [v for i in range(lanes) for v in (i, lanes + i)]
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, 2 * lanes), order))


@intrinsic
def philox(typing, array, block, key0, key1):
    """See the head of this file; block and the keys are int64, the keys within 32 bits."""
    lanes = vector(array.dtype).lanes
    words = Vector(types.uint32, lanes)
    wide = ir.VectorType(ir.IntType(64), lanes)

    def codegen(context, builder, sig, args):
        def constant(value):
            return ir.Constant(wide, [value] * lanes)

        def high(x):
            return builder.lshr(x, constant(32))

        def low(x):
            return builder.and_(x, constant(0xFFFFFFFF))

        counter = builder.add(splat(builder, args[1], lanes), ir.Constant(wide, list(range(lanes))))
        c = [low(counter), high(counter), constant(0), constant(0)]  # 32-bit words in 64-bit lanes: a product has two
        keys = [splat(builder, key, lanes) for key in args[2:]]
        for _ in range(ROUNDS):
            p0, p1 = (builder.mul(c[i], constant(m)) for i, m in zip((0, 2), MULTIPLIERS, strict=True))
            c = [builder.xor(builder.xor(high(p1), c[1]), keys[0]), low(p1),
                 builder.xor(builder.xor(high(p0), c[3]), keys[1]), low(p0)]
            keys = [low(builder.add(key, constant(w))) for key, w in zip(keys, WEYL, strict=True)]
        w0, w1, w2, w3 = (builder.trunc(x, words.ir) for x in c)
        even, odd = _zip(builder, w0, w2, lanes), _zip(builder, w1, w3, lanes)
        dealt = _zip(builder, even, odd, 2 * lanes)  # w0 w1 w2 w3 of lane 0, of lane 1, ...
        places, undefined = ir.VectorType(I32, lanes), ir.Constant(dealt.type, ir.Undefined)
        quarters = [builder.shuffle_vector(dealt, undefined, ir.Constant(places, list(range(k, k + lanes))))
                    for k in range(0, 4 * lanes, lanes)]
        return context.make_tuple(builder, sig.return_type, quarters)

    return types.UniTuple(words, 4)(array, types.int64, types.int64, types.int64), codegen
