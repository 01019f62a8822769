#include "../isa/isa.h"

#define NAIVE(name, T) \
    int name(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, T alpha, const T *a, ptrdiff_t a_row, ptrdiff_t a_col, const T *b, \
             ptrdiff_t b_row, ptrdiff_t b_col, T beta, T *c, ptrdiff_t c_row, ptrdiff_t c_col) \
    { \
        for (ptrdiff_t i = 0; i < m; i++) \
            for (ptrdiff_t j = 0; j < n; j++) { \
                T sum = 0, *to = c + i * c_row + j * c_col; \
                for (ptrdiff_t p = 0; p < k; p++) \
                    sum += a[i * a_row + p * a_col] * b[p * b_row + j * b_col]; \
                *to = alpha * sum + (beta == 0 ? 0 : beta * *to); \
            } \
        return TW_OK; \
    }
NAIVE(tw_gemm_f32, float)
NAIVE(tw_gemm_f64, double)
