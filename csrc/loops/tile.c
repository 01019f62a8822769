#include "tile.h"

#include <stdint.h>
#include <stdlib.h>

#define LINE(type) \
    static void line_##type(ptrdiff_t n, const void *from_, ptrdiff_t from_step, void *to_, ptrdiff_t to_step) { \
        const type *from = from_; \
        type *to = to_; \
        for (; n >= 4; n -= 4, from += 4 * from_step, to += 4 * to_step) { \
            const type a = from[0], b = from[from_step], c = from[2 * from_step], d = from[3 * from_step]; \
            to[0] = a, to[to_step] = b, to[2 * to_step] = c, to[3 * to_step] = d; \
        } \
        for (; n > 0; n--, from += from_step, to += to_step) *to = *from; \
    }
LINE(uint32_t)
LINE(uint64_t)

// The inner loop goes along the smaller stride of the strided side.
static void copy(ptrdiff_t rows, ptrdiff_t cols, int itemsize, tw_matrix from, tw_matrix to, int along_rows) {
    const ptrdiff_t outer = along_rows ? rows : cols, inner = along_rows ? cols : rows;
    for (ptrdiff_t i = 0; i < outer; i++) {
        const tw_matrix f = along_rows ? tw_at(from, itemsize, i, 0) : tw_at(from, itemsize, 0, i);
        const tw_matrix t = along_rows ? tw_at(to, itemsize, i, 0) : tw_at(to, itemsize, 0, i);
        (itemsize == 4 ? line_uint32_t : line_uint64_t)(inner, f.data, along_rows ? f.col : f.row, t.data,
                                                        along_rows ? t.col : t.row);
    }
}

static int goes_along_rows(tw_matrix m) { return labs(m.col) <= labs(m.row); }

void tw_gather(ptrdiff_t rows, ptrdiff_t cols, int itemsize, tw_matrix m, void *to, ptrdiff_t to_row) {
    copy(rows, cols, itemsize, m, (tw_matrix){to, to_row, 1}, rows == 1 || goes_along_rows(m));
}

void tw_scatter(ptrdiff_t rows, ptrdiff_t cols, int itemsize, const void *from, ptrdiff_t from_row, tw_matrix m) {
    copy(rows, cols, itemsize, (tw_matrix){(void *)from, from_row, 1}, m, rows == 1 || goes_along_rows(m));
}
