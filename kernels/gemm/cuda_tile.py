"""out = activation(alpha · a @ b + bias) + beta · c in CUDA, by tiles whose sums stay in registers.

a is taken as rows over k, b as its columns over k: both are operands (rows, k), loaded alike, 16 bytes at a time.

    block         256 threads, a tile of BM x BM sums: 128 x 128 of float32, 64 x 64 of float64 (V = 4, 2 in 16 bytes)
    thread        2V x 2V sums, rows ty·V … and BM/2 + ty·V …, columns likewise by tx: 64 + 16 operands of registers
    warp          4 x 8 threads: a load of 16 bytes a thread touches 64 or 128 bytes of shared memory, one wavefront
    shared        two buffers of each operand, [8 of k][BM of rows], a step of k 528 bytes apart, so that neither the
                  loads nor the stores of any way to load below meet in a bank
    operand       "k": neighbours along k, V of them a load, turned while they are stored
                  "r": neighbours along the rows; what lies otherwise is packed before (cuda_pack.py)
    k             the next 8 are on their way from memory while these are summed; what is left after the last 8 is
                  loaded one by one; rows beyond the last are read from the last and not written
    result        through shared memory, V rows of a thread's after another, so that a warp writes whole rows

Blocks go through tiles eight rows of tiles at a time, so that those that run together share operands in the cache.
"""
from __future__ import annotations

from typing import Any

from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.bars import Bars
from tilewright.kernels.ptx.cuda import cuda, inline, int64, uint32, uint64
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


def _operand(mode: str, n: Any) -> tuple[Any, Any, Any]:
    """(place, last, put): where a thread's numbers lie in a tile, the last row to load, and how they are stored."""
    lanes, sts_wide, sts = n.lanes, n.sts_wide, n.sts
    per_row, shift = BK // n.lanes, {4: 1, 2: 2}[n.lanes]

    if mode == "k":
        @inline
        def place(t):
            return uint32(t >> uint32(shift)), uint32(uint32(t & uint32(per_row - 1)) * uint32(lanes))

        @inline
        def last(rows):
            return uint32(rows - uint32(1))

        @inline
        def put(p, v):
            for j in range(lanes):
                sts(uint32(p + uint32(j * STEP)), v[j])
    else:
        @inline
        def place(t):
            return uint32(uint32(t & uint32(31)) * uint32(lanes)), uint32(t >> uint32(5))

        @inline
        def last(rows):
            return uint32(rows - uint32(lanes))

        @inline
        def put(p, v):
            sts_wide(p, v, 0)
    return place, last, put


def _rest(n: Any) -> Any:
    """What is left of k, number by number; neighbours of a warp lie across the rows or along k, which is nearer."""
    lanes, size, zero, load, sts = n.lanes, n.real().itemsize, n.real(0), n.load_nc, n.sts

    @inline
    def place(t, across):
        if across:
            return uint32(t & uint32(31)), uint32(t >> uint32(5))
        return uint32(t >> uint32(3)), uint32(t & uint32(7))

    @inline
    def bring(to, t, p, first, rows, at, end, row_step, k_step):
        """Rows first + row, first + row + 32 ...; what lies outside is 0."""
        row, k = place(t, abs(row_step) < abs(k_step))
        to = uint32(to + uint32(k * uint32(STEP) + row * uint32(size)))
        p += uint64(int64(uint32(first + row)) * row_step + int64(uint32(at + k)) * k_step)
        for j in range(lanes):
            number = zero
            if uint32(at + k) < end and uint32(first + uint32(row + uint32(32 * j))) < rows:
                number = load(p + uint64(int64(32 * j) * row_step))
            sts(uint32(to + uint32(32 * j * size)), number)
    return bring


@specialise(*((a, b, dtype) for dtype in ("float32", "float64") for a, b in ("kk", "kr", "rk", "rr")),
            ("k", "k", "bfloat16"))
def tile(a_mode: str, b_mode: str, dtype: str) -> Kernel:
    n = numbers("float64" if dtype == "float64" else "float32")  # of the operands
    real, real_size, lanes = n.type, n.real().itemsize, n.lanes
    side, half, mine = 32 * n.lanes, 16 * n.lanes, 2 * n.lanes  # rows of a tile, of its half, of a thread
    sums, staged = mine * mine, 4 * BUFFER // n.real().itemsize
    (place_a, last_a, put_a), (place_b, last_b, put_b), bring = _operand(a_mode, n), _operand(b_mode, n), _rest(n)
    fetch, lds_wide, sts_wide = n.load_nc_wide, n.lds_wide, n.sts_wide
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

    @inline
    def put_part(acc, to, i):
        """Row i of each thread's in both halves of the tile."""
        for h in range(2):
            p = uint32(to + uint32(h * 16 * side * real_size))
            sts_wide(p, acc, (h * lanes + i) * mine)
            sts_wide(uint32(p + uint32(half * real_size)), acc, (h * lanes + i) * mine + lanes)

    ffma = 0.875 if a_mode + b_mode == "rk" else 0.88  # which has 87.8 % on sm_100
    results = result(numbers(dtype), put_part, lanes, 1, half, lanes, side * real_size)

    @kernel(ARGUMENTS.format(n.number), threads=THREADS, blocks_per_sm=2,
            bars=Bars(registers=128, ffma=ffma, loads=128, conflicts=1.0) if lanes == 4 else Bars(conflicts=1.0))
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

        ar, ak = place_a(t)
        br, bk = place_b(t)
        write_a = uint32(s + uint32(ak * uint32(STEP) + ar * uint32(real_size)))
        write_b = uint32(uint32(s + uint32(2 * BUFFER)) + uint32(bk * uint32(STEP) + br * uint32(real_size)))
        ar, br = lesser(uint32(row + ar), last_a(m)), lesser(uint32(column + br), last_b(n))
        pa = a + uint64(int64(ar) * a_r + int64(uint32(begin + ak)) * a_k)
        pb = b + uint64(int64(br) * b_r + int64(uint32(begin + bk)) * b_k)
        forth_a, forth_b = uint64(int64(BK) * a_k), uint64(int64(BK) * b_k)
        off = uint32(0)
        at = uint32(begin + uint32(BK))  # the end of the tiles that were begun
        if at <= end:
            fetch(va, 0, pa)
            fetch(vb, 0, pb)
            put_a(write_a, va)
            put_b(write_b, vb)
            cuda.syncthreads()
            while True:
                at = uint32(at + uint32(BK))
                more = at <= end
                if more:
                    pa += forth_a
                    pb += forth_b
                    fetch(va, 0, pa)
                    fetch(vb, 0, pb)
                all_k(acc, ra, rb, uint32(read_a + off), uint32(read_b + off))
                off = uint32(uint32(BUFFER) - off)
                if not more:
                    break
                put_a(uint32(write_a + off), va)
                put_b(uint32(write_b + off), vb)
                cuda.syncthreads()
        at = uint32(at - uint32(BK))
        if at < end:
            bring(uint32(s + off), t, a, row, m, at, end, a_r, a_k)
            bring(uint32(uint32(s + off) + uint32(2 * BUFFER)), t, b, column, n, at, end, b_r, b_k)
            cuda.syncthreads()
            while at < end:
                one_k(acc, ra, rb, uint32(read_a + off), uint32(read_b + off))
                off = uint32(off + uint32(STEP))
                at = uint32(at + uint32(1))

        to = uint32(s + uint32(uint32(uint32(ty * uint32(side)) + uint32(tx * uint32(lanes))) * uint32(real_size)))
        results(acc, to, s, t, row, column, c, bias, out, alpha, beta, flags, m, n, c_r, c_c, bias_c, o_r, o_c)
    return tile
