"""How an operand of tensor cores comes to shared memory, and from there to the registers of a warp.

A stage of an operand is 128 rows by 64 bytes of k: 32 numbers of 16 bits, or 16 of tf32. It lies as in memory,

    "k"   neighbours along k        [128 rows][64 bytes of k]: 16 bytes number i of row r are at i ^ (r / 2 % 4)
    "r"   neighbours along rows     [32 of k][128 rows]: 16 bytes number i of step j are at i ^ (j % 8); ldmatrix turns
                                    them (of 16 bits only)

so that the 8 rows of 16 bytes that ldmatrix reads at once lie in different banks. A thread brings 32 bytes of a stage:
16, and 16 that are 64 rows or 16 of k further on. What lies beyond the end of k is 0; rows beyond the last are read
from the last.
"""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import inline, int32, int64, uint32, uint64

from .cuda_tile import lesser

SIDE = 128
BYTES = SIDE * 64  # of a stage of one operand
FURTHER = BYTES // 2  # to a thread's second 16 bytes


@inline
def line(row, i):
    """Where 16 bytes number i of a row lie in a stage of "k"."""
    turned = uint32(i ^ uint32(uint32(row >> uint32(1)) & uint32(3)))
    return uint32(uint32(row * uint32(64)) + uint32(turned << uint32(4)))


def operand(mode: str, size: int) -> SimpleNamespace:
    """Device functions for an operand of numbers of 1, 2 or 4 bytes.

    place(t)              a thread's first row and step of k          last(rows)      the last row to begin to read at
    second(…)             bytes from its first 16 to its second       offset(row, k)  their place in a stage
    copy                  both by cp.async; fetch, put: through registers; `left`: how many of k, from the first on
    """
    return _by_k(size) if mode == "k" else _by_rows()


def _by_k(size: int) -> SimpleNamespace:
    shift = {1: 4, 2: 3, 4: 2}[size]

    @inline
    def place(t):
        return uint32(t >> uint32(2)), uint32(uint32(t & uint32(3)) << uint32(shift))

    @inline
    def last(rows):
        return uint32(rows - uint32(1))

    @inline
    def second(row, rows, step, k_step):
        end = uint32(rows - uint32(1))
        return uint64(int64(int32(lesser(uint32(row + uint32(64)), end)) - int32(lesser(row, end))) * step)

    @inline
    def offset(row, k):
        return line(row, uint32(k >> uint32(shift)))
    return SimpleNamespace(place=place, last=last, second=second, offset=offset, **_moves(0))


def _by_rows() -> SimpleNamespace:
    @inline
    def place(t):
        return uint32(uint32(t & uint32(15)) * uint32(8)), uint32(t >> uint32(4))

    @inline
    def last(rows):
        return uint32(rows - uint32(8))

    @inline
    def second(row, rows, step, k_step):
        return uint64(int64(16) * k_step)

    @inline
    def offset(row, k):
        i = uint32(uint32(row >> uint32(3)) ^ uint32(k & uint32(7)))
        return uint32(uint32(k * uint32(256)) + uint32(i << uint32(4)))
    return SimpleNamespace(place=place, last=last, second=second, offset=offset, **_moves(16))


def _moves(apart: int) -> dict[str, Any]:
    """apart: how many of k from a thread's first 16 bytes to its second."""
    @inline
    def copy(to, p, further, left):
        ptx.cp_async_16_first(to, p, uint32(16) if left > int32(0) else uint32(0))
        ptx.cp_async_16_first(uint32(to + uint32(FURTHER)), p + further,
                              uint32(16) if left > int32(apart) else uint32(0))

    @inline
    def fetch(v, p, further, left):
        for i in range(8):
            v[i] = uint32(0)
        if left > int32(0):
            v[0], v[1], v[2], v[3] = ptx.ldg_u32x4(p)
        if left > int32(apart):
            v[4], v[5], v[6], v[7] = ptx.ldg_u32x4(p + further)

    @inline
    def put(to, v):
        ptx.sts_u32x4(to, v[0], v[1], v[2], v[3])
        ptx.sts_u32x4(uint32(to + uint32(FURTHER)), v[4], v[5], v[6], v[7])
    return {"copy": copy, "fetch": fetch, "put": put}


def _load(mode: str, count: int) -> Any:
    """`count` times 16 rows, 32 bytes of k, into an array; p: where a lane begins to read"""
    if mode == "k":
        @inline
        def load(r, p, half):
            for i in range(count):
                r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3] = ptx.ldmatrix_x4(
                    uint32(uint32(p ^ uint32(32 * half)) + uint32(1024 * i)))
    else:
        @inline
        def load(r, p, half):
            for i in range(count):
                r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3] = ptx.ldmatrix_x4_trans(
                    uint32(uint32(p ^ uint32(32 * i)) + uint32(4096 * half)))
    return load


def rows_of_a(mode: str) -> tuple[Any, Any]:
    """(start, load): where a lane begins to read a's pieces of a stage; the four of 32 bytes of k into an array."""
    if mode == "k":
        @inline
        def start(lane, first):
            return line(uint32(first + uint32(lane & uint32(15))), uint32(lane >> uint32(4)))
    else:
        @inline
        def start(lane, first):
            k = uint32(uint32(uint32(lane >> uint32(4)) << uint32(3)) + uint32(lane & uint32(7)))
            i = uint32(uint32(first >> uint32(3)) + uint32(uint32(lane >> uint32(3)) & uint32(1)))
            return uint32(uint32(k * uint32(256)) + uint32(uint32(i ^ uint32(lane & uint32(7))) << uint32(4)))
    return start, _load(mode, 4)


def columns_of_b(mode: str) -> tuple[Any, Any]:
    """The same of b's pieces, two of 16 columns."""
    if mode == "k":
        @inline
        def start(lane, first):
            row = uint32(uint32(first + uint32(lane & uint32(7))) + uint32(uint32(lane >> uint32(4)) << uint32(3)))
            return line(row, uint32(uint32(lane >> uint32(3)) & uint32(1)))
    else:
        @inline
        def start(lane, first):
            k = uint32(uint32(uint32(uint32(lane >> uint32(3)) & uint32(1)) << uint32(3)) + uint32(lane & uint32(7)))
            i = uint32(uint32(first >> uint32(3)) + uint32(lane >> uint32(4)))
            return uint32(uint32(k * uint32(256)) + uint32(uint32(i ^ uint32(lane & uint32(7))) << uint32(4)))
    return start, _load(mode, 2)
