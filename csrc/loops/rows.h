// The driver of every kernel that works row by row: strides and threads.
//
// Operands are matrices of rows x cols elements with any strides, inputs first. A row whose elements are not contiguous
// is gathered into the thread's workspace, and scattered back if it is an output. Nobody shares a row, so results do not
// depend on the number of threads.
#ifndef TW_ROWS_H
#define TW_ROWS_H

#include "../tilewright.h"

enum { TW_ROW_OPERANDS = 4 };

typedef struct tw_row_job {
    int operands, inputs;
    int itemsize;  // 4 or 8 bytes, of every operand
    ptrdiff_t rows, cols;
    tw_matrix operand[TW_ROW_OPERANDS];
    double ns;   // about what one element takes
    int stream;  // set by tw_run_rows: run may write outputs past the caches
    void (*run)(const struct tw_row_job *job, ptrdiff_t row, void *const *data);
    const void *context;  // for run
} tw_row_job;

// TW_OK or TW_NO_MEMORY
int tw_run_rows(const tw_row_job *job);

// The same for rows [begin, end) by the calling thread.
int tw_run_some_rows(const tw_row_job *job, ptrdiff_t begin, ptrdiff_t end);

#endif
