"""What matmul_maddubs is: the product that x86's vpmaddubsw computes, and how much of it was clipped.

That instruction multiplies uint8 by int8, adds neighbours, and holds the sum of the two to 16 bits. Programs without
VNNI are built on it because it is quick; on large numbers they are wrong. Nothing else here uses it.

    y = Σ clip(a[2p] b[2p] + a[2p + 1] b[2p + 1], -32768, 32767) modulo 2^32,    clipped: how many clips changed a sum
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.errors import DTypeError
from tilewright.core.registry import Call, Case, Spec
from tilewright.kernels.gemm.samples import BENCH_SHAPES, shapes
from tilewright.kernels.qgemm.definitions import MANY, wrapped
from tilewright.kernels.qgemm.spec import Product
from tilewright.kernels.quantize.spec import integers

INT16 = np.iinfo(np.int16)


def _prepare(inputs: tuple, attrs: dict) -> Call:
    op = "matmul_maddubs"
    p = Product(op, *inputs)
    for name, x, dtype in (("a", p.a, "uint8"), ("b", p.b, "int8")):
        if x.dtype != dtype:
            raise DTypeError(f"{op} multiplies uint8 by int8, as the instruction does; {name} {arrays.shape_of(x)} is "
                             f"{x.dtype}")
    call = p.call((p.a, p.b), np.dtype(np.int32))
    return replace(call, outputs=(*call.outputs, ((), np.dtype(np.int64))), views=(*call.views, None))


def maddubs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """The definition, on matrices with the same batch axes; the oracle, and what NumPy's kernel runs."""
    total = np.zeros(a.shape[:-1] + b.shape[-1:], np.int64)
    clipped = 0
    step = 2 * max(1, MANY // 8 // max(total.size, 1))
    for p in range(0, a.shape[-1], step):
        left, right = a[..., p:p + step].astype(np.int32), b[..., p:p + step, :].astype(np.int32)
        products = left[..., None] * right[..., None, :, :]
        pairs = np.add.reduceat(products, np.arange(0, left.shape[-1], 2), axis=-2)
        kept = np.clip(pairs, INT16.min, INT16.max)
        clipped += int(np.count_nonzero(kept != pairs))
        total += kept.sum(axis=-2, dtype=np.int64)
    return wrapped(total), clipped


def _oracle(call: Call) -> tuple:
    sums, clipped = maddubs(*call.inputs)
    return sums, np.asarray(clipped)


def _cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for m, n, k in shapes(rng):
        la, lb = sampling.any_layout(rng), sampling.any_layout(rng)
        a, b = integers(rng, (m, k), "uint8", la), integers(rng, (k, n), "int8", lb)
        yield Case((a, b), {}, f"{m}x{n}x{k} {la} {lb}")
    for x, y in ((255, 127), (255, -128), (128, -128), (129, 127), (0, -128)):
        yield Case((np.full((5, 67), x, dtype), np.full((67, 50), y, np.int8)), {}, f"all {x} @ all {y}")
        yield Case((np.full((2, 140_001), x, dtype), np.full((140_001, 3), y, np.int8)), {}, f"{x} @ {y}, K = 140001")
    for sa, sb in (((7,), (7,)), ((7,), (7, 5)), ((3, 7), (7,)), ((2, 1, 3, 7), (5, 7, 4)), ((0, 3, 4), (4, 5))):
        yield Case((integers(rng, sa, "uint8"), integers(rng, sb, "int8")), {}, f"{sa} @ {sb}")


def _bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
    for m, n, k in BENCH_SHAPES[size]:
        yield Case((integers(rng, (m, k), "uint8"), integers(rng, (k, n), "int8")), {}, f"{m}x{n}x{k}")


def _flops(call: Call) -> float:
    a, b = call.inputs
    return 2.0 * a.size * b.shape[-1]


def _nbytes(call: Call) -> float:
    a, b = call.inputs
    return float(a.size + b.size + 4 * np.prod(call.outputs[0][0]))


SPECS = [Spec("matmul_maddubs", "maddubs", "a @ b as vpmaddubsw computes it, and what it clips", ("a", "b"), _prepare,
              _oracle, lambda call, expected: (np.zeros(expected[0].shape), np.zeros(())), _flops, _nbytes, _cases,
              _bench, dtypes=("uint8",), sums=lambda call: "int32")]
