// Where the operands of each product of a batched call begin.
#ifndef TW_GEMM_BATCH_H
#define TW_GEMM_BATCH_H

#include "../tilewright.h"

typedef struct {
    ptrdiff_t a, b, c; // elements from the first of each operand
} tw_batch_place;

static inline ptrdiff_t tw_batch_count(const tw_gemm_call *call) {
    ptrdiff_t count = 1;
    for (int axis = 0; axis < call->batch_axes; axis++) count *= call->batch_shape[axis];
    return count;
}

static inline tw_batch_place tw_batch_at(const tw_gemm_call *call, ptrdiff_t index) {
    tw_batch_place place = {0, 0, 0};
    for (int axis = call->batch_axes - 1; axis >= 0; axis--) {
        const ptrdiff_t at = index % call->batch_shape[axis];
        index /= call->batch_shape[axis];
        place.a += at * call->a_batch[axis];
        place.b += at * call->b_batch[axis];
        place.c += at * call->c_batch[axis];
    }
    return place;
}

#endif
