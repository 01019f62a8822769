// Tiles of strided matrices copied to contiguous rows and back.
#ifndef TW_TILE_H
#define TW_TILE_H

#include "../tilewright.h"

// Floats of one cache line: where a matrix is contiguous along its columns, lines are used whole.
enum { TW_TILE_ROWS = 16 };

// rows x cols elements of itemsize 1, 2, 4 or 8 at m <-> rows that are to_row elements apart
void tw_gather(ptrdiff_t rows, ptrdiff_t cols, int itemsize, tw_matrix m, void *to, ptrdiff_t to_row);
void tw_scatter(ptrdiff_t rows, ptrdiff_t cols, int itemsize, const void *from, ptrdiff_t from_row, tw_matrix m);

// m from element (row, col) on
static inline tw_matrix tw_at(tw_matrix m, int itemsize, ptrdiff_t row, ptrdiff_t col) {
    m.data = (char *)m.data + (row * m.row + col * m.col) * itemsize;
    return m;
}

#endif
