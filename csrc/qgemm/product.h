// One integer product as the driver computes it: b packed, zero points shifted to those of the elements as tiles see them.
#ifndef TW_QGEMM_PRODUCT_H
#define TW_QGEMM_PRODUCT_H

#include "packed.h"
#include "qgemm.h"

typedef struct {
    ptrdiff_t m;
    tw_int_panels b;
    const tw_matrix_unit *matrix; // that computes it, or NULL
    const char *a;
    ptrdiff_t a_row, a_col;
    int a_is_unsigned;
    int flip;                  // XOR of each byte of a
    const int32_t *a_zero, *b_zero;
    ptrdiff_t a_zero_step, b_zero_step;
    int32_t a_shift, b_shift;  // added to the zero points
    int32_t *c;                // contiguous rows, or NULL: tiles go to finish
    ptrdiff_t c_row;
    tw_finish *finish;
    void *context;
} tw_int_product;

// Computes all of it, on as many threads as are worth it. TW_OK or TW_NO_MEMORY.
int tw_run_int_product(const tw_int_product *p);

// The matrix unit, if it is to compute a product of so many rows with b; else NULL.
const tw_matrix_unit *tw_int_matrix(const tw_int_panels *b, ptrdiff_t m);

// How many threads that would be, and whether they read the rows of a where they lie.
int tw_int_threads(const tw_int_product *p);
int tw_int_reads_in_place(const tw_int_product *p);

#endif
