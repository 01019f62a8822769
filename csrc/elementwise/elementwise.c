#include "elementwise.h"

#include <stdint.h>

#include "../threads/threads.h"

enum {
    BUFFERED = 512,  // elements a strided chunk: four operands of doubles are 16 KiB, half of an L1
    GRAIN = 4096,  // elements: whole pages of output a thread
    STREAM_BYTES = 2 << 20,  // outputs from here on do not stay in an L2 anyway
};

void tw_gather(ptrdiff_t n, int itemsize, const void *from, ptrdiff_t stride, void *to) {
    if (itemsize == 4)
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint32_t *)to)[i] = ((const uint32_t *)from)[i * stride];
    else
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint64_t *)to)[i] = ((const uint64_t *)from)[i * stride];
}

void tw_scatter(ptrdiff_t n, int itemsize, const void *from, void *to, ptrdiff_t stride) {
    if (itemsize == 4)
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint32_t *)to)[i * stride] = ((const uint32_t *)from)[i];
    else
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint64_t *)to)[i * stride] = ((const uint64_t *)from)[i];
}

static char *address(const tw_elementwise *job, int operand, ptrdiff_t row, ptrdiff_t col) {
    const tw_matrix *o = &job->operand[operand];
    return (char *)o->data + (row * o->row + col * o->col) * job->itemsize;
}

// one chunk within a row
static void run_chunk(const tw_elementwise *job, ptrdiff_t row, ptrdiff_t col, ptrdiff_t n, int stream) {
    _Alignas(64) char buffer[TW_OPERANDS][BUFFERED * sizeof(double)];
    void *data[TW_OPERANDS];
    int out = job->operands - 1;
    for (int o = 0; o <= out; o++) {
        char *at = address(job, o, row, col);
        data[o] = at;
        if (job->operand[o].col != 1) {
            data[o] = buffer[o];
            if (o < out)
                tw_gather(n, job->itemsize, at, job->operand[o].col, buffer[o]);
        }
    }
    job->chunk(job, row * job->cols + col, n, data, stream);
    if (job->operand[out].col != 1)
        tw_scatter(n, job->itemsize, buffer[out], address(job, out, row, col), job->operand[out].col);
}

// elements [begin, end) of all rows laid end to end
static void run_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const tw_elementwise *job = context;
    int buffered = 0, out = job->operands - 1;
    for (int o = 0; o <= out; o++)
        buffered |= job->operand[o].col != 1;
    ptrdiff_t total = job->rows * job->cols;
    int stream = !buffered && job->rows == 1 && total * job->itemsize >= STREAM_BYTES;
    for (int o = 0; o < out; o++)
        stream &= job->operand[o].data != job->operand[out].data;  // in place: the line is in the cache already
    while (begin < end) {
        ptrdiff_t row = begin / job->cols, col = begin % job->cols, n = job->cols - col;
        n = n < end - begin ? n : end - begin;
        n = buffered && n > BUFFERED ? BUFFERED : n;
        run_chunk(job, row, col, n, stream);
        begin += n;
    }
}

void tw_run_elementwise(const tw_elementwise *job) {
    tw_elementwise flat = *job;
    int joined = 1;  // rows follow upon one another in every operand: one long row
    for (int o = 0; o < job->operands; o++)
        joined &= job->rows == 1 || job->operand[o].row == job->operand[o].col * job->cols;
    if (joined) {
        flat.cols *= flat.rows;
        flat.rows = 1;
    }
    if (flat.cols == 1)  // a column, or one element
        for (int o = 0; o < job->operands; o++)
            flat.operand[o].col = flat.rows == 1 ? 1 : flat.operand[o].col;
    ptrdiff_t total = flat.rows * flat.cols;
    double ns = total * job->ns;
    if (total && ns < TW_PARALLEL_NS)
        run_range(&flat, 0, total);
    else if (total)
        tw_parallel_ranges(total, GRAIN, ns, run_range, &flat);
}
