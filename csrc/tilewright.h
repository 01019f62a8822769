/* tilewright: the public C interface.
 *
 * Link with -ltilewright (Python: tilewright.get_include(), tilewright.get_library()); no Python is needed.
 * Sizes are counts of elements; strides count elements and may be zero or negative. Functions that return int return
 * TW_OK or one of the codes below, and then have written nothing. They may be called from any number of threads at once.
 * The file is plain prototypes, so that cffi reads it as it stands once the lines that open with '#' are gone. */
#ifndef TILEWRIGHT_H
#define TILEWRIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum { TW_OK = 0, TW_NO_MEMORY = 1, TW_INVALID = 2 };

/* ---- element types */

enum { TW_FLOAT32 = 0, TW_FLOAT64 = 1, TW_FLOAT16 = 2, TW_BFLOAT16 = 3, TW_INT64 = 4 };

/* ---- activations that linear fuses, with their default parameters */

enum {
    TW_NONE = 0, TW_RELU = 1, TW_LEAKY_RELU = 2, TW_ELU = 3, TW_GELU = 4, TW_GELU_TANH = 5, TW_SILU = 6, TW_SIGMOID = 7,
    TW_TANH = 8, TW_SOFTPLUS = 9, TW_HARDSWISH = 10
};

/* ---- isa: the instruction set in use; the rows this machine could use (NULL past the last, most capable first); what is
 * wrong with TILEWRIGHT_ISA, or NULL */

const char *tw_isa(void);
const char *tw_isa_name(int row);
const char *tw_isa_error(void);

/* ---- threads: how many a call may use. Set for the process, or for the calling thread alone (returns what it had). */

int tw_get_num_threads(void);
void tw_set_num_threads(int threads);
int tw_set_local_threads(int threads);

/* ---- gemm */

/* c = alpha a b + beta c, a (m, k), b (k, n), c (m, n), any strides (row, column). beta == 0 never reads c; alpha == 0 or
 * k == 0 never reads a or b. c must not overlap a or b. */
int tw_gemm_f32(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, float alpha, const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                const float *b, ptrdiff_t b_row, ptrdiff_t b_col, float beta, float *c, ptrdiff_t c_row, ptrdiff_t c_col);
int tw_gemm_f64(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, double alpha, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double beta, double *c, ptrdiff_t c_row, ptrdiff_t c_col);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
