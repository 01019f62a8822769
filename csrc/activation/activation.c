// Public activations: argument checks, the kernels of the instruction set in use, strides and threads.
#include "../loops/elementwise.h"
#include "kernels.h"

TW_KERNELS(tw_activation_kernels, tw_activation_f32)
TW_KERNELS(tw_activation_kernels, tw_activation_f64)

// About what one float32 takes on AVX-512, in L2.
static const double nanoseconds[TW_ACTIVATIONS] = {
    [TW_RELU] = 0.06, [TW_LEAKY_RELU] = 0.07, [TW_ELU] = 0.2,   [TW_GELU] = 0.19,    [TW_GELU_TANH] = 0.3,
    [TW_SILU] = 0.16, [TW_SIGMOID] = 0.14,    [TW_TANH] = 0.11, [TW_SOFTPLUS] = 0.26, [TW_HARDSWISH] = 0.07,
};

static const double default_param[TW_ACTIVATIONS] = {[TW_LEAKY_RELU] = 0.01, [TW_ELU] = 1};

static const tw_activation_kernels *kernels(int dtype) {
    return dtype == TW_FLOAT32 ? TW_PICK(tw_activation_f32) : TW_PICK(tw_activation_f64);
}

tw_activate *tw_activation_kernel(int dtype, int activation, double *param) {
    *param = default_param[activation];
    return kernels(dtype)->forward[activation];
}

typedef struct {
    tw_activate *forward, *forward_stream;
    tw_activate_backward *backward;
    double param;
} context;

static void forward(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const context *c = job->context;
    (job->stream ? c->forward_stream : c->forward)(n, data[0], data[1], c->param);
}

static void backward(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const context *c = job->context;
    c->backward(n, data[0], data[1], data[2], c->param);
}

static int is_invalid(int dtype, int activation, ptrdiff_t rows, ptrdiff_t cols) {
    return (dtype != TW_FLOAT32 && dtype != TW_FLOAT64) || activation <= TW_NONE || activation >= TW_ACTIVATIONS ||
           rows < 0 || cols < 0;
}

static context context_of(int dtype, int activation, double param) {
    const tw_activation_kernels *k = kernels(dtype);
    return (context){k->forward[activation], k->forward_stream[activation], k->backward[activation], param};
}

static tw_elementwise job_of(int dtype, int activation, ptrdiff_t rows, ptrdiff_t cols, const context *c) {
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    const double ns = nanoseconds[activation] * size / 4;
    return (tw_elementwise){.itemsize = size, .rows = rows, .cols = cols, .ns = ns, .context = c};
}

int tw_activation(int dtype, int activation, double param, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix y) {
    if (is_invalid(dtype, activation, rows, cols))
        return TW_INVALID;
    const context c = context_of(dtype, activation, param);
    tw_elementwise job = job_of(dtype, activation, rows, cols, &c);
    job.operands = 2;
    job.read = 1u;
    job.written = 1u << 1;
    job.operand[0] = x, job.operand[1] = y;
    job.chunk = forward;
    tw_run_elementwise(&job);
    return TW_OK;
}

int tw_activation_backward(int dtype, int activation, double param, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy,
                           tw_matrix x, tw_matrix dx) {
    if (is_invalid(dtype, activation, rows, cols))
        return TW_INVALID;
    const context c = context_of(dtype, activation, param);
    tw_elementwise job = job_of(dtype, activation, rows, cols, &c);
    job.operands = 3;
    job.read = 1u | 1u << 1;
    job.written = 1u << 2;
    job.operand[0] = dy, job.operand[1] = x, job.operand[2] = dx;
    job.chunk = backward;
    tw_run_elementwise(&job);
    return TW_OK;
}
