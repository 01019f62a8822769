"""The products on plain arrays: doors (vector/door.py) for matmul, gemm, linear and linear_backward.

    product    out (M, N) = f(alpha * op(a) @ op(b) + beta * c) + residual

A product is cut into rectangles of whole tiles, across the columns first: those in one column of rectangles pack the
same columns of b again. A task is one rectangle: the kernel, then the activation and the residual while it is in cache.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from tilewright.core import native
from tilewright.kernels.vector.door import (
    ALONE_NS,
    DONE,
    NDARRAY,
    NONE,
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
    itemsize_of,
    kernel_place,
    lacks,
    leave,
    look,
    task,
)
from tilewright.kernels.vector.host import BYTES, inner
from tilewright.kernels.vector.objects import (
    C_ORDER,
    DATA,
    apart,
    ask,
    block,
    call,
    dense,
    elements,
    extent,
    matrix,
    ndim,
    place_of,
    plain,
    real,
    stride,
    word,
    writeable,
)
from tilewright.kernels.vector.ranges import scratch
from tilewright.kernels.vector.rows import column_sums_range

from .blocked import WORK_BYTES, gemm_range
from .epilogue import activate_range, add_range
from .microkernel import MR, NV

NS_PER_PRODUCT = 0.009  # one multiply-add of float32 at 220 GFLOP/s
RECTANGLES = 2  # for each thread: they run at unequal speed
GEMM, ACTIVATE, ADD, SUMS = range(4)  # the kernels of a room
KERNELS: tuple[tuple[Any, str], ...] = (
    (gemm_range, "fXXfXYyiiii"), (activate_range, "iyiiiii"), (add_range, "Xyiiiii"), (column_sums_range, "xiiyii"))
# A context, in words: address, row stride and column stride of each operand; sizes; cuts; functions; memory; scales
A, B, C, OUT, RESIDUAL = range(0, 120, 24)
M, N, K, SIZE, TALL, WIDE, MULTIPLY, CODE, EPILOGUE, REST, LEND, MEMORY, ALPHA, BETA = range(120, 232, 8)


@inner
def operand(context, place, rows, columns):
    """The matrix that stands at a place of the context; one row for all where its row stride is 0."""
    step, size = word(context, place + 8), word(context, SIZE)
    return matrix(word(context, place), rows if step != 0 else 1, columns, step, word(context, place + 16), size)


def product_task(context, number):
    """One rectangle."""
    m, n, k, size = word(context, M), word(context, N), word(context, K), word(context, SIZE)
    tall, wide, code = word(context, TALL), word(context, WIDE), word(context, CODE)
    down = -(-m // tall)
    i0, j0 = number % down * tall, number // down * wide
    i1, j1 = min(i0 + tall, m), min(j0 + wide, n)
    a, b, c, out = (matrix(word(context, A), m, k, word(context, A + 8), word(context, A + 16), size),
                    matrix(word(context, B), k, n, word(context, B + 8), word(context, B + 16), size),
                    operand(context, C, m, n), operand(context, OUT, m, n))
    lend = word(context, LEND)
    memory = ask(lend, WORK_BYTES) if lend != 0 else word(context, MEMORY)
    work, alpha, beta = elements(memory, WORK_BYTES // size, size), real(context, ALPHA), real(context, BETA)
    if size == 4:
        call(word(context, MULTIPLY), types.float32(alpha), a, b, types.float32(beta), c, out, work, i0, i1, j0, j1)
    else:
        call(word(context, MULTIPLY), alpha, a, b, beta, c, out, work, i0, i1, j0, j1)
    y = elements(word(context, OUT), m * n, size)
    if code != 0:
        call(word(context, EPILOGUE), code, y, n, i0, i1, j0, j1)
    if word(context, RESIDUAL) != 0:
        call(word(context, REST), operand(context, RESIDUAL, m, n), y, n, i0, i1, j0, j1)


@inner
def cuts(m, n, size, threads):
    """(tall, wide) of the rectangles."""
    if threads <= 1:
        return m, n
    panel = NV * BYTES // size
    across = min(RECTANGLES * threads, -(-n // (2 * panel)))
    wide = -(-n // (across * panel)) * panel
    down = -(-RECTANGLES * threads // -(-n // wide))
    return -(-m // (down * MR)) * MR, wide


@inner
def multiply(room, alpha, a, b, beta, c, out, residual, m, n, k, size, code, memory):
    """Run one product; a, b, c, out, residual are (address, row stride, column stride). DONE or REFUSED."""
    if m == 0 or n == 0:
        return DONE
    ns = NS_PER_PRODUCT * m * n * max(k, 1) * (size // 4)
    pool = look(room, PARALLEL)
    if pool == 0 and ns > ALONE_NS:
        return REFUSED
    threads = ask(look(room, THREADS), 0) & 0xFFFF if pool != 0 and ns > RELEASE_NS else 1
    tall, wide = cuts(m, n, size, threads)
    gemm, activate, add = (look(room, kernel_place(GEMM, size)), look(room, kernel_place(ACTIVATE, size)),
                           look(room, kernel_place(ADD, size)))
    context = block(a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2], out[0], out[1], out[2],
                    residual[0], residual[1], residual[2], m, n, k, size, tall, wide, gemm, code, activate, add,
                    look(room, WORKSPACE), memory, alpha, beta)
    state = leave(room, ns)
    if threads > 1:
        call(pool, -(-m // tall) * -(-n // wide), ns, look(room, TASK), context)
    else:
        call(look(room, TASK), context, 0)
    come_back(room, state)
    return DONE


@inner
def strided(x, turned):
    """(address, row stride, column stride) of a matrix, or of its transpose; of a vector as a row for all rows."""
    if ndim(x) == 1:
        return word(x, DATA), 0, stride(x, 0)
    return word(x, DATA), stride(x, turned), stride(x, 1 - turned)


@inner
def is_matrix(x, size, ndarray):
    return plain(x, ndarray) and ndim(x) == 2 and itemsize_of(x) == size


@inner
def takes_rows(out, m, n, size):
    """Whether rows of a product can be written there: columns without gaps, rows apart."""
    return writeable(out) and extent(out, 0) == m and extent(out, 1) == n and (n <= 1 or stride(out, 1) == size) \
        and (m <= 1 or abs(stride(out, 0)) >= n * size)


@inner
def fits_rows(c, m, n, size, ndarray):
    """Whether c is (M, N) or (N,), its columns without gaps."""
    if not plain(c, ndarray) or itemsize_of(c) != size or ndim(c) < 1 or ndim(c) > 2:
        return False
    last = ndim(c) - 1
    return extent(c, last) == n and (n <= 1 or stride(c, last) == size) and (last == 0 or extent(c, 0) == m)


@inner
def own_memory(memory, none):
    return word(memory, DATA) if place_of(memory) != none else 0


def product_door(room, a, turn_a, b, turn_b, c, residual, alpha, beta, code, out, memory):
    """turn: 1 to take the transpose; c: (M, N), (N,) or None; residual: (M, N) or None; memory: see _memory."""
    ndarray, none = look(room, NDARRAY), look(room, NONE)
    if not plain(a, ndarray):
        return REFUSED
    size = itemsize_of(a)
    for x in (a, b, out):
        if size == 0 or not is_matrix(x, size, ndarray):
            return REFUSED
    m, k, n = extent(a, turn_a), extent(a, 1 - turn_a), extent(b, 1 - turn_b)
    if extent(b, turn_b) != k or not takes_rows(out, m, n, size) or not apart(a, out, size) or not apart(b, out, size):
        return REFUSED
    target = strided(out, 0)
    addend, more = target, (0, 0, 0)
    if place_of(c) == none:
        beta = 0.0
    else:
        if not fits_rows(c, m, n, size, ndarray):
            return REFUSED
        addend = strided(c, 0)
        if not apart(c, out, size) and (ndim(c) == 1 or addend != target):
            return REFUSED
    ends = code != 0
    if place_of(residual) != none:
        if not is_matrix(residual, size, ndarray) or extent(residual, 0) != m or extent(residual, 1) != n \
                or not apart(residual, out, size):
            return REFUSED
        more, ends = strided(residual, 0), True
    if ends and not dense(out, C_ORDER):
        return REFUSED
    if look(room, kernel_place(GEMM, size)) == 0:
        return lacks(size)
    return multiply(room, alpha, strided(a, turn_a), strided(b, turn_b), beta, addend, target, more, m, n, k, size,
                    code, own_memory(memory, none))


def linear_backward_door(room, dy, x, w, dx, dw, dbias, memory):
    """dx = dy @ w, dw = dy.T @ x, dbias = dy's column sums; all are looked at before the first is written."""
    ndarray, none = look(room, NDARRAY), look(room, NONE)
    if not plain(dy, ndarray):
        return REFUSED
    size = itemsize_of(dy)
    for operand in (dy, x, w, dx, dw):
        if size == 0 or not is_matrix(operand, size, ndarray):
            return REFUSED
    m, n, k = extent(dy, 0), extent(dy, 1), extent(x, 1)
    if extent(x, 0) != m or extent(w, 0) != n or extent(w, 1) != k or not dense(dy, C_ORDER) \
            or not takes_rows(dx, m, k, size) or not takes_rows(dw, n, k, size) \
            or ndim(dbias) != 1 or not fits_rows(dbias, 1, n, size, ndarray) or not writeable(dbias):
        return REFUSED
    for i, result in enumerate((dx, dw, dbias)):
        for j, other in enumerate((dy, x, w, dx, dw, dbias)):
            if j != i + 3 and not apart(result, other, size):
                return REFUSED
    if look(room, kernel_place(GEMM, size)) == 0:
        return lacks(size)
    own, nothing, dx_at, dw_at = own_memory(memory, none), (0, 0, 0), strided(dx, 0), strided(dw, 0)
    if multiply(room, 1.0, strided(dy, 0), strided(w, 0), 0.0, dx_at, dx_at, nothing, m, k, n, size, 0, own) == REFUSED:
        return REFUSED
    multiply(room, 1.0, strided(dy, 1), strided(x, 0), 0.0, dw_at, dw_at, nothing, n, k, m, size, 0, own)
    call(look(room, kernel_place(SUMS, size)), elements(word(dy, DATA), m * n, size), m, n,
         elements(word(dbias, DATA), n, size), 0, n)
    return DONE


def _memory() -> np.ndarray | None:
    """What a task works in where there is no pool that lends it memory."""
    return None if native.lib is not None else scratch(WORK_BYTES, np.dtype(np.uint8))


def _product(kernels: int) -> Method:
    """product_door with a room of the first `kernels` kernels; retried once they are compiled."""
    enter, room = entry(product_door, "oioiooffioo"), Room(task(product_task), KERNELS[:kernels])
    words = room.words

    def run(a: Any, turn_a: int, b: Any, turn_b: int, c: Any, residual: Any, alpha: float, beta: float, code: int,
            out: Any) -> Any:
        if out is None:
            if type(a) is not np.ndarray or type(b) is not np.ndarray or a.ndim != 2 or b.ndim != 2:
                return NotImplemented
            out = np.empty((a.shape[turn_a], b.shape[1 - turn_b]), a.dtype)
        while answer := enter(words, a, turn_a, b, turn_b, c, residual, alpha, beta, code, out, _memory()):
            if answer == REFUSED:
                return NotImplemented
            room.fill(answer)
        return out
    return run


def _matmul() -> Method:
    run = _product(1)
    return lambda a, b, out: run(a, 0, b, 0, None, None, 1.0, 0.0, 0, out)


def _gemm() -> Method:
    run = _product(1)

    def gemm(a: Any, b: Any, c: Any, alpha: Any, beta: Any, trans_a: Any, trans_b: Any, out: Any) -> Any:
        if not isinstance(alpha, (float, int)) or not isinstance(beta, (float, int)) \
                or not isinstance(trans_a, (bool, int)) or not isinstance(trans_b, (bool, int)):
            return NotImplemented
        return run(a, int(trans_a != 0), b, int(trans_b != 0), c, None, alpha, beta, 0, out)
    return gemm


def _linear() -> Method:
    run = _product(3)
    return lambda x, w, bias, residual, code, out: run(x, 0, w, 1, bias, residual, 1.0, 1.0, code, out) \
        if bias is None or getattr(bias, "ndim", 0) == 1 else NotImplemented


def _linear_backward() -> Method:
    enter, room = entry(linear_backward_door, "ooooooo"), Room(task(product_task), KERNELS)

    def linear_backward(dy: Any, x: Any, w: Any, *outs: Any) -> Any:
        if type(x) is not np.ndarray or type(w) is not np.ndarray or w.ndim != 2 or len(outs) != 3:
            return NotImplemented
        shapes = x.shape, w.shape, w.shape[:1]
        grads = tuple(np.empty(shape, x.dtype) if out is None else out
                      for shape, out in zip(shapes, outs, strict=True))
        while answer := enter(room.words, dy, x, w, *grads, _memory()):
            if answer == REFUSED:
                return NotImplemented
            room.fill(answer)
        return grads
    return linear_backward


DOORS: dict[str, Callable[[], Method]] = {"matmul": _matmul, "gemm": _gemm, "linear": _linear,
                                          "linear_backward": _linear_backward}
