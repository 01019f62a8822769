"""out = activation(alpha · a @ b + bias) + beta · c in CUDA, by tiles whose sums stay in registers.

a is taken as rows over k, b as its columns over k: both are operands (rows, k) of any strides, loaded alike.

    block         256 threads, a tile of BM x BM sums: 128 x 128 of float32, 64 x 64 of float64 (V = 4, 2 in 16 bytes)
    thread        2V x 2V sums, rows ty·V … and BM/2 + ty·V …, columns likewise by tx: 64 + 16 operands of registers
    warp          4 x 8 threads: a load of 16 bytes a thread touches 64 or 128 bytes of shared memory, one wavefront
    shared        two buffers of each operand, [8 of k][BM of rows], a step of k 528 bytes apart, so that neither the
                  loads nor the stores of any way to load below meet in a bank
    operand       "k": neighbours along k, V of them a load, turned while they are stored
                  "r": neighbours along the rows
                  "s": any strides, one number a load, every one of them guarded
    k             the next 8 are on their way from memory while these are summed; what is left after the last 8 is
                  loaded one by one, as are all 8 of "s"; rows beyond the last are read from the last and not written
    result        through shared memory, V rows of a thread's after another, so that a warp writes whole rows

Blocks go through tiles eight rows of tiles at a time, so that those that run together share operands in the cache.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, float64, inline, int64, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, kernel, specialise

from .cuda_numbers import numbers
from .cuda_result import result

THREADS, BK, STEP, GROUP = 256, 8, 528, 8
BUFFER = BK * STEP  # bytes
ARGUMENTS = ("r a, r b, r c, r bias, w out, {0} alpha, {0} beta, u32 flags, u32 m, u32 n, u32 k, u32 chunk, "
             "i64 a_r, i64 a_k, i64 a_z, i64 b_r, i64 b_k, i64 b_z, i64 c_r, i64 c_c, i64 bias_c, "
             "i64 o_r, i64 o_c, i64 o_y, i64 o_z")


@inline
def lesser(x, y):
    return x if x < y else y


@inline
def place_of_tile(number, rows, columns):
    """Row and column of a block's tile."""
    band = uint32(uint32(GROUP) * columns)
    first = uint32(uint32(number // band) * uint32(GROUP))
    high = lesser(uint32(rows - first), uint32(GROUP))
    inside = uint32(number % band)
    return uint32(first + uint32(inside % high)), uint32(inside // high)


def _operand(mode: str, n: Any) -> tuple[Any, Any, Any, Any]:
    """(place, last, fetch, put): where a thread's numbers lie in a tile, the last row to load, and how it is done."""
    lanes, real_size = n.lanes, n.real().itemsize
    load_wide, sts_wide, sts, load = n.load_nc_wide, n.sts_wide, n.sts, n.load_nc
    zero, per_row, shift = n.real(0), BK // n.lanes, {4: 1, 2: 2}[n.lanes]

    if mode == "k":
        @inline
        def place(t, across):
            return uint32(t >> uint32(shift)), uint32(uint32(t & uint32(per_row - 1)) * uint32(lanes))

        @inline
        def last(rows):
            return uint32(rows - uint32(1))

        @inline
        def put(p, v):
            for j in range(lanes):
                sts(uint32(p + uint32(j * STEP)), v[j])
    elif mode == "r":
        @inline
        def place(t, across):
            return uint32(uint32(t & uint32(31)) * uint32(lanes)), uint32(t >> uint32(5))

        @inline
        def last(rows):
            return uint32(rows - uint32(lanes))

        @inline
        def put(p, v):
            sts_wide(p, v, 0)
    else:
        @inline
        def place(t, across):
            """Neighbours of a warp are neighbours in memory: across the rows, or along k."""
            if across:
                return uint32(t & uint32(31)), uint32(t >> uint32(5))
            return uint32(t >> uint32(3)), uint32(t & uint32(7))

        @inline
        def last(rows):
            return uint32(0xFFFFFFFF)  # guarded by fetch

        @inline
        def put(p, v):
            for j in range(lanes):
                sts(uint32(p + uint32(j * 32 * real_size)), v[j])

    if mode == "s":
        @inline
        def fetch(v, p, row, rows, at, end, step):
            """Rows row, row + 32 ...; what lies outside is 0."""
            for j in range(lanes):
                v[j] = zero
                if at < end and uint32(row + uint32(32 * j)) < rows:
                    v[j] = load(p + uint64(int64(32 * j) * step))
    else:
        @inline
        def fetch(v, p, row, rows, at, end, step):
            load_wide(v, 0, p)
    return place, last, fetch, put


@specialise(*((a, b, dtype) for dtype in ("float32", "float64") for a, b in ("kk", "kr", "rk", "rr", "ss")),
            ("s", "s", "float16"), ("s", "s", "bfloat16"))
def tile(a_mode: str, b_mode: str, dtype: str) -> Kernel:
    n = numbers(dtype)
    real, real_size, lanes = {4: float32, 2: float64}[n.lanes], n.real().itemsize, n.lanes
    side, half, mine = 32 * n.lanes, 16 * n.lanes, 2 * n.lanes  # rows of a tile, of its half, of a thread
    sums, staged = mine * mine, 4 * BUFFER // n.real().itemsize
    whole = a_mode != "s"
    place_a, last_a, fetch_a, put_a = _operand(a_mode, n)
    place_b, last_b, fetch_b, put_b = _operand(b_mode, n)
    place_s, _, fetch_s, put_s = _operand("s", n)
    lds_wide, sts_wide = n.lds_wide, n.sts_wide
    columns_of, rows_of = result(n, side, half, lanes, side * real_size)
    zero = n.real(0)

    @inline
    def one_k(acc, ra, rb, pa, pb):
        lds_wide(ra, 0, pa)
        lds_wide(ra, lanes, uint32(pa + uint32(half * real_size)))
        lds_wide(rb, 0, pb)
        lds_wide(rb, lanes, uint32(pb + uint32(half * real_size)))
        for i in range(mine):
            for j in range(mine):
                acc[i * mine + j] += ra[i] * rb[j]

    @inline
    def all_k(acc, ra, rb, pa, pb):
        one_k(acc, ra, rb, pa, pb)
        one_k(acc, ra, rb, uint32(pa + uint32(STEP)), uint32(pb + uint32(STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(2 * STEP)), uint32(pb + uint32(2 * STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(3 * STEP)), uint32(pb + uint32(3 * STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(4 * STEP)), uint32(pb + uint32(4 * STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(5 * STEP)), uint32(pb + uint32(5 * STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(6 * STEP)), uint32(pb + uint32(6 * STEP)))
        one_k(acc, ra, rb, uint32(pa + uint32(7 * STEP)), uint32(pb + uint32(7 * STEP)))

    @kernel(ARGUMENTS.format(n.number), threads=THREADS, blocks_per_sm=2 if whole else 1)
    def tile(a, b, c, bias, out, alpha, beta, flags, m, n, k, chunk, a_r, a_k, a_z, b_r, b_k, b_z, c_r, c_c, bias_c,
             o_r, o_c, o_y, o_z):
        room = cuda.shared.array(staged, real, alignment=16)
        acc, ra, rb = cuda.local.array(sums, real), cuda.local.array(mine, real), cuda.local.array(mine, real)
        va, vb = cuda.local.array(lanes, real), cuda.local.array(lanes, real)
        for i in range(sums):
            acc[i] = zero
        t = uint32(cuda.threadIdx.x)
        tm, tn = place_of_tile(uint32(cuda.blockIdx.x), uint32(uint32(m + uint32(side - 1)) // uint32(side)),
                               uint32(uint32(n + uint32(side - 1)) // uint32(side)))
        row, column = uint32(tm * uint32(side)), uint32(tn * uint32(side))
        begin = uint32(uint32(cuda.blockIdx.y) * chunk)
        end = lesser(k, uint32(begin + chunk))
        a += uint64(int64(cuda.blockIdx.z) * a_z)
        b += uint64(int64(cuda.blockIdx.z) * b_z)
        out += uint64(int64(cuda.blockIdx.z) * o_z + int64(cuda.blockIdx.y) * o_y)

        s = ptx.smem_addr(room)
        warp, lane = uint32(t >> uint32(5)), uint32(t & uint32(31))
        ty = uint32(uint32(uint32(warp >> uint32(1)) << uint32(2)) + uint32(lane >> uint32(3)))
        tx = uint32(uint32(uint32(warp & uint32(1)) << uint32(3)) + uint32(lane & uint32(7)))
        read_a, read_b = uint32(s + ty * uint32(16)), uint32(uint32(s + uint32(2 * BUFFER)) + tx * uint32(16))

        ar, ak = place_a(t, abs(a_r) < abs(a_k))
        br, bk = place_b(t, abs(b_r) < abs(b_k))
        write_a = uint32(s + uint32(ak * uint32(STEP) + ar * uint32(real_size)))
        write_b = uint32(uint32(s + uint32(2 * BUFFER)) + uint32(bk * uint32(STEP) + br * uint32(real_size)))
        ar, br = lesser(uint32(row + ar), last_a(m)), lesser(uint32(column + br), last_b(n))
        ak, bk = uint32(begin + ak), uint32(begin + bk)
        pa = a + uint64(int64(ar) * a_r + int64(ak) * a_k)
        pb = b + uint64(int64(br) * b_r + int64(bk) * b_k)
        forth_a, forth_b = uint64(int64(BK) * a_k), uint64(int64(BK) * b_k)
        off = uint32(0)
        at = uint32(begin + uint32(BK))  # the end of the tiles that were begun
        stop = end if whole else uint32(end + uint32(BK - 1))
        if at <= stop:
            fetch_a(va, pa, ar, m, ak, end, a_r)
            fetch_b(vb, pb, br, n, bk, end, b_r)
            put_a(write_a, va)
            put_b(write_b, vb)
            cuda.syncthreads()
            while True:
                at = uint32(at + uint32(BK))
                more = at <= stop
                if more:
                    pa += forth_a
                    pb += forth_b
                    if not whole:
                        ak = uint32(ak + uint32(BK))
                        bk = uint32(bk + uint32(BK))
                    fetch_a(va, pa, ar, m, ak, end, a_r)
                    fetch_b(vb, pb, br, n, bk, end, b_r)
                all_k(acc, ra, rb, uint32(read_a + off), uint32(read_b + off))
                off = uint32(uint32(BUFFER) - off)
                if not more:
                    break
                put_a(uint32(write_a + off), va)
                put_b(uint32(write_b + off), vb)
                cuda.syncthreads()
        if whole:
            at = uint32(at - uint32(BK))
            if at < end:
                ar, ak = place_s(t, abs(a_r) < abs(a_k))
                br, bk = place_s(t, abs(b_r) < abs(b_k))
                fetch_s(va, a + uint64(int64(row + ar) * a_r + int64(at + ak) * a_k), uint32(row + ar), m,
                        uint32(at + ak), end, a_r)
                fetch_s(vb, b + uint64(int64(column + br) * b_r + int64(at + bk) * b_k), uint32(column + br), n,
                        uint32(at + bk), end, b_r)
                put_s(uint32(uint32(s + off) + uint32(ak * uint32(STEP) + ar * uint32(real_size))), va)
                put_s(uint32(uint32(uint32(s + off) + uint32(2 * BUFFER))
                             + uint32(bk * uint32(STEP) + br * uint32(real_size))), vb)
                cuda.syncthreads()
                while at < end:
                    one_k(acc, ra, rb, uint32(read_a + off), uint32(read_b + off))
                    off = uint32(off + uint32(STEP))
                    at = uint32(at + uint32(1))

        line = uint32(s + uint32(uint32(uint32(ty * uint32(side)) + uint32(tx * uint32(lanes))) * uint32(real_size)))
        columns_of(rb, t, column, n, bias, bias_c, flags)
        part = uint32(0)
        while part < uint32(lanes):
            cuda.syncthreads()
            for i in range(lanes):
                if part == uint32(i):
                    for h in range(2):
                        p = uint32(line + uint32(h * 16 * side * real_size))
                        sts_wide(p, acc, (h * lanes + i) * mine)
                        sts_wide(uint32(p + uint32(half * real_size)), acc, (h * lanes + i) * mine + lanes)
            cuda.syncthreads()
            rows_of(s, t, uint32(row + part), column, rb, c, out, alpha, beta, flags, m, n, c_r, c_c, o_r, o_c)
            part = uint32(part + uint32(1))
    return tile
