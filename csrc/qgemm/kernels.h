// What qgemm/*.int.isa.c exports for each integer ISA: the innermost loops over words, as isa/dot.h defines them. The driver
// above them knows no ISA.
#ifndef TW_QGEMM_KERNELS_H
#define TW_QGEMM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { TW_MAX_VECTORS = 4, TW_MAX_STRIP = 32 }; // columns of a tile in vectors; its rows
enum { TW_MATRIX_WORDS = 16 };                   // of a row of a in a step of a matrix unit

// What is the same for all tiles of a strip of rows. The product of the stored elements becomes that of the differences by
//
//     sum (a - a_zero)(b - b_zero) = sum a b - a_zero sum b - b_zero (sum a - k a_zero)
typedef struct {
    ptrdiff_t m;
    ptrdiff_t a_row;           // bytes
    ptrdiff_t c_row;           // elements
    const uint32_t *tail;      // the last words of each row of a, where they are cut short, or NULL; zeros beyond k
    int tail_words;            // of a row: 1, or TW_MATRIX_WORDS
    int past;                  // a matrix unit's sums go to c past the caches: whole lines
    int goes_on;               // a matrix unit adds to the sums in c, which are whole vectors, instead of starting anew
    int a_is_signed;           // its bytes, where they go to a matrix unit
    int one_zero;              // the same a_zero for all rows, and no b_zero
    const int32_t *a_zero;     // of each row
    const int32_t *row_sums;   // sum a - k a_zero of each row; not read without b_zero
} tw_strip;

// A tile of c, from `words` words of each row of a (and the tail) and a panel of b. sums, b_zero (or NULL): of its columns, padded
// to whole vectors. `last` says how many lanes of the last vector exist.
typedef void tw_int_tile(ptrdiff_t words, const void *a, const void *panel, const int32_t *sums, const int32_t *b_zero, int32_t *c,
                         ptrdiff_t last, const tw_strip *strip);

// Tiles of up to `rows` rows by the processor's matrix unit. A thread opens it for strips of m rows, and closes it again, for its
// registers are saved wherever the thread loses the processor until it does. a is of the type of the call, not flipped.
typedef struct {
    int rows;
    void (*open)(ptrdiff_t m);
    void (*close)(void);
    tw_int_tile *tile[2][2];               // tile[a is unsigned][nv - 1]
} tw_matrix_unit;

typedef struct {
    int lanes, depth;                      // words of a vector, elements of a word
    int a_unsigned;                        // depth 4: bytes of a are uint8 (those of b are always int8), else int8
    int vectors, alone;                    // columns of a panel; of one that is all of b, at most
    int rows[TW_MAX_VECTORS];              // tiles 1, 2, 3, 4 vectors wide: how many rows at most
    tw_int_tile *const *tile[TW_MAX_VECTORS]; // tile[nv - 1][m - 1]
    const tw_matrix_unit *matrix;          // NULL: none
    int step;                              // panels are filled up with zeros to a multiple of so many words

    // b (k, n) from its first column on, n <= width -> a panel of `width` columns, and their sums; zeros beyond n and k, to `words`
    void (*pack_b)(int is_unsigned, ptrdiff_t words, ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const void *b, ptrdiff_t row, ptrdiff_t col,
                   uint32_t *panel, int32_t *sums);
    // m rows of a (m, k) -> rows of `words` words, each byte XOR flip, zeros beyond k
    void (*pack_a)(int is_unsigned, ptrdiff_t m, ptrdiff_t k, ptrdiff_t words, const void *a, ptrdiff_t row, ptrdiff_t col, int flip,
                   uint32_t *to);
    // sums[i] = sum of the elements of row i, as tiles see them
    void (*sum_rows)(ptrdiff_t m, ptrdiff_t words, const void *a, const tw_strip *strip, int32_t *sums);
} tw_qgemm_kernels;

#endif
