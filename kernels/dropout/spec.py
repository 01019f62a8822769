"""What dropout is: y = x / (1 - p) where a random bit says keep, else 0.

The bits are a function of the seed and of the place alone. Philox4x32-10 (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", 2011) with key (seed mod 2^32, seed div 2^32) turns the counter (i div 4, as two words, low first,
0, 0) into four words; word i mod 4 belongs to the element of C-order index i. It is kept if its word is at least
round(p · 2^32). The scale 1/(1-p) is rounded to the dtype, then multiplied: the same bits everywhere. The gradient is
the same map, applied to dy.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.errors import ArgumentError
from tilewright.core.registry import FLOATS, Call, Case, Spec

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)


def philox(counters: np.ndarray, seed: int) -> np.ndarray:
    """(n,) block numbers as uint64 -> (n, 4) words: ten rounds of Philox4x32."""
    c = [counters & _LOW, counters >> np.uint64(32), np.zeros_like(counters), np.zeros_like(counters)]
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        p0, p1 = c[0] * MULTIPLIERS[0], c[2] * MULTIPLIERS[1]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), p1 & _LOW,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), p0 & _LOW]
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, WEYL, strict=True)]
    return np.stack(c, -1).astype(np.uint32)


def threshold(p: float) -> int:
    """Words below this number drop their element."""
    return min(round(p * 2**32), 2**32)


def scale(p: float, dtype: np.dtype) -> Any:
    """1 / (1 - p) rounded to the dtype; 0 for p = 1, where nothing is kept."""
    return dtype.type(1 / (1 - p) if p < 1 else 0.0)


def dropout(x: np.ndarray, p: float, seed: int) -> np.ndarray:
    """The definition, with the one rounding that it prescribes."""
    words = philox(np.arange((x.size + 3) // 4, dtype=np.uint64), seed).ravel()[:x.size].reshape(x.shape)
    return np.where(words.astype(np.uint64) >= threshold(p), x * scale(p, x.dtype), x.dtype.type(0))


def _prepare(op: str, name: str) -> Callable[[tuple, dict], Call]:
    def prepare(inputs: tuple, attrs: dict) -> Call:
        copies: list[str] = []
        x, = arrays.operands(op, (name,), inputs, FLOATS, copies)
        p, seed = float(attrs["p"]), attrs["seed"]
        if not 0 <= p <= 1:
            raise ArgumentError(f"{op}: p is a probability between 0 and 1, not {p}")
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise ArgumentError(f"{op}: seed must be an integer between 0 and 2**64 - 1, not {seed!r}")
        return Call(op, (x,), {"p": p, "seed": int(seed)}, ((x.shape, x.dtype),), copies=copies)
    return prepare


def _oracle(call: Call) -> tuple:
    with np.errstate(all="ignore"):
        return (dropout(call.inputs[0], **call.attrs),)


def _cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for i, n in enumerate((*range(0, 40), 63, 64, 65, 127, 129, 1000, 4099, 10007)):
        seed = (0, 1, 2**32 - 1, 2**32, 2**64 - 1, 0x123456789ABCDEF)[i % 6]
        attrs = {"p": (0.5, 0.1, 0.0, 1.0, 0.999)[i % 5], "seed": seed}
        yield Case((sampling.normal(rng, (n,), dtype),), attrs, f"{n} seed {seed}")
    for shape in ((), (5, 7), (3, 4, 33), (17, 65), (3, 0)):
        for layout in sampling.LAYOUTS:
            yield Case((sampling.normal(rng, shape, dtype, layout),), {"p": 0.3, "seed": 42}, f"{shape} {layout}")
    yield Case((sampling.specials(dtype),), {"p": 0.5, "seed": 7}, "special values")


def _bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
    shape = {"small": (32, 32), "medium": (256, 1024), "large": (2048, 2048)}[size]
    yield Case((sampling.normal(rng, shape, dtype),), {"p": 0.5, "seed": 1}, f"{shape[0]}x{shape[1]}")


def _gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
    return (run("dropout_backward", grads[0], **attrs),)


def _spec(op: str, name: str, gradient: Any) -> Spec:
    return Spec(op, "dropout", f"{name}/(1 - p) where a counter-based bit keeps it, else 0", (name,),
                _prepare(op, name), _oracle, lambda call, expected: (np.zeros(expected[0].shape),),
                lambda call: 12.0 * call.inputs[0].size, lambda call: 2.0 * call.inputs[0].nbytes,
                _cases, _bench, gradient, like=(0,), may_alias=(0,))


SPECS = [_spec("dropout", "x", _gradient), _spec("dropout_backward", "dy", None)]
