// The first step of the ladder: the definition of the product, three loops, nothing else. A user reads it to see what
// tiles.h computes; a benchmark runs it to show what the tiles gain.
#include "batch.h"

#define NAIVE(name, T) \
    static void name(const tw_gemm_call *call, tw_batch_place at) { \
        const T *a = (const T *)call->a.data + at.a, *b = (const T *)call->b.data + at.b; \
        T *c = (T *)call->c.data + at.c; \
        for (ptrdiff_t i = 0; i < call->m; i++) \
            for (ptrdiff_t j = 0; j < call->n; j++) { \
                T sum = 0; \
                if (call->alpha != 0) \
                    for (ptrdiff_t p = 0; p < call->k; p++) \
                        sum += a[i * call->a.row + p * call->a.col] * b[p * call->b.row + j * call->b.col]; \
                T *to = c + i * call->c.row + j * call->c.col; \
                *to = (T)call->alpha * sum + (call->beta != 0 ? (T)call->beta * *to : 0); \
            } \
    }
NAIVE(naive_f32, float)
NAIVE(naive_f64, double)

int tw_gemm_naive(const tw_gemm_call *call) {
    if (call->dtype > TW_FLOAT64 || call->bias || call->residual.data || !call->b.data || call->activation != TW_NONE)
        return TW_INVALID;
    for (ptrdiff_t index = 0, count = tw_batch_count(call); index < count; index++)
        (call->dtype == TW_FLOAT64 ? naive_f64 : naive_f32)(call, tw_batch_at(call, index));
    return TW_OK;
}
