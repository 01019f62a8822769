// Public optimizer steps on one array each, with any strides. PyTorch's formulas.
#include <math.h>
#include <stdlib.h>

#include "../loops/elementwise.h"
#include "../loops/tile.h"
#include "../threads/threads.h"
#include "kernels.h"

TW_KERNELS(tw_optimizer_kernels, tw_optimizer_f32)
TW_KERNELS(tw_optimizer_kernels, tw_optimizer_f64)

// One float32 on AVX-512, in cache.
#define SGD_NS 0.12
#define ADAM_NS 0.18
#define SCALE_NS 0.05

static const tw_optimizer_kernels *kernels(int dtype) {
    return dtype == TW_FLOAT32 ? TW_PICK(tw_optimizer_f32) : TW_PICK(tw_optimizer_f64);
}

static int is_float(int dtype) { return dtype == TW_FLOAT32 || dtype == TW_FLOAT64; }
static int size_of(int dtype) { return dtype == TW_FLOAT32 ? 4 : 8; }

typedef struct {
    const tw_optimizer_kernels *kernels;
    const tw_sgd_settings *sgd;
    tw_adam_factors adam;
    double factor;
} context;

static void sgd_chunk(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const context *c = job->context;
    c->kernels->sgd(n, data[0], data[1], job->operands == 3 ? data[2] : NULL, c->sgd);
}

int tw_sgd_step(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix p, tw_matrix g, tw_matrix b, const tw_sgd_settings *s) {
    if (!is_float(dtype))
        return TW_INVALID;
    const context c = {.kernels = kernels(dtype), .sgd = s};
    const int size = size_of(dtype), operands = b.data ? 3 : 2;
    tw_run_elementwise(&(tw_elementwise){.operands = operands, .read = 7, .written = 1 | 4, .itemsize = size, .rows = rows,
                                         .cols = cols, .operand = {p, g, b}, .ns = SGD_NS * size / 4, .chunk = sgd_chunk,
                                         .context = &c});
    return TW_OK;
}

static void adam_chunk(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const context *c = job->context;
    c->kernels->adam(n, data[0], data[1], data[2], data[3], &c->adam);
}

int tw_adam_step(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix p, tw_matrix g, tw_matrix m, tw_matrix v,
                 const tw_adam_settings *s) {
    if (!is_float(dtype) || s->step < 1)
        return TW_INVALID;
    const context c = {
        .kernels = kernels(dtype),
        .adam = {.beta1 = s->beta1, .beta2 = s->beta2, .eps = s->eps,
                 .decay = s->decoupled ? 0 : s->weight_decay,
                 .keep = s->decoupled ? 1 - s->lr * s->weight_decay : 1,
                 .step_size = s->lr / (1 - pow(s->beta1, (double)s->step)),
                 .root_scale = 1 / sqrt(1 - pow(s->beta2, (double)s->step))},
    };
    const int size = size_of(dtype);
    tw_run_elementwise(&(tw_elementwise){.operands = 4, .read = 15, .written = 1 | 4 | 8, .itemsize = size, .rows = rows,
                                         .cols = cols, .operand = {p, g, m, v}, .ns = ADAM_NS * size / 4,
                                         .chunk = adam_chunk, .context = &c});
    return TW_OK;
}

static void scale_chunk(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const context *c = job->context;
    c->kernels->scale(n, data[0], c->factor);
}

int tw_scale(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, double factor) {
    if (!is_float(dtype))
        return TW_INVALID;
    const context c = {.kernels = kernels(dtype), .factor = factor};
    const int size = size_of(dtype);
    tw_run_elementwise(&(tw_elementwise){.operands = 1, .read = 1, .written = 1, .itemsize = size, .rows = rows,
                                         .cols = cols, .operand = {x}, .ns = SCALE_NS * size / 4, .chunk = scale_chunk,
                                         .context = &c});
    return TW_OK;
}

// ---- sum of squares: pieces that depend on the shape alone, added in order

enum { PIECE = 16384, GATHERED = 512 };

typedef struct {
    const tw_optimizer_kernels *kernels;
    int size;
    ptrdiff_t cols, pieces;  // of each row
    tw_matrix x;
    double *sums;
} squares;

static void sum_piece(void *context, ptrdiff_t task) {
    const squares *s = context;
    const ptrdiff_t begin = task % s->pieces * PIECE, end = begin + PIECE < s->cols ? begin + PIECE : s->cols;
    const char *row = (const char *)s->x.data + task / s->pieces * s->x.row * s->size;
    double buffer[GATHERED], sum = 0;
    if (s->x.col == 1)
        sum = s->kernels->squares(end - begin, row + begin * s->size);
    for (ptrdiff_t i = begin; s->x.col != 1 && i < end; i += GATHERED) {
        const ptrdiff_t n = end - i < GATHERED ? end - i : GATHERED;
        tw_gather(1, n, s->size, tw_at(s->x, s->size, task / s->pieces, i), buffer, n);
        sum += s->kernels->squares(n, buffer);
    }
    s->sums[task] = sum;
}

int tw_sum_squares(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, double *sum) {
    if (!is_float(dtype))
        return TW_INVALID;
    *sum = 0;
    if (rows <= 0 || cols <= 0)
        return TW_OK;
    squares s = {kernels(dtype), size_of(dtype), cols, (cols - 1) / PIECE + 1, x, NULL};
    const ptrdiff_t tasks = rows * s.pieces;
    double single;
    s.sums = tasks == 1 ? &single : malloc(tasks * sizeof *s.sums);
    if (!s.sums)
        return TW_NO_MEMORY;
    tw_parallel(tasks, (double)rows * (double)cols * SCALE_NS, sum_piece, &s);
    for (ptrdiff_t i = 0; i < tasks; i++) *sum += s.sums[i];
    if (tasks > 1)
        free(s.sums);
    return TW_OK;
}
