"""Sample calls of the products: conformance at the edges of the tiles, in every layout; benchmarks."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from tilewright.core import sampling
from tilewright.core.packed import pack
from tilewright.core.registry import Case

BENCH_SHAPES = {  # (M, N, K): square, few rows, tall and narrow, a layer of an MLP
    "small": [(64, 64, 64), (1, 256, 256), (32, 64, 64)],
    "medium": [(256, 256, 256), (1, 1024, 1024), (2000, 10, 512), (128, 512, 784)],
    "large": [(1024, 1024, 1024), (8, 4096, 1024), (64, 3072, 768), (4096, 64, 64)],
}
LAYERS = [(32, 64, 64), (128, 512, 784), (64, 3072, 768)]


def shapes(rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Each axis over the tile edges while the others are odd; empty axes; K across a block of 512; random thirds."""
    for e in sampling.EDGES:
        yield from ((e, 19, 21), (21, e, 19), (19, 21, e))
    yield from ((0, 5, 7), (5, 0, 7), (5, 7, 0), (0, 0, 0), (1, 1, 1), (1, 513, 300), (300, 1, 513), (7, 5, 1031),
                (130, 131, 513), (100, 200, 260), (257, 100, 120), (513, 10, 40), (2, 700, 33))
    for _ in range(12):
        yield tuple(int(v) for v in rng.integers(1, 120, 3))  # type: ignore[misc]


def _with_specials(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1)
    for value in (np.nan, np.inf, -np.inf, 0.0):
        flat[rng.integers(flat.size)] = value
    return x


def matmul_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    new = sampling.normal
    for i, (m, n, k) in enumerate(shapes(rng)):
        la, lb = sampling.any_layout(rng), sampling.any_layout(rng)
        a, b = new(rng, (m, k), dtype, la), new(rng, (k, n), dtype, lb)
        yield Case((a, b), label=f"{m}x{n}x{k} {la} {lb}")
        if i % 2:
            yield Case((a, pack(b)), label=f"{m}x{n}x{k} {la}, b packed")
    for shape in ((37,), (2, 0, 3, 37), (3, 2, 9, 37)):
        for layout in sampling.LAYOUTS:
            a, packed = new(rng, shape, dtype, layout), pack(new(rng, (37, 70), dtype))
            yield Case((a, packed), label=f"{shape} {layout}, b packed")
    for sa, sb in (((7,), (7,)), ((7,), (7, 5)), ((3, 7), (7,)), ((4, 3, 7), (7,)), ((7,), (4, 7, 3)),
                   ((2, 1, 3, 7), (5, 7, 4)), ((3, 2, 2), (2, 2)), ((0, 3, 4), (4, 5)), ((6, 9, 17), (6, 17, 33))):
        for layout in sampling.LAYOUTS:
            yield Case((new(rng, sa, dtype, layout), new(rng, sb, dtype, layout)), label=f"{sa} @ {sb} {layout}")
    row = np.broadcast_to(new(rng, (1, 40), dtype), (33, 40))
    yield Case((row, new(rng, (40, 35), dtype)), label="zero strides in a")
    yield Case((row, np.broadcast_to(new(rng, (40, 1), dtype), (40, 21))), label="zero strides in a and b")
    for _ in range(6):
        a, b = (_with_specials(rng, new(rng, shape, dtype)) for shape in ((17, 37), (37, 50)))
        yield Case((a, b), label="NaN and infinity")
    for la, lb in product("cf", repeat=2):
        yield Case((new(rng, (24, 72), dtype, la), new(rng, (72, 40), dtype, lb)), label=f"whole vectors {la} {lb}")
    for m, n in ((8, 16), (1, 5)):
        yield Case((new(rng, (2, m, 256), dtype), new(rng, (2, 256, n), dtype)), label=f"2x{m}x{n}x256, K in parts")
    for m, n, k in ((24, 40, 72), (17, 33, 19), (8, 16, 256)) if dtype == "float32" else ():
        yield Case((new(rng, (m, k), dtype), new(rng, (k, n), dtype)), {"precision": "tf32"}, f"{m}x{n}x{k} tf32")
    yield Case((new(rng, (3, 0), dtype), new(rng, (0, 5), dtype)), label="sums of nothing")


def gemm_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    new = sampling.normal
    for i, (m, n, k) in enumerate(shapes(rng)):
        ta, tb, layout = bool(i & 1), bool(i & 2), sampling.any_layout(rng)
        c = (None, (m, n), (n,), (m, 1), (1, n), ())[i % 6]
        attrs = {"alpha": (1.0, 0.5, -1.3, 0.0)[i % 4], "beta": (1.0, 0.0, 0.7)[i % 3], "trans_a": ta, "trans_b": tb}
        a = new(rng, (k, m) if ta else (m, k), dtype, layout)
        b = new(rng, (n, k) if tb else (k, n), dtype, layout)
        yield Case((a, b if i % 5 else pack(b), None if c is None else new(rng, c, dtype, layout)), attrs,
                   f"{m}x{n}x{k} c={c} {layout} {attrs}{', b packed' * (i % 5 == 0)}")
    nan = np.full((9, 9), np.nan).astype(dtype)
    yield Case((new(rng, (9, 9), dtype), new(rng, (9, 9), dtype), nan), {"beta": 0.0}, "beta 0 does not read c")
    yield Case((nan, nan, new(rng, (9, 9), dtype)), {"alpha": 0.0}, "alpha 0 does not read a, b")


def linear_cases(activations: Sequence[str | None]) -> Any:
    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        new = sampling.normal
        for i, (m, n, k) in enumerate(shapes(rng)):
            layout, activation = sampling.any_layout(rng), activations[i % len(activations)]
            x, w = new(rng, (m, k), dtype, layout), new(rng, (n, k), dtype, layout)
            bias = new(rng, (n,), dtype, layout) if i % 4 else None
            residual = new(rng, (m, n), dtype, sampling.any_layout(rng)) if i % 3 == 0 else None
            for weight in (w, pack(w))[:1 + i % 2]:
                yield Case((x, weight, bias, residual), {"activation": activation}, f"{m}x{n}x{k} {layout} {activation}"
                           f"{' + residual' * (residual is not None)}{', w packed' * (weight is not w)}")
        for activation in activations:
            residual = new(rng, (2, 3, 50), dtype)
            for last in (None, residual):
                yield Case((new(rng, (2, 3, 33), dtype), new(rng, (50, 33), dtype), new(rng, (50,), dtype), last),
                           {"activation": activation}, f"3-D {activation}{' + residual' * (last is not None)}")
        yield Case((new(rng, (33,), dtype), new(rng, (5, 33), dtype), None, new(rng, (5,), dtype)), {}, "1-D x")
        for lx, lw, lr in product("cf", "cf", ("c", "step")):  # operands in whole vectors, results in such or not
            for precision in (None, "tf32") if dtype == "float32" and lx == lw == "c" else (None,):
                k = 8 if precision is None else 12  # less than tensor cores are given at once
                yield Case((new(rng, (72, k), dtype, lx), new(rng, (40, k), dtype, lw), new(rng, (40,), dtype),
                            new(rng, (72, 40), dtype, lr)), {"activation": "relu", "precision": precision},
                           f"72x40x{k} {lx} {lw} + {lr} {precision}")
        for lx, lw in product("cf", repeat=2):
            yield Case((new(rng, (8, 256), dtype, lx), new(rng, (16, 256), dtype, lw), None, None), {},
                       f"8x16x256 {lx} {lw}, K in parts")
    return cases


def linear_backward_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    new = sampling.normal
    for m, n, k in shapes(rng):
        layout = sampling.any_layout(rng)
        yield Case((new(rng, (m, n), dtype, layout), new(rng, (m, k), dtype, layout), new(rng, (n, k), dtype, layout)),
                   label=f"{m}x{n}x{k} {layout}")
    yield Case((new(rng, (2, 3, 5), dtype), new(rng, (2, 3, 7), dtype), new(rng, (5, 7), dtype)), label="3-D")


def linear_backward_weights_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    new = sampling.normal
    for i, (m, n, k) in enumerate(shapes(rng)):
        layout, beta = sampling.any_layout(rng), (0.0, 1.0, 0.7)[i % 3]
        yield Case((new(rng, (m, n), dtype, layout), new(rng, (m, k), dtype, layout), new(rng, (n, k), dtype),
                    new(rng, (n,), dtype) if i % 4 else None), {"beta": beta}, f"{m}x{n}x{k} {layout} beta={beta}")
    yield Case((new(rng, (2, 3, 5), dtype), new(rng, (2, 3, 7), dtype), new(rng, (5, 7), dtype), None), {}, "3-D")
    nan = np.full((9, 9), np.nan).astype(dtype)
    yield Case((new(rng, (9, 9), dtype), new(rng, (9, 9), dtype), nan, nan[0].copy()), {}, "beta 0 does not read")


def bench(make: Any, packs: bool = False) -> Any:
    """packs: the layer of an MLP once more, its weights packed."""
    def cases(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        for m, n, k in BENCH_SHAPES[size]:
            inputs, attrs = make(lambda *shape: sampling.normal(rng, shape, dtype), m, n, k)
            yield Case(inputs, attrs, f"{m}x{n}x{k}")
            if packs and (m, n, k) in LAYERS:
                yield Case((inputs[0], pack(inputs[1]), *inputs[2:]), attrs, f"{m}x{n}x{k}, w packed")
    return cases
