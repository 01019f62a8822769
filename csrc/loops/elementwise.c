#include "elementwise.h"

#include <stdint.h>

#include "../threads/threads.h"

enum {
    BUFFERED = 512,          // elements a strided chunk: four operands of doubles are 16 KiB, half of an L1
    GRAIN = 4096,            // elements: whole pages of output a thread
    STREAM_BYTES = 2 << 20,  // outputs from here on do not stay in an L2 anyway
};

void tw_gather(ptrdiff_t n, int itemsize, const void *from, ptrdiff_t stride, void *to) {
    if (itemsize == 4)
        for (ptrdiff_t i = 0; i < n; i++) ((uint32_t *)to)[i] = ((const uint32_t *)from)[i * stride];
    else
        for (ptrdiff_t i = 0; i < n; i++) ((uint64_t *)to)[i] = ((const uint64_t *)from)[i * stride];
}

void tw_scatter(ptrdiff_t n, int itemsize, const void *from, void *to, ptrdiff_t stride) {
    if (itemsize == 4)
        for (ptrdiff_t i = 0; i < n; i++) ((uint32_t *)to)[i * stride] = ((const uint32_t *)from)[i];
    else
        for (ptrdiff_t i = 0; i < n; i++) ((uint64_t *)to)[i * stride] = ((const uint64_t *)from)[i];
}

// One chunk within a row.
static void run_chunk(const tw_elementwise *job, ptrdiff_t row, ptrdiff_t col, ptrdiff_t n, int stream) {
    _Alignas(64) char buffer[TW_OPERANDS][BUFFERED * sizeof(double)];
    void *data[TW_OPERANDS];
    for (int o = 0; o < job->operands; o++) {
        const tw_matrix *m = &job->operand[o];
        data[o] = (char *)m->data + (row * m->row + col * m->col) * job->itemsize;
        if (m->col != 1) {
            tw_gather(n, job->itemsize, data[o], m->col, buffer[o]);
            data[o] = buffer[o];
        }
    }
    job->chunk(job, row * job->cols + col, n, data, stream);
    for (int o = 0; o < job->operands; o++) {
        const tw_matrix *m = &job->operand[o];
        if (m->col != 1 && job->written >> o & 1)
            tw_scatter(n, job->itemsize, buffer[o], (char *)m->data + (row * m->row + col * m->col) * job->itemsize, m->col);
    }
}

// Elements [begin, end) of all rows laid end to end.
static void run_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const tw_elementwise *job = context;
    const int last = job->operands - 1;
    int strided = 0, in_place = 0;
    for (int o = 0; o <= last; o++) {
        strided |= job->operand[o].col != 1;
        in_place |= o < last && job->operand[o].data == job->operand[last].data; // the lines are in the cache already
    }
    int stream = !strided && !in_place && job->rows == 1 && job->cols * job->itemsize >= STREAM_BYTES;
    while (begin < end) {
        ptrdiff_t row = begin / job->cols, col = begin % job->cols, n = job->cols - col;
        n = n < end - begin ? n : end - begin;
        n = strided && n > BUFFERED ? BUFFERED : n;
        run_chunk(job, row, col, n, stream);
        begin += n;
    }
}

// Rows that follow upon one another in every operand are one long row.
static tw_elementwise joined(const tw_elementwise *job) {
    tw_elementwise flat = *job;
    int joins = 1;
    for (int o = 0; o < job->operands; o++) joins &= job->rows == 1 || job->operand[o].row == job->operand[o].col * job->cols;
    if (joins) {
        flat.cols *= flat.rows;
        flat.rows = 1;
    }
    for (int o = 0; o < job->operands; o++)
        if (flat.cols == 1)
            flat.operand[o].col = 1;
    return flat;
}

void tw_run_elementwise(const tw_elementwise *job) {
    tw_elementwise flat = joined(job);
    const ptrdiff_t total = flat.rows * flat.cols;
    const double ns = total * job->ns;
    if (total > 0 && ns < TW_PARALLEL_NS)
        run_range(&flat, 0, total);
    else
        tw_parallel_ranges(total, GRAIN, ns, run_range, &flat);
}
