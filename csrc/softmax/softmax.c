// Public softmax and log_softmax along the rows of a matrix, and their derivatives.
#include "../loops/rows.h"
#include "kernels.h"

TW_KERNELS(tw_softmax_kernels, tw_softmax_f32)
TW_KERNELS(tw_softmax_kernels, tw_softmax_f64)

#define NS 0.35  // one float32 on AVX-512, in cache

typedef struct {
    void (*forward)(ptrdiff_t n, const void *x, void *y, int stream);
    void (*backward)(ptrdiff_t n, const void *dy, const void *y, void *dx);
} context;

static void forward(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    (void)row;
    ((const context *)job->context)->forward(job->cols, data[0], data[1], job->stream);
}

static void backward(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    (void)row;
    ((const context *)job->context)->backward(job->cols, data[0], data[1], data[2]);
}

int tw_softmax(int dtype, int logarithm, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix y) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return TW_INVALID;
    const tw_softmax_kernels *k = dtype == TW_FLOAT32 ? TW_PICK(tw_softmax_f32) : TW_PICK(tw_softmax_f64);
    const context c = {.forward = logarithm ? k->log_softmax : k->softmax};
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    return tw_run_rows(&(tw_row_job){.operands = 2, .inputs = 1, .itemsize = size, .rows = rows, .cols = cols, .operand = {x, y},
                                     .ns = NS * size / 4, .run = forward, .context = &c});
}

int tw_softmax_backward(int dtype, int logarithm, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy, tw_matrix y, tw_matrix dx) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return TW_INVALID;
    const tw_softmax_kernels *k = dtype == TW_FLOAT32 ? TW_PICK(tw_softmax_f32) : TW_PICK(tw_softmax_f64);
    const context c = {.backward = logarithm ? k->log_softmax_backward : k->softmax_backward};
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    return tw_run_rows(&(tw_row_job){.operands = 3, .inputs = 2, .itemsize = size, .rows = rows, .cols = cols,
                                     .operand = {dy, y, dx}, .ns = NS * size / 4, .run = backward, .context = &c});
}
