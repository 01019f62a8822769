#include "rows.h"

#include <stdatomic.h>

#include "../threads/threads.h"
#include "elementwise.h"

static char *row_of(const tw_row_job *job, int operand, ptrdiff_t row) {
    return (char *)job->operand[operand].data + row * job->operand[operand].row * job->itemsize;
}

static int is_strided(const tw_row_job *job, int operand) { return job->operand[operand].col != 1 && job->cols > 1; }

int tw_run_some_rows(const tw_row_job *job, ptrdiff_t begin, ptrdiff_t end) {
    const ptrdiff_t slot = (job->cols * job->itemsize + 63) / 64 * 64;
    int strided = 0;
    for (int o = 0; o < job->operands; o++) strided |= is_strided(job, o);
    char *space = strided ? tw_workspace(slot * job->operands) : NULL;
    if (strided && !space)
        return TW_NO_MEMORY;
    for (ptrdiff_t row = begin; row < end; row++) {
        void *data[TW_ROW_OPERANDS];
        for (int o = 0; o < job->operands; o++) {
            data[o] = is_strided(job, o) ? space + o * slot : row_of(job, o, row);
            if (is_strided(job, o) && o < job->inputs)
                tw_gather(job->cols, job->itemsize, row_of(job, o, row), job->operand[o].col, data[o]);
        }
        job->run(job, row, data);
        for (int o = job->inputs; o < job->operands; o++)
            if (is_strided(job, o))
                tw_scatter(job->cols, job->itemsize, data[o], row_of(job, o, row), job->operand[o].col);
    }
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
    shared s = {job, TW_OK};
    if (job->rows > 0 && job->cols > 0)
        tw_parallel_ranges(job->rows, 1, (double)job->rows * (double)job->cols * job->ns, run_range, &s);
    return s.code;
}
