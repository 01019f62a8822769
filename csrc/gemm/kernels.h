// What gemm/*.isa.c exports for each ISA and element type: the innermost loops. The driver above them knows no ISA and
// no element type; it moves char pointers and counts strides in elements.
#ifndef TW_GEMM_KERNELS_H
#define TW_GEMM_KERNELS_H

#include <stddef.h>

enum { TW_MAX_NV = 4, TW_MAX_DOT = 10 };

// What is the same for all tiles of a block: strides in elements, and c = alpha * (a b) + beta * c.
typedef struct {
    ptrdiff_t a_row, a_col, b_row, c_row;
    double alpha, beta;
    const char *below; // packed tiles: of each of mr rows of a, these bytes will be read soon
    ptrdiff_t below_bytes;
    int b_is_far;      // packed tiles: b comes from beyond L2
} tw_tile_call;

// One tile of c from `k` columns of a and `k` rows of b. `last` says how many lanes of the tile's last vector exist.
typedef void tw_tile(ptrdiff_t k, const void *a, const void *b, void *c, ptrdiff_t last, const tw_tile_call *call);

// The same for a whole packed tile, and stores the rows of b as a packed panel while they are in registers.
typedef void tw_fused_tile(ptrdiff_t k, const void *a, const void *b, void *panel, void *c, const tw_tile_call *call);

// m rows of c (m by the table's index) that stay in L1 while k rows of b, n long, pass once.
typedef void tw_stream(ptrdiff_t k, ptrdiff_t n, const void *a, const void *b, void *c, const tw_tile_call *call);

// c[i * c_row + j * c_col] from dot products along k, a and b both contiguous along k: rows of a, rows of b (= columns).
typedef void tw_dot(ptrdiff_t k, const void *a, ptrdiff_t a_row, const void *b, ptrdiff_t b_row, void *c, ptrdiff_t c_row,
                    ptrdiff_t c_col, double alpha, double beta);

// A k x n matrix of any strides into panels of `width` columns, k rows each, one after the other; zeros beyond n.
typedef void tw_pack_panels(ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const void *src, ptrdiff_t row, ptrdiff_t col, void *dst);

// c += x, m rows of n elements; x_row == 0 adds one row, a bias, to all.
typedef void tw_add_rows(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t x_row, double beta, void *c, ptrdiff_t c_row);

// sum[j] += the column sums of an m x n matrix with contiguous rows, row by row from the first.
typedef void tw_sum_rows(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t x_row, void *sum);

typedef struct {
    int size, lanes;                       // bytes of an element, elements of a vector
    int mr, nr;                            // the packed tile: nr = 3 vectors
    int partial_is_slow;                   // a vector cut short costs a loop: pack such columns
    int rows[TW_MAX_NV];                   // direct tiles 1, 2, 3, 4 vectors wide: how many rows at most
    tw_tile *const *direct[TW_MAX_NV];     // direct[nv - 1][m - 1]: b with rows b_row apart
    tw_tile *const *packed;                // packed[m - 1]: b a packed panel of nr columns
    tw_tile *packed_far;                   // mr rows, b from beyond L2
    tw_fused_tile *fused;                  // mr rows
    int stream_rows;                       // rows that a stream takes at most
    tw_stream *const *stream;              // stream[m - 1]
    int dot_rows[TW_MAX_DOT];              // rows of a in a dot tile over j + 1 rows of b
    tw_dot *dot[TW_MAX_DOT], *dot_one[TW_MAX_DOT]; // dot_rows[j] rows of a; one row
    tw_pack_panels *pack;
    tw_add_rows *add_rows;
    tw_sum_rows *sum_rows;
} tw_gemm_kernels;

#endif
