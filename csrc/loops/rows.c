#include "rows.h"

#include <stdatomic.h>

#include "../threads/threads.h"
#include "stream.h"
#include "tile.h"

// Rows that are not contiguous are copied so many at a time: two cache lines of floats of a transposed matrix, where the
// second comes with the first (softmax down 1000 x 1000 floats on one thread: 600 us with one line, 480 with two).
// Their distance is an odd number of lines: a power of two would put them all into one set of the cache.
enum { ROWS = 2 * TW_TILE_ROWS };

static int is_strided(const tw_row_job *job, int operand) { return job->operand[operand].col != 1 && job->cols > 1; }

static ptrdiff_t distance(const tw_row_job *job) {
    const ptrdiff_t line = 64 / job->itemsize, lines = (job->cols + line - 1) / line;
    return (lines | 1) * line;
}

static void run_tile(const tw_row_job *job, ptrdiff_t begin, ptrdiff_t rows, char *space) {
    const ptrdiff_t apart = distance(job);
    tw_matrix at[TW_ROW_OPERANDS];
    for (int o = 0; o < job->operands; o++) {
        const tw_matrix m = tw_at(job->operand[o], job->itemsize, begin, 0);
        at[o] = is_strided(job, o) ? (tw_matrix){space + o * ROWS * apart * job->itemsize, apart, 1} : m;
        if (is_strided(job, o) && o < job->inputs)
            tw_gather(rows, job->cols, job->itemsize, m, at[o].data, apart);
    }
    for (ptrdiff_t row = 0; row < rows; row++) {
        void *data[TW_ROW_OPERANDS];
        for (int o = 0; o < job->operands; o++) data[o] = tw_at(at[o], job->itemsize, row, 0).data;
        job->run(job, begin + row, data);
    }
    for (int o = job->inputs; o < job->operands; o++)
        if (is_strided(job, o))
            tw_scatter(rows, job->cols, job->itemsize, at[o].data, apart, tw_at(job->operand[o], job->itemsize, begin, 0));
}

int tw_run_some_rows(const tw_row_job *job, ptrdiff_t begin, ptrdiff_t end) {
    int strided = 0;
    for (int o = 0; o < job->operands; o++) strided |= is_strided(job, o);
    char *space = strided ? tw_workspace(job->operands * ROWS * distance(job) * job->itemsize) : NULL;
    if (strided && !space)
        return TW_NO_MEMORY;
    for (; begin < end; begin += ROWS)
        run_tile(job, begin, end - begin < ROWS ? end - begin : ROWS, space);
    return TW_OK;
}

typedef struct {
    const tw_row_job *job;
    atomic_int code;
} shared;

static void run_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    shared *s = context;
    const int code = tw_run_some_rows(s->job, begin, end);
    if (code != TW_OK)
        s->code = code;
}

int tw_run_rows(const tw_row_job *job) {
    if (job->rows <= 0 || job->cols <= 0)
        return TW_OK;
    const double elements = (double)job->rows * (double)job->cols;
    const unsigned written = ((1u << job->operands) - 1) & ~((1u << job->inputs) - 1);
    tw_row_job mine = *job;
    mine.stream = tw_wants_stream(job->operands, written, job->operand, job->operands * elements * job->itemsize);
    for (int o = job->inputs; o < job->operands; o++) mine.stream &= !is_strided(job, o);
    shared s = {&mine, TW_OK};
    tw_parallel_ranges(job->rows, 1, elements * job->ns, run_range, &s);
    return s.code;
}
