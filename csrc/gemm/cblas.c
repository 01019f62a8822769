// tw_gemm under the CBLAS signature.
#include <stdio.h>

#include "../tilewright.h"

enum { ROW_MAJOR = 101, COLUMN_MAJOR = 102, NO_TRANSPOSE = 111, TRANSPOSE = 112, CONJUGATE_TRANSPOSE = 113 };

static int is_transpose(int trans) { return trans == NO_TRANSPOSE || trans == TRANSPOSE || trans == CONJUGATE_TRANSPOSE; }

// The least leading dimension of an op(x) of m by n: as stored, the length of a row (row-major) or of a column.
static ptrdiff_t least_ld(int order, int trans, ptrdiff_t m, ptrdiff_t n) {
    const ptrdiff_t length = (order == ROW_MAJOR) == (trans == NO_TRANSPOSE) ? n : m;
    return length > 1 ? length : 1;
}

static tw_matrix matrix(int order, int trans, const void *data, ptrdiff_t ld) {
    const int rows = (order == ROW_MAJOR) == (trans == NO_TRANSPOSE);
    return (tw_matrix){(void *)data, rows ? ld : 1, rows ? 1 : ld};
}

static void gemm(const char *name, int dtype, int order, int trans_a, int trans_b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                 double alpha, const void *a, ptrdiff_t lda, const void *b, ptrdiff_t ldb, double beta, void *c, ptrdiff_t ldc) {
    const char *wrong = order != ROW_MAJOR && order != COLUMN_MAJOR       ? "order is neither 101 nor 102"
                        : !is_transpose(trans_a)                           ? "transA is not 111, 112 or 113"
                        : !is_transpose(trans_b)                           ? "transB is not 111, 112 or 113"
                        : m < 0                                            ? "M is negative"
                        : n < 0                                            ? "N is negative"
                        : k < 0                                            ? "K is negative"
                        : lda < least_ld(order, trans_a, m, k)             ? "lda is less than A's rows are long"
                        : ldb < least_ld(order, trans_b, k, n)             ? "ldb is less than B's rows are long"
                        : ldc < least_ld(order, NO_TRANSPOSE, m, n)        ? "ldc is less than C's rows are long"
                                                                           : NULL;
    if (!wrong) {
        const tw_gemm_call call = {.dtype = dtype, .m = m, .n = n, .k = k, .a = matrix(order, trans_a, a, lda),
                                   .b = matrix(order, trans_b, b, ldb), .c = matrix(order, NO_TRANSPOSE, c, ldc),
                                   .alpha = alpha, .beta = beta};
        if (tw_gemm(&call) == TW_OK)
            return;
        wrong = "out of memory";
    }
    fprintf(stderr, "%s: %s; nothing was computed\n", name, wrong);
}

void tw_cblas_sgemm(int order, int trans_a, int trans_b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, float alpha, const float *a,
                    ptrdiff_t lda, const float *b, ptrdiff_t ldb, float beta, float *c, ptrdiff_t ldc) {
    gemm("tw_cblas_sgemm", TW_FLOAT32, order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void tw_cblas_dgemm(int order, int trans_a, int trans_b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, double alpha, const double *a,
                    ptrdiff_t lda, const double *b, ptrdiff_t ldb, double beta, double *c, ptrdiff_t ldc) {
    gemm("tw_cblas_dgemm", TW_FLOAT64, order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
