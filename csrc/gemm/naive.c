// The first step of the ladder: the definition of the product, three loops, nothing else. A user reads it to see what
// tiles.h computes; a benchmark runs it to show what the tiles gain.
#include "../tilewright.h"

#define NAIVE(name, T) \
    static void name(const tw_gemm_call *call, ptrdiff_t a_at, ptrdiff_t b_at, ptrdiff_t c_at) { \
        const T *a = (const T *)call->a.data + a_at, *b = (const T *)call->b.data + b_at; \
        T *c = (T *)call->c.data + c_at; \
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
    if (call->dtype > TW_FLOAT64 || call->bias || call->activation != TW_NONE)
        return TW_INVALID;
    ptrdiff_t count = 1;
    for (int axis = 0; axis < call->batch_axes; axis++) count *= call->batch_shape[axis];
    for (ptrdiff_t index = 0; index < count; index++) {
        ptrdiff_t rest = index, a = 0, b = 0, c = 0;
        for (int axis = call->batch_axes - 1; axis >= 0; axis--) {
            const ptrdiff_t at = rest % call->batch_shape[axis];
            rest /= call->batch_shape[axis];
            a += at * call->a_batch[axis];
            b += at * call->b_batch[axis];
            c += at * call->c_batch[axis];
        }
        (call->dtype == TW_FLOAT64 ? naive_f64 : naive_f32)(call, a, b, c);
    }
    return TW_OK;
}
