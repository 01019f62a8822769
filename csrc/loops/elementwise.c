#include "elementwise.h"

#include <stdlib.h>

#include "../threads/threads.h"
#include "stream.h"
#include "tile.h"

enum {
    TILE = 512,    // elements of a tile: four operands of doubles are 16 KiB, half of an L1
    GRAIN = 4096,  // elements: whole pages of output a thread
};

// ---- contiguous rows: elements [begin, end) of all rows laid end to end

static void run_elements(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const tw_elementwise *job = context;
    while (begin < end) {
        ptrdiff_t row = begin / job->cols, col = begin % job->cols, n = job->cols - col;
        n = n < end - begin ? n : end - begin;
        void *data[TW_OPERANDS];
        for (int o = 0; o < job->operands; o++) data[o] = tw_at(job->operand[o], job->itemsizes[o], row, col).data;
        job->chunk(job, begin, n, data);
        begin += n;
    }
}

// ---- strided: tiles [begin, end), counted along the rows

typedef struct {
    tw_elementwise job;
    ptrdiff_t rows, cols, across;  // of a tile; tiles in a row of them
} tiling;

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

static void run_tiles(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const tiling *t = context;
    const tw_elementwise *job = &t->job;
    _Alignas(64) char buffer[TW_OPERANDS][TILE * sizeof(double)];
    for (; begin < end; begin++) {
        const ptrdiff_t row = begin / t->across * t->rows, col = begin % t->across * t->cols;
        const ptrdiff_t rows = smaller(job->rows - row, t->rows), cols = smaller(job->cols - col, t->cols);
        tw_matrix at[TW_OPERANDS];
        void *data[TW_OPERANDS];
        unsigned copied = 0;  // not those whose tile is contiguous
        for (int o = 0; o < job->operands; o++) {
            at[o] = tw_at(job->operand[o], job->itemsizes[o], row, col);
            copied |= (unsigned)(rows > 1 || at[o].col != 1) << o & ~job->single;
            data[o] = copied >> o & 1 ? buffer[o] : at[o].data;
        }
        for (int o = 0; o < job->operands; o++)
            if (job->read & copied & 1u << o) tw_gather(rows, cols, job->itemsizes[o], at[o], buffer[o], cols);
        job->chunk(job, row * job->cols + col, rows * cols, data);
        for (int o = 0; o < job->operands; o++)
            if (job->written & copied & 1u << o) tw_scatter(rows, cols, job->itemsizes[o], buffer[o], cols, at[o]);
    }
}

// Several rows at a time only where some operand is contiguous along its columns.
static tiling tiles_of(const tw_elementwise *job) {
    int transposed = 0;
    for (int o = 0; o < job->operands; o++) {
        const tw_matrix *m = &job->operand[o];
        transposed |= m->row && labs(m->row) < labs(m->col);
    }
    const ptrdiff_t rows = transposed && !job->ordered ? smaller(job->rows, TW_TILE_ROWS) : 1, cols = TILE / rows;
    tiling t = {*job, rows, cols, (job->cols - 1) / cols + 1};
    for (int o = 0; o < job->operands; o++)
        if (rows > 1 && job->operand[o].row)
            t.job.single &= ~(1u << o);
    return t;
}

// ----

// Rows that follow upon one another in every operand are one long row; the stride of a single column does not matter.
static tw_elementwise joined(const tw_elementwise *job) {
    tw_elementwise flat = *job;
    int joins = 1;
    for (int o = 0; o < job->operands; o++)
        joins &= job->rows == 1 || job->operand[o].row == job->operand[o].col * job->cols;
    if (joins) {
        flat.cols *= flat.rows;
        flat.rows = 1;
    }
    for (int o = 0; o < job->operands; o++) {
        if (flat.cols == 1)
            flat.operand[o].col = 1;
        if (flat.operand[o].col)
            flat.single &= ~(1u << o);
        if (job->itemsize)
            flat.itemsizes[o] = job->itemsize;
    }
    return flat;
}

void tw_run_elementwise(const tw_elementwise *job) {
    tw_elementwise flat = joined(job);
    const ptrdiff_t total = flat.rows * flat.cols;
    const double ns = total * job->ns;
    double bytes = 0;
    int strided = 0;
    for (int o = 0; o < flat.operands; o++) {
        const int single = flat.single >> o & 1;
        strided |= flat.operand[o].col != 1 && !single;
        bytes += single ? 0 : (double)total * flat.itemsizes[o];
    }
    if (total <= 0)
        return;
    if (strided) {
        tiling t = tiles_of(&flat);
        tw_parallel_ranges((flat.rows - 1) / t.rows * t.across + t.across, 1, ns, run_tiles, &t);
        return;
    }
    flat.stream = flat.rows == 1 && !(flat.read & flat.written) &&
                  tw_wants_stream(flat.operands, flat.written, flat.operand, bytes);
    if (ns < TW_PARALLEL_NS)
        run_elements(&flat, 0, total);
    else
        tw_parallel_ranges(total, GRAIN, ns, run_elements, &flat);
}
