// What qgemm/*.int.isa.c exports for each integer ISA: the innermost loops over words, as isa/dot.h defines them. The driver
// above them knows no ISA.
#ifndef TW_QGEMM_KERNELS_H
#define TW_QGEMM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { TW_MAX_VECTORS = 4, TW_MAX_STRIP = 16 }; // columns of a tile in vectors; its rows

// What is the same for all tiles of a strip of rows. The product of the stored elements becomes that of the differences by
//
//     sum (a - a_zero)(b - b_zero) = sum a b - a_zero sum b - b_zero (sum a - k a_zero)
typedef struct {
    ptrdiff_t a_row;           // bytes
    ptrdiff_t c_row;           // elements
    const uint32_t *tail;      // the last word of each row of a, where that is cut short, or NULL; zeros beyond k
    int one_zero;              // the same a_zero for all rows, and no b_zero
    const int32_t *a_zero;     // of each row
    const int32_t *row_sums;   // sum a - k a_zero of each row; not read without b_zero
} tw_strip;

// A tile of c, from `words` words of each row of a (and the tail) and a panel of b. sums, b_zero (or NULL): of its columns, padded
// to whole vectors. `last` says how many lanes of the last vector exist.
typedef void tw_int_tile(ptrdiff_t words, const void *a, const void *panel, const int32_t *sums, const int32_t *b_zero, int32_t *c,
                         ptrdiff_t last, const tw_strip *strip);

typedef struct {
    int lanes, depth;                      // words of a vector, elements of a word
    int a_unsigned;                        // depth 4: bytes of a are uint8 (those of b are always int8), else int8
    int vectors, alone;                    // columns of a panel; of one that is all of b, at most
    int rows[TW_MAX_VECTORS];              // tiles 1, 2, 3, 4 vectors wide: how many rows at most
    tw_int_tile *const *tile[TW_MAX_VECTORS]; // tile[nv - 1][m - 1]

    // b (k, n) from its first column on, n <= width -> a panel of `width` columns, and their sums; zeros beyond n and k
    void (*pack_b)(int is_unsigned, ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const void *b, ptrdiff_t row, ptrdiff_t col,
                   uint32_t *panel, int32_t *sums);
    // m rows of a (m, k) -> rows of words, each byte XOR flip, zeros beyond k
    void (*pack_a)(int is_unsigned, ptrdiff_t m, ptrdiff_t k, const void *a, ptrdiff_t row, ptrdiff_t col, int flip,
                   uint32_t *to);
    // sums[i] = sum of the elements of row i, as tiles see them
    void (*sum_rows)(ptrdiff_t m, ptrdiff_t words, const void *a, const tw_strip *strip, int32_t *sums);
} tw_qgemm_kernels;

#endif
