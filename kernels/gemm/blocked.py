"""The blocked product in Numba: packing and the loops around the register tiles of microkernel.py.

    gemm_range(alpha, a, b, beta, c, out, work, i0, i1, j0, j1)      one rectangle of out = alpha * a @ b + beta * c
    packed_range(alpha, a, panels, beta, c, ...)                     the same with a b packed beforehand, by
    pack_range(b, panels, first, end)                                panels number first ... end - 1

2-D arrays of one dtype; a and b with any strides, c and out with contiguous columns; c may be out, or have one row,
which then stands for all (a bias). panels: a row for each, all of k; j0 begins one; pack_range takes them as 1-D.
beta == 0 does not read c, alpha == 0 reads neither a nor b. Serial, no GIL, no state: rectangles may run at the same
time, and a product has the same bits however it is cut into them. work: WORK_BYTES of the dtype, contiguous, not used
by anyone else meanwhile; fresh memory for each product would cost a page fault for every 4 KB, half of the time of a
small one.

    for jc in columns by NC                        B block, KC x NC, packed: stays in L2 (960 KB of 1 or 2 MB)
      for pc in k by KC
        pack b[pc:pc+KC, jc:jc+NC]                 panels of NR columns, [k][NR], the last one filled with zeros
        for ic in rows by MR                       A strip, MR x KC: stays in L1 (16 KB), read from a itself
          for jr in the block's columns by NR      register tile, MR x NR

b is not packed where that would cost more than it saves: few rows to share the packed panel, or b small enough for
L1; then only a ragged last panel is. A strip of a is packed only where k is not its contiguous axis: each step of k
would touch another page. One or two rows have nothing to share: whole rows of b are added up, four at a time. Few
rows or columns against a transposed b, a matrix times a vector among them, are dot products along k; a transposed
matrix times a vector is one row of the transposed product.
"""
from __future__ import annotations

from tilewright.kernels.vector.host import BYTES, inner, njit
from tilewright.kernels.vector.memory import address, lanes, load_at, store_at
from tilewright.kernels.vector.simd import fma

from .microkernel import MR, NV, copy_bytes, dots, tile, transpose_block

KC = 512  # a packed panel: KC * NR * 4 bytes = 96 KB, streamed from L2 for each tile
NC_VECTORS = 30  # 480 float32 columns with AVX-512
FLAT_ROWS = 2  # up to so many rows b is read once, by whole rows
DIRECT_ROWS = 16  # up to so many rows packing b costs more than it saves
DIRECT_BYTES = 36 * 1024  # up to here b is in L1 as it is
WORK_BYTES = KC * (NC_VECTORS * BYTES + MR * 8) + BYTES  # a packed block, a packed strip, and room to align them
DOT_LINES = 12  # up to so many rows, or 4 columns, dot products beat packing a transposed b


@inner
def row_stride(c):
    """Bytes from one row to the next, 0 where one row stands for all."""
    return c.strides[0] if c.shape[0] > 1 else 0


@inner
def pack_panel(b, p0, k, j0, n, width, packed, at):
    """packed[at + p * width + j] = b[p0 + p, j0 + j], zero for n <= j < width; a transposed b by W x W blocks."""
    if n < width:
        packed[at:at + k * width] = 0
    size, w = packed.itemsize, lanes(packed)
    blocks_k, blocks_n = (k // w * w, n // w * w) if b.strides[0] == size else (0, 0)
    for j in range(0, blocks_n, w):
        for p in range(0, blocks_k, w):
            transpose_block(packed, address(packed) + (at + p * width + j) * size, width * size,
                            address(b) + (p0 + p) * size + (j0 + j) * b.strides[1], b.strides[1])
    for j in range(n):
        for p in range(blocks_k if j < blocks_n else 0, k):
            packed[at + p * width + j] = b[p0 + p, j0 + j]


@inner
def pack_rows(b, p0, k, j0, n, width, packed, at):
    """pack_panel for contiguous rows."""
    size = packed.itemsize
    source = address(b) + p0 * b.strides[0] + j0 * size
    for p in range(k):
        copy_bytes(address(packed) + (at + p * width) * size, source + p * b.strides[0], n * size)
        packed[at + p * width + n:at + (p + 1) * width] = 0


@inner
def pack_strip(a, i0, rows, p0, k, packed):
    """packed[p * rows + i] = a[i0 + i, p0 + p]"""
    if a.strides[0] == a.itemsize and rows == MR:
        for p in range(k):
            source = address(a) + i0 * a.itemsize + (p0 + p) * a.strides[1]
            copy_bytes(address(packed) + p * MR * a.itemsize, source, MR * a.itemsize)
        return
    for p in range(k):
        for i in range(rows):
            packed[p * rows + i] = a[i0 + i, p0 + p]


@inner
def strip(rows, n, k, a, a_row, a_k, b, b_panel, b_k, last, alpha, beta, c, c_row, out, out_row, width, size):
    """The tiles of one strip: panels of b at b, b + b_panel, ...; a ragged last one, always packed, at `last`."""
    for j in range(0, n, width):
        at_b, step = (b + j // width * b_panel, b_k) if n - j >= width else (last, width * size)
        tile(rows, min(width, n - j), k, a, a_row, a_k, at_b, step, alpha, beta,
             c + j * size, c_row, out + j * size, out_row)


@inner
def blocks(ready, alpha, a, b, beta, c, out, work, i0, i1, j0, j1):
    """gemm_range by packed or direct panels; packed_range if `ready`."""
    size = out.itemsize
    width = NV * BYTES // size
    depth = a.shape[1] if alpha != 0 else 0
    b_rows = b.strides[1] == size  # contiguous rows
    direct = not ready and b_rows and (i1 - i0 <= DIRECT_ROWS or depth * (j1 - j0) * size <= DIRECT_BYTES)
    kc = min(depth, KC)
    columns = j1 - j0 if direct else min(j1 - j0, NC_VECTORS * BYTES // size)
    pack_a = a.strides[1] != size and j1 - j0 > width and i1 - i0 > 1
    packed = work[-address(work) % BYTES // size:]
    strip_a = packed[KC * NC_VECTORS * BYTES // size:]
    for jc in range(j0, j1, columns):
        n = min(columns, j1 - jc)
        whole = n // width * width
        for p0 in range(0, max(1, depth), max(1, kc)):
            k = min(kc, depth - p0)
            if direct:
                first, b_panel, b_k = address(b) + p0 * b.strides[0] + jc * size, width * size, b.strides[0]
                last = address(packed)
            elif ready:
                b_panel, b_k = b.strides[0], width * size
                first = address(b) + jc // width * b_panel + p0 * b_k
                last = first + whole // width * b_panel
            else:
                first, b_panel, b_k = address(packed), k * width * size, width * size
                last = first + whole // width * b_panel
            for j in range(n if ready else whole if direct else 0, n, width):
                at = 0 if direct else j * k
                if b_rows:
                    pack_rows(b, p0, k, jc + j, min(width, n - j), width, packed, at)
                else:
                    pack_panel(b, p0, k, jc + j, min(width, n - j), width, packed, at)
            scale = beta if p0 == 0 else out.dtype.type(1)
            source, source_row = (address(c), row_stride(c)) if p0 == 0 else (address(out), out.strides[0])
            i = i0
            while i < i1:
                rest = i1 - i
                rows = MR if rest >= MR else 4 if rest >= 4 else 2 if rest >= 2 else 1
                at_a, a_row, a_k = address(a) + i * a.strides[0] + p0 * a.strides[1], a.strides[0], a.strides[1]
                if pack_a:
                    pack_strip(a, i, rows, p0, k, strip_a)
                    at_a, a_row, a_k = address(strip_a), size, rows * size
                strip(rows, n, k, at_a, a_row, a_k, first, b_panel, b_k, last, alpha, scale,
                      source + i * source_row + jc * size, source_row,
                      address(out) + i * out.strides[0] + jc * size, out.strides[0], width, size)
                i += rows


@inner
def flat_row(alpha, a, b, beta, c, out, i, j0, j1):
    """One row of gemm_range, held in out: b has contiguous rows."""
    size, w = out.itemsize, lanes(out)
    depth = a.shape[1] if alpha != 0 else 0
    at_c, at_out = address(c) + (i * row_stride(c) + j0 * size), address(out) + (i * out.strides[0] + j0 * size)
    for j in range(0, j1 - j0, w):
        n = min(w, j1 - j0 - j)
        start = load_at(out, at_c + j * size, n if beta != 0 else 0)
        store_at(out, at_out + j * size, start * beta, n)
    p = 0
    while p < depth:
        row, step = address(b) + p * b.strides[0] + j0 * size, b.strides[0]
        a0 = alpha * a[i, p]
        if depth - p >= 4:
            a1, a2, a3 = alpha * a[i, p + 1], alpha * a[i, p + 2], alpha * a[i, p + 3]
            for j in range(0, j1 - j0, w):
                n, at = min(w, j1 - j0 - j), row + j * size
                s = fma(load_at(out, at, n), a0, load_at(out, at_out + j * size, n))
                s = fma(load_at(out, at + step, n), a1, s)
                s = fma(load_at(out, at + 2 * step, n), a2, s)
                store_at(out, at_out + j * size, fma(load_at(out, at + 3 * step, n), a3, s), n)
            p += 4
        else:
            for j in range(0, j1 - j0, w):
                n = min(w, j1 - j0 - j)
                s = fma(load_at(out, row + j * size, n), a0, load_at(out, at_out + j * size, n))
                store_at(out, at_out + j * size, s, n)
            p += 1


@inner
def dot_products(alpha, a, b, beta, c, out, i0, i1, j0, j1):
    """gemm_range by dot products along k: a has contiguous rows, b contiguous columns."""
    size = out.itemsize
    depth = a.shape[1] if alpha != 0 else 0
    j = j0
    while j < j1:  # four columns of b stay in L1 while all rows of a pass
        n = 4 if j1 - j >= 4 else 1
        i = i0
        while i < i1:
            rows = 4 if i1 - i >= 4 else 1
            dots(rows, n, depth, address(a) + i * a.strides[0], a.strides[0],
                 address(b) + j * b.strides[1], b.strides[1],
                 alpha, beta, address(c) + i * row_stride(c) + j * size, row_stride(c),
                 address(out) + i * out.strides[0] + j * size, out.strides[0])
            i += rows
        j += n


@njit
def gemm_range(alpha, a, b, beta, c, out, work, i0, i1, j0, j1):
    """See the head of this file."""
    if i1 <= i0 or j1 <= j0:
        return
    # by the shape of the whole product, not of the rectangle: these ways differ in their bits
    along_k = a.strides[1] == a.itemsize and b.strides[0] == a.itemsize
    if along_k and (out.shape[0] <= DOT_LINES or out.shape[1] <= 4):
        dot_products(alpha, a, b, beta, c, out, i0, i1, j0, j1)
    elif out.shape[0] <= FLAT_ROWS and b.strides[1] == b.itemsize:
        for i in range(i0, i1):
            flat_row(alpha, a, b, beta, c, out, i, j0, j1)
    elif out.shape[1] == 1 and a.strides[0] == a.itemsize and out.strides[0] == out.itemsize \
            and (beta == 0 or row_stride(c) == c.itemsize):
        flat_row(alpha, b.T, a.T, beta, c.T, out.T, 0, i0, i1)
    else:
        blocks(False, alpha, a, b, beta, c, out, work, i0, i1, j0, j1)


@njit
def packed_range(alpha, a, panels, beta, c, out, work, i0, i1, j0, j1):
    """See the head of this file."""
    if i1 > i0 and j1 > j0:
        blocks(True, alpha, a, panels, beta, c, out, work, i0, i1, j0, j1)


@njit
def pack_range(b, panels, first, end):
    """See the head of this file."""
    k, width = b.shape[0], NV * BYTES // panels.itemsize
    for panel in range(first, end):
        j, at = panel * width, panel * k * width
        if b.strides[1] == b.itemsize:
            pack_rows(b, 0, k, j, min(width, b.shape[1] - j), width, panels, at)
        else:
            pack_panel(b, 0, k, j, min(width, b.shape[1] - j), width, panels, at)
