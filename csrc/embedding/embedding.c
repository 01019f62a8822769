// Rows of a table by index, and the sums over equal indices that are its gradient. Copying needs no instruction set.
#include <string.h>

#include "../loops/tile.h"
#include "../threads/threads.h"

#define NS_PER_ELEMENT 0.3  // a row from memory, by one thread

enum { COLUMNS = 64 };  // of the gradient, at least so many a thread

typedef struct {
    int itemsize;
    ptrdiff_t count, cols;
    const int64_t *indices;
    tw_matrix from, to;
} job;

static char *at(tw_matrix m, ptrdiff_t row, ptrdiff_t col, int itemsize) { return tw_at(m, itemsize, row, col).data; }

static int is_invalid(int dtype, ptrdiff_t table_rows, ptrdiff_t count, const int64_t *indices) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return 1;
    for (ptrdiff_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= table_rows)
            return 1;
    return 0;
}

static void copy_rows(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const job *j = context;
    for (ptrdiff_t i = begin; i < end; i++) {
        const char *from = at(j->from, j->indices[i], 0, j->itemsize);
        char *to = at(j->to, i, 0, j->itemsize);
        if (j->from.col == 1 && j->to.col == 1)
            memcpy(to, from, j->cols * j->itemsize);
        else
            for (ptrdiff_t col = 0; col < j->cols; col++)
                memcpy(at(j->to, i, col, j->itemsize), at(j->from, j->indices[i], col, j->itemsize), j->itemsize);
    }
}

int tw_embedding(int dtype, ptrdiff_t table_rows, ptrdiff_t cols, tw_matrix table, ptrdiff_t count, const int64_t *indices,
                 tw_matrix y) {
    if (is_invalid(dtype, table_rows, count, indices))
        return TW_INVALID;
    job j = {dtype == TW_FLOAT32 ? 4 : 8, count, cols, indices, table, y};
    tw_parallel_ranges(count, 1, (double)count * (double)cols * NS_PER_ELEMENT, copy_rows, &j);
    return TW_OK;
}

#define ADD(type) \
    static void add_##type(ptrdiff_t n, const char *from, ptrdiff_t from_col, char *to, ptrdiff_t to_col) { \
        const type *x = (const type *)from; \
        type *y = (type *)to; \
        if (from_col == 1 && to_col == 1) \
            for (ptrdiff_t i = 0; i < n; i++) y[i] += x[i]; \
        else \
            for (ptrdiff_t i = 0; i < n; i++) y[i * to_col] += x[i * from_col]; \
    }
ADD(float)
ADD(double)

// Every thread has columns of its own and goes through all indices: each sum is in the order of the indices.
static void add_columns(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const job *j = context;
    for (ptrdiff_t i = 0; i < j->count; i++)
        (j->itemsize == 4 ? add_float : add_double)(end - begin, at(j->from, i, begin, j->itemsize), j->from.col,
                                                    at(j->to, j->indices[i], begin, j->itemsize), j->to.col);
}

int tw_embedding_backward(int dtype, ptrdiff_t count, ptrdiff_t cols, tw_matrix dy, const int64_t *indices,
                          ptrdiff_t table_rows, tw_matrix dtable) {
    if (is_invalid(dtype, table_rows, count, indices))
        return TW_INVALID;
    job j = {dtype == TW_FLOAT32 ? 4 : 8, count, cols, indices, dy, dtable};
    for (ptrdiff_t row = 0; row < table_rows; row++)
        if (dtable.col == 1)
            memset(at(dtable, row, 0, j.itemsize), 0, cols * j.itemsize);
        else
            for (ptrdiff_t col = 0; col < cols; col++) memset(at(dtable, row, col, j.itemsize), 0, j.itemsize);
    tw_parallel_ranges(cols, COLUMNS, (double)count * (double)cols * NS_PER_ELEMENT, add_columns, &j);
    return TW_OK;
}
