// Public norms of the rows of a matrix, and their derivatives.
//
// dweight and dbias are sums over rows. Rows are cut into blocks by their number alone; each block has sums of its own,
// which are added in order at the end: the same bits at any number of threads.
#include <stdatomic.h>
#include <string.h>

#include "../loops/rows.h"
#include "../threads/threads.h"
#include "kernels.h"

TW_KERNELS(tw_norm_kernels, tw_norm_f32)
TW_KERNELS(tw_norm_kernels, tw_norm_f64)

enum {
    BLOCK_ROWS = 16,  // at least so many rows a block: its sums are then a small part of the traffic
    BLOCKS = 32,      // at most so many: enough for any number of threads that pays
};
#define FORWARD_NS 0.2  // one float32 on AVX-512, in cache
#define BACKWARD_NS 0.5

static const tw_norm_kernels *kernels(int dtype) {
    return dtype == TW_FLOAT32 ? TW_PICK(tw_norm_f32) : TW_PICK(tw_norm_f64);
}

typedef struct {
    const tw_norm_kernels *kernels;
    int centre;
    double eps;
    const void *weight, *bias;
    char *dweight, *dbias;
} context;

static void forward(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    (void)row;
    const context *c = job->context;
    c->kernels->forward(job->cols, c->centre, c->eps, data[0], c->weight, c->bias, data[1], job->stream);
}

int tw_norm(int dtype, int centre, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, const void *weight, const void *bias,
            double eps, tw_matrix y) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return TW_INVALID;
    const context c = {kernels(dtype), centre, eps, weight, centre ? bias : NULL, NULL, NULL};
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    return tw_run_rows(&(tw_row_job){.operands = 2, .inputs = 1, .itemsize = size, .rows = rows, .cols = cols, .operand = {x, y},
                                     .ns = FORWARD_NS * size / 4, .run = forward, .context = &c});
}

static void backward(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    (void)row;
    const context *c = job->context;
    c->kernels->backward(job->cols, c->centre, c->eps, data[0], data[1], c->weight, data[2], c->dweight, c->dbias);
}

typedef struct {
    const tw_row_job *job;
    const context *context;
    char *sums;  // for each block dweight and dbias
    ptrdiff_t block;
    atomic_int code;
} blocks;

static void run_block(void *context_, ptrdiff_t task) {
    blocks *b = context_;
    const ptrdiff_t bytes = b->job->cols * b->job->itemsize, begin = task * b->block, end = begin + b->block;
    context mine = *b->context;
    tw_row_job job = *b->job;
    mine.dweight = b->sums + 2 * task * bytes;
    mine.dbias = mine.dweight + bytes;
    job.context = &mine;
    const int code = tw_run_some_rows(&job, begin, end < job.rows ? end : job.rows);
    if (code != TW_OK)
        b->code = code;
}

int tw_norm_backward(int dtype, int centre, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy, tw_matrix x, const void *weight,
                     double eps, tw_matrix dx, void *dweight, void *dbias) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return TW_INVALID;
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    const size_t bytes = (size_t)cols * size;
    if (rows <= 0 || cols <= 0) {
        memset(dweight, 0, bytes);
        if (centre)
            memset(dbias, 0, bytes);
        return TW_OK;
    }
    const context c = {kernels(dtype), centre, eps, weight, NULL, NULL, NULL};
    const tw_row_job job = {.operands = 3, .inputs = 2, .itemsize = size, .rows = rows, .cols = cols, .operand = {dy, x, dx},
                            .ns = BACKWARD_NS * size / 4, .run = backward, .context = &c};
    ptrdiff_t block = (rows - 1) / BLOCKS + 1;
    block = block > BLOCK_ROWS ? block : BLOCK_ROWS;
    const ptrdiff_t count = (rows - 1) / block + 1;
    blocks b = {&job, &c, tw_second_workspace(2 * count * bytes), block, TW_OK};  // the rows may be copied in the first
    if (!b.sums)
        return TW_NO_MEMORY;
    memset(b.sums, 0, 2 * count * bytes);
    tw_parallel(count, (double)rows * (double)cols * job.ns, run_block, &b);
    for (ptrdiff_t i = 1; i < count; i++) c.kernels->add(2 * cols, b.sums + 2 * i * bytes, b.sums);
    memcpy(dweight, b.sums, bytes);
    if (centre)
        memcpy(dbias, b.sums + bytes, bytes);
    return b.code;
}
