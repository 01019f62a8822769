"""How the sums of a block of 256 threads become rows of the result: activation(alpha · sum + bias) + beta · c.

They go through shared memory a part after another, 32 rows at a time: 16 of each half of the tile. A warp takes a whole
row, each lane its columns of all rows: `lanes` neighbours by one access where that can be (WIDE), else every 32nd, so
that the accesses of a warp meet in the same sectors.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx.cuda import cuda, inline, int64, uint32, uint64

from .cuda_numbers import WIDE


def result(numbers: Any, put_part: Any, parts: int, next_part: int, half: int, apart: int, line: int) -> Any:
    """The device function for all results of a tile.

    put_part(acc, to, i) stores a thread's sums of part i of so many; next_part: rows from one part to the next; half:
    rows between the two halves; apart: rows between those of a half; line: bytes from one row of sums to the next.
    """
    n, lanes, size = numbers, numbers.lanes, numbers.real().itemsize
    real, zero, load, optional = n.type, n.real(0), n.load, n.optional
    store, finish = n.store, n.finish
    load_wide, store_wide, lds, lds_wide = n.load_wide, n.store_wide, n.lds, n.lds_wide

    @inline
    def single(j, p, at, columns, to, bias, old, alpha, beta, flags, o_c):
        if uint32(at + uint32(32 * j)) < columns:
            total = lds(uint32(p + uint32(32 * j * size)))
            store(to + uint64(int64(32 * j) * o_c), finish(total, bias, old, alpha, beta, flags))

    @inline
    def columns_of(biases, t, column, columns, bias, bias_c, flags):
        wide = (flags & uint32(WIDE)) != uint32(0)
        first = uint32(column + uint32(uint32(t & uint32(31)) * uint32(lanes if wide else 1)))
        for j in range(lanes):
            at = uint32(first + uint32(j if wide else 32 * j))
            biases[j] = optional(bias, uint64(int64(at) * bias_c)) if at < columns else zero

    @inline
    def rows_of(s, t, row, column, biases, c, out, alpha, beta, flags, rows, columns, c_r, c_c, o_r, o_c):
        sums, old = cuda.local.array(lanes, real), cuda.local.array(lanes, real)
        wide = (flags & uint32(WIDE)) != uint32(0)
        first = uint32(uint32(t & uint32(31)) * uint32(lanes if wide else 1))
        at = uint32(column + first)
        r = uint32(t >> uint32(5))
        while r < uint32(32):
            i = uint32(row + uint32(uint32(uint32(r >> uint32(4)) * uint32(half))
                                    + uint32(uint32(r & uint32(15)) * uint32(apart))))
            p = uint32(uint32(s + uint32(r * uint32(line))) + uint32(first * uint32(size)))
            to = out + uint64(int64(i) * o_r + int64(at) * o_c)
            more = c + uint64(int64(i) * c_r + int64(at) * c_c)
            if i < rows:
                for j in range(lanes):
                    old[j] = zero
                if c != uint64(0):
                    if wide:
                        if at < columns:
                            load_wide(old, 0, more)
                    else:
                        for j in range(lanes):
                            if uint32(at + uint32(32 * j)) < columns:
                                old[j] = load(more + uint64(int64(32 * j) * c_c))
                if wide:
                    if at < columns:
                        lds_wide(sums, 0, p)
                        for j in range(lanes):
                            sums[j] = finish(sums[j], biases[j], old[j], alpha, beta, flags)
                        store_wide(to, sums, 0, flags)
                else:
                    single(0, p, at, columns, to, biases[0], old[0], alpha, beta, flags, o_c)
                    single(1, p, at, columns, to, biases[1], old[1], alpha, beta, flags, o_c)
                    if lanes == 4:
                        single(2, p, at, columns, to, biases[2], old[2], alpha, beta, flags, o_c)
                        single(3, p, at, columns, to, biases[3], old[3], alpha, beta, flags, o_c)
            r = uint32(r + uint32(8))

    @inline
    def results(acc, to, s, t, row, column, c, bias, out, alpha, beta, flags, rows, columns, c_r, c_c, bias_c, o_r,
                o_c):
        biases = cuda.local.array(lanes, real)
        columns_of(biases, t, column, columns, bias, bias_c, flags)
        part = uint32(0)
        while part < uint32(parts):
            cuda.syncthreads()
            for i in range(parts):
                if part == uint32(i):
                    put_part(acc, to, i)
            cuda.syncthreads()
            rows_of(s, t, uint32(row + uint32(part * uint32(next_part))), column, biases, c, out, alpha, beta, flags,
                    rows, columns, c_r, c_c, o_r, o_c)
            part = uint32(part + uint32(1))
    return results
