#include "tile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Vectors of 16 bytes, which every instruction set has: copying is bound by the lines it touches, not by their width.
typedef uint32_t four __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint64_t two __attribute__((vector_size(16), aligned(8), may_alias));

#define SHUFFLE __builtin_shufflevector

// to[j * to_step + i] = from[i * from_step + j] for a block of 4 x 4 or 2 x 2
static inline void turn_uint32_t(const uint32_t *from, ptrdiff_t from_step, uint32_t *to, ptrdiff_t to_step) {
    const four a = *(const four *)from, b = *(const four *)(from + from_step);
    const four c = *(const four *)(from + 2 * from_step), d = *(const four *)(from + 3 * from_step);
    const four ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    const four ab_high = SHUFFLE(a, b, 2, 6, 3, 7), cd_high = SHUFFLE(c, d, 2, 6, 3, 7);
    *(four *)to = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(four *)(to + to_step) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *(four *)(to + 2 * to_step) = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
    *(four *)(to + 3 * to_step) = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
}

static inline void turn_uint64_t(const uint64_t *from, ptrdiff_t from_step, uint64_t *to, ptrdiff_t to_step) {
    const two a = *(const two *)from, b = *(const two *)(from + from_step);
    *(two *)to = SHUFFLE(a, b, 0, 2);
    *(two *)(to + to_step) = SHUFFLE(a, b, 1, 3);
}

// line: n elements; constant steps are what the compiler vectorises.
// columns: one side has contiguous rows, the other contiguous columns, of which each is finished before the next.
#define LINE(type) \
    static void line_##type(ptrdiff_t n, const void *from_, ptrdiff_t from_step, void *to_, ptrdiff_t to_step) { \
        const type *restrict from = from_; \
        type *restrict to = to_; \
        if (from_step == 1 && to_step == 1) { \
            memcpy(to, from, n * sizeof *to); \
            return; \
        } \
        if (from_step == 2 && to_step == 1) { \
            for (ptrdiff_t i = 0; i < n; i++) to[i] = from[2 * i]; \
            return; \
        } \
        for (; n >= 4; n -= 4, from += 4 * from_step, to += 4 * to_step) { \
            const type a = from[0], b = from[from_step], c = from[2 * from_step], d = from[3 * from_step]; \
            to[0] = a, to[to_step] = b, to[2 * to_step] = c, to[3 * to_step] = d; \
        } \
        for (; n > 0; n--, from += from_step, to += to_step) *to = *from; \
    }
#define COLUMNS(type) \
    static void columns_##type(ptrdiff_t rows, ptrdiff_t cols, tw_matrix from, tw_matrix to) { \
        enum { SIDE = 16 / sizeof(type) }; \
        const ptrdiff_t from_step = from.row == 1 ? from.col : from.row, to_step = to.row == 1 ? to.col : to.row; \
        const ptrdiff_t whole_rows = rows - rows % SIDE, whole_cols = cols - cols % SIDE; \
        for (ptrdiff_t col = 0; col < whole_cols; col += SIDE) \
            for (ptrdiff_t row = 0; row < whole_rows; row += SIDE) \
                turn_##type(tw_at(from, sizeof(type), row, col).data, from_step, tw_at(to, sizeof(type), row, col).data, \
                            to_step); \
        for (ptrdiff_t col = 0; col < cols; col++) { \
            const ptrdiff_t row = col < whole_cols ? whole_rows : 0; \
            line_##type(rows - row, tw_at(from, sizeof(type), row, col).data, from.row, \
                        tw_at(to, sizeof(type), row, col).data, to.row); \
        } \
    }
LINE(uint8_t)
LINE(uint16_t)
LINE(uint32_t)
LINE(uint64_t)
COLUMNS(uint32_t)
COLUMNS(uint64_t)

// Along the smaller stride of m, the strided side.
static void copy(ptrdiff_t rows, ptrdiff_t cols, int itemsize, tw_matrix from, tw_matrix to, tw_matrix m) {
    static void (*const lines[])(ptrdiff_t, const void *, ptrdiff_t, void *, ptrdiff_t) = {
        [1] = line_uint8_t, [2] = line_uint16_t, [4] = line_uint32_t, [8] = line_uint64_t};
    void (*const line)(ptrdiff_t, const void *, ptrdiff_t, void *, ptrdiff_t) = lines[itemsize];
    if (rows == 1 || labs(m.col) <= labs(m.row))
        for (ptrdiff_t i = 0; i < rows; i++)
            line(cols, tw_at(from, itemsize, i, 0).data, from.col, tw_at(to, itemsize, i, 0).data, to.col);
    else if (m.row == 1 && itemsize >= 4)
        (itemsize == 4 ? columns_uint32_t : columns_uint64_t)(rows, cols, from, to);
    else
        for (ptrdiff_t i = 0; i < cols; i++)
            line(rows, tw_at(from, itemsize, 0, i).data, from.row, tw_at(to, itemsize, 0, i).data, to.row);
}

void tw_gather(ptrdiff_t rows, ptrdiff_t cols, int itemsize, tw_matrix m, void *to, ptrdiff_t to_row) {
    copy(rows, cols, itemsize, m, (tw_matrix){to, to_row, 1}, m);
}

void tw_scatter(ptrdiff_t rows, ptrdiff_t cols, int itemsize, const void *from, ptrdiff_t from_row, tw_matrix m) {
    copy(rows, cols, itemsize, (tw_matrix){(void *)from, from_row, 1}, m, m);
}
