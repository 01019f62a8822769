"""The blocked product of integers in Numba: packing and the loops around the register tile of microkernel.py.

    product_range(a, a_zero, panels, shift, b_zero, out, memory, i0, i1, j0, j1)
    pack_range(b, panels, first, end)                                    panels number first ... end - 1

    out[i, j] = sum_p (a[i, p] - a_zero[i]) * (b[p, j] - b_zero[j])      one rectangle of it, modulo 2^32

a and b int8 or uint8 with any strides; zero points int32, a_zero with any stride, b_zero contiguous or with stride 0;
out int32 with contiguous columns. j0 begins a panel. shift: SHIFT of microkernel.py for an unsigned b, else 0. memory:
MEMORY bytes, contiguous, not used by anyone else meanwhile. Serial, no GIL, no state: rectangles may run at the same
time.

    panel    NR columns of b, all of k: [k / DEPTH][NR] words, a last row of zeros filled up, then [NR] column sums

    for jc in columns by NC                        960 KB of panels at most for a block of k: they stay in L2
      for pc in words of k by KC
        for ic in rows by MR                       strip of a: MR rows of 2 KB, from L1
          for jr in the block's columns by NR      register tile, MR x NR

A strip is read from a itself where groups lie there as the tile reads them, else copied. The tile subtracts a's zero
points, with the column sums; b's, rarer, are subtracted from finished strips, with the row sums.
"""
from __future__ import annotations

import numpy as np

from tilewright.kernels.gemm.blocked import KC, NC_VECTORS
from tilewright.kernels.vector.host import BYTES, HAS_VNNI, inner, njit
from tilewright.kernels.vector.memory import address, filled, lanes, load_at, store_at

from .microkernel import DEPTH, GROUP_LANES, MR, NR, group, group_sum, interleave, lowered, raised, tile

GROUPED = np.uint8 if HAS_VNNI else np.int16
NC = NC_VECTORS * BYTES // 4
MEMORY = MR * KC * 4
WORD_LANES = BYTES // 4  # words that `interleave` makes


@inner
def words_of(k):
    """How many words hold k elements."""
    return -(-k // DEPTH)


def panel_words(k: int) -> int:
    """The words of a panel."""
    return (-(-k // DEPTH) + 1) * NR


@inner
def copy_strip(a, i0, rows, p0, n, strip):
    """strip[i, p] = a[i0 + i, p0 + p] for p < n, raised as groups are; then zeros up to a whole word."""
    whole = words_of(n) * DEPTH
    for i in range(rows):
        at, p = i * KC * DEPTH, 0
        if a.strides[1] == 1:
            source, to = address(a) + (i0 + i) * a.strides[0] + p0, address(strip) + at * strip.itemsize
            while p < n and n >= GROUP_LANES:
                q = min(p, n - GROUP_LANES)  # the last ones overlap those before
                group(a, to + q * strip.itemsize, source + q)
                p = q + GROUP_LANES
        while p < n:
            strip[at + p] = a[i0 + i, p0 + p] + raised(a)
            p += 1
        while p < whole:
            strip[at + p] = 0
            p += 1


@inner
def row_sum(a, i):
    """The sum of a[i]."""
    total = p = 0
    if a.strides[1] == 1:
        source = address(a) + i * a.strides[0]
        while a.shape[1] - p >= GROUP_LANES:
            total += group_sum(a, source + p) - GROUP_LANES * raised(a)
            p += GROUP_LANES
    while p < a.shape[1]:
        total += a[i, p]
        p += 1
    return total


@inner
def subtract_b_zero(a, a_zero, shift, b_zero, out, i0, i1, j0, j1):
    """out[i, j] -= (b_zero[j] - shift) * sum_p (a[i, p] - a_zero[i])"""
    for i in range(i0, i1):
        total = np.int32(row_sum(a, i) - a.shape[1] * np.int64(a_zero[i]))
        for j in range(j0, j1, lanes(out)):
            n, at = min(lanes(out), j1 - j), address(out) + i * out.strides[0] + 4 * j
            zero = filled(b_zero, b_zero[j])
            if b_zero.strides[0] != 0:
                zero = load_at(b_zero, address(b_zero) + 4 * j, n)
            store_at(out, at, load_at(out, at, n) - (zero - shift) * total, n)


@inner
def any_differs(x, value, lo, hi):
    """Whether an element of x[lo:hi] differs from a value; one is looked at where it stands for all."""
    for j in range(lo, lo + 1 if x.strides[0] == 0 else hi):
        if x[j] != value:
            return True
    return False


@njit
def product_range(a, a_zero, panels, shift, b_zero, out, memory, i0, i1, j0, j1):
    """See the head of this file."""
    if i1 <= i0 or j1 <= j0:
        return
    k = a.shape[1]
    words, strip = words_of(k), memory.view(GROUPED)
    as_it_is = DEPTH == 4 and raised(a) == 0 and a.strides[1] == 1 and k % DEPTH == 0
    b_zeros = any_differs(b_zero, shift, j0, j1)
    for jc in range(j0, j1, NC):
        n = min(NC, j1 - jc)
        for p0 in range(0, max(1, words), KC):
            depth, p = min(KC, words - p0), p0 * DEPTH
            i = i0
            while i < i1:
                rest = i1 - i
                rows = MR if rest >= MR else 4 if rest >= 4 else 2 if rest >= 2 else 1
                at_a, a_row = address(a) + i * a.strides[0] + p, a.strides[0]
                if not as_it_is:
                    copy_strip(a, i, rows, p, min(depth * DEPTH, k - p), strip)
                    at_a, a_row = address(strip), KC * 4
                for j in range(0, n, NR):
                    panel = address(panels) + (jc + j) // NR * panels.strides[0]
                    tile(rows, min(NR, n - j), depth, at_a, a_row, 4, panel + p0 * NR * 4, NR * 4,
                         address(a_zero) + i * a_zero.strides[0], a_zero.strides[0], raised(a),
                         0 if p0 else panel + words * NR * 4, address(out) + i * out.strides[0] + (jc + j) * 4,
                         out.strides[0])
                if b_zeros and p0 + depth >= words:
                    subtract_b_zero(a, a_zero, shift, b_zero, out, i, i + rows, jc, jc + n)
                i += rows


@njit
def pack_range(b, panels, first, end):
    """See the head of this file; panels: a row for each, contiguous."""
    (k, columns), words = b.shape, words_of(b.shape[0])
    bits = 32 // DEPTH
    ones = np.full(1, 0x01010101 if DEPTH == 4 else 0x00010001, np.int32)
    for number in range(first, end):
        j0 = number * NR
        n, panel = min(NR, columns - j0), panels[number]
        vectors = n // WORD_LANES * WORD_LANES if b.strides[1] == 1 else 0
        for word in range(words):
            p, at = word * DEPTH, word * NR
            done = vectors if k - p >= DEPTH else 0
            for j in range(0, done, WORD_LANES):
                interleave(b, address(panel) + (at + j) * 4, address(b) + p * b.strides[0] + j0 + j, b.strides[0])
            for j in range(done, NR):
                value = 0
                for d in range(DEPTH):
                    if j < n and p + d < k:
                        value |= (np.int64(b[p + d, j0 + j]) - lowered(b) & (1 << bits) - 1) << d * bits
                panel[at + j] = np.int32(value)
        panel[words * NR:] = 0
        sums = address(panel) + words * NR * 4
        tile(1, NR, words, address(ones), 0, 0, address(panel), NR * 4, 0, 0, 0, 0, sums, 0)
