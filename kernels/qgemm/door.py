"""The door (vector/door.py) of matmul_integer, for a packed b or a plain one, which is then packed for this call.

Matrices of int8 and uint8, zero points that are one number each; rows of zero points take the long way. A product is
cut into rectangles as those of floats are, and a task is one rectangle.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.core import arrays, native
from tilewright.core.packed import PackedMatrix
from tilewright.kernels.gemm.door import cuts, takes_rows
from tilewright.kernels.vector.door import (
    ALONE_NS,
    DONE,
    KERNELS,
    LACKS,
    NDARRAY,
    PARALLEL,
    REFUSED,
    RELEASE_NS,
    TASK,
    THREADS,
    WORKSPACE,
    Method,
    Room,
    come_back,
    entry,
    leave,
    look,
    task,
)
from tilewright.kernels.vector.host import HAS_VNNI, inner
from tilewright.kernels.vector.objects import (
    DATA,
    INT8,
    INT32,
    UINT8,
    apart,
    ask,
    block,
    call,
    elements,
    extent,
    line,
    matrix,
    ndim,
    number,
    plain,
    stride,
    word,
)
from tilewright.kernels.vector.ranges import compiled, scratch

from .blocked import MEMORY, pack_range, panel_words, product_range
from .microkernel import NR, SHIFT

PRODUCT = "XzIizJmiiii"  # the letters of product_range (ranges.py)
NS_PER_PRODUCT = 0.002 if HAS_VNNI else 0.008  # at 1000 GOP/s; at the speed of floats
# A context, in words: of a address and strides, of panels address and row stride, of out likewise; sizes; cuts; the
# function; zero points, which it reads as rows of one int32 each; memory, lent or own
(A, A_ROW, A_COLUMN, PANELS, PANEL_ROW, OUT, OUT_ROW, M, N, K, TALL, WIDE, MULTIPLY, A_ZERO, B_ZERO, B_SHIFT, LEND,
 MEMORY_AT) = range(0, 144, 8)


def integer_task(context, number):
    """One rectangle."""
    m, n, k, tall, wide = (word(context, M), word(context, N), word(context, K), word(context, TALL),
                           word(context, WIDE))
    down = -(-m // tall)
    i0, j0 = number % down * tall, number // down * wide
    lend = word(context, LEND)
    memory = elements(ask(lend, MEMORY) if lend != 0 else word(context, MEMORY_AT), MEMORY, 1)
    a = matrix(word(context, A), m, k, word(context, A_ROW), word(context, A_COLUMN), 1)
    panels = matrix(word(context, PANELS), -(-n // NR), word(context, PANEL_ROW) // 4, word(context, PANEL_ROW), 4, 4)
    out = matrix(word(context, OUT), m, n, word(context, OUT_ROW), 4, 4)
    call(word(context, MULTIPLY), a, line(context + A_ZERO, m, 0, 4), panels, word(context, B_SHIFT),
         line(context + B_ZERO, n, 0, 4), out, memory, i0, min(i0 + tall, m), j0, min(j0 + wide, n))


@inner
def is_bytes(x, ndarray):
    """Whether x is a matrix of int8 or uint8."""
    return plain(x, ndarray) and ndim(x) == 2 and (number(x) == INT8 or number(x) == UINT8)


@inner
def holds(x, value):
    """Whether a number is one of the dtype of x."""
    return 0 <= value <= 255 if number(x) == UINT8 else -128 <= value <= 127


def integer_door(room, a, b, panels, a_zero, b_zero, out, memory):
    """panels: those of b; memory: what tasks use where no pool lends any."""
    ndarray = look(room, NDARRAY)
    if not is_bytes(a, ndarray) or not is_bytes(b, ndarray) or not plain(out, ndarray) or ndim(out) != 2:
        return REFUSED
    m, k, n = extent(a, 0), extent(a, 1), extent(b, 1)
    if extent(b, 0) != k or number(out) != INT32 or not takes_rows(out, m, n, 4) or not apart(a, out, 4) \
            or not apart(b, out, 4) or not holds(a, a_zero) or not holds(b, b_zero):
        return REFUSED
    unsigned = number(a) == UINT8
    kernel = look(room, KERNELS + 8 * unsigned)
    if kernel == 0:
        return LACKS + unsigned
    if m == 0 or n == 0:
        return DONE
    ns, pool = NS_PER_PRODUCT * m * n * max(k, 1), look(room, PARALLEL)
    if pool == 0 and ns > ALONE_NS:
        return REFUSED
    threads = ask(look(room, THREADS), 0) & 0xFFFF if pool != 0 and ns > RELEASE_NS else 1
    tall, wide = cuts(m, n, 4, threads)
    context = block(word(a, DATA), stride(a, 0), stride(a, 1), word(panels, DATA), stride(panels, 0), word(out, DATA),
                    stride(out, 0), m, n, k, tall, wide, kernel, a_zero, b_zero, SHIFT * (number(b) == UINT8),
                    look(room, WORKSPACE), word(memory, DATA))
    state = leave(room, ns)
    if threads > 1:
        call(pool, -(-m // tall) * -(-n // wide), ns, look(room, TASK), context)
    else:
        call(look(room, TASK), context, 0)
    come_back(room, state)
    return DONE


def pack(b: np.ndarray) -> np.ndarray:
    """b (K, N), int8 or uint8, as the panels of product_range: a row of int32 for each."""
    k, n = b.shape
    panels = arrays.on_a_line((-(-n // NR), panel_words(k)), np.dtype(np.int32))
    compiled(pack_range, "XJii", b.dtype)(b, panels, 0, len(panels))
    return panels


def _one_number(zero: Any) -> int | None:
    """A zero point, None standing for 0; None where it is not one integer."""
    if isinstance(zero, (np.ndarray, np.generic)) and zero.size == 1 and zero.dtype.kind in "iu":
        return int(zero.item())
    return 0 if zero is None else None


def _matmul_integer() -> Method:
    enter = entry(integer_door, "oooiioo")
    room = Room(task(integer_task), ((product_range, PRODUCT),), dtypes=(np.int8, np.uint8))
    words, ndarray, int32, empty = room.words, np.ndarray, np.dtype(np.int32), np.empty
    lent, own = empty(0, np.uint8), native.lib is None

    def matmul_integer(a: Any, b: Any, a_zero: Any, b_zero: Any, out: Any) -> Any:
        panels = given = None
        if type(b) is PackedMatrix:
            panels, given, b = b.numba_b, b, b.numpy()
        if type(a) is not ndarray or type(b) is not ndarray or a.ndim != 2 or b.ndim != 2:
            return NotImplemented
        if panels is None:
            if b.dtype.char not in "bB":
                return NotImplemented
            panels = pack(b) if given is None else given.form("numba_b", pack)
        if type(a_zero) is not int and (a_zero := _one_number(a_zero)) is None \
                or type(b_zero) is not int and (b_zero := _one_number(b_zero)) is None:
            return NotImplemented
        if out is None:
            out = empty((a.shape[0], b.shape[1]), int32)
        memory = scratch(MEMORY, lent.dtype) if own else lent
        try:
            while answer := enter(words, a, b, panels, a_zero, b_zero, out, memory):
                if answer == REFUSED:
                    return NotImplemented
                room.fill(answer)
        except OverflowError:  # a zero point of more than 64 bits, which the long way puts into words
            return NotImplemented
        return out
    return matmul_integer


DOORS: dict[str, Callable[[], Method]] = {"matmul_integer": _matmul_integer}
