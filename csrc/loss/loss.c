// Public cross_entropy over the rows of a matrix of logits, and its gradient. PyTorch's semantics.
#include <stdlib.h>
#include <string.h>

#include "../loops/rows.h"
#include "kernels.h"

TW_KERNELS(tw_loss_kernels, tw_loss_f32)
TW_KERNELS(tw_loss_kernels, tw_loss_f64)

#define NS 0.35  // one float32 on AVX-512, in cache

typedef struct {
    const tw_loss_kernels *kernels;
    const tw_cross_entropy *what;
    double *losses, scale;  // scale: of every row, or for `per_row` of that row
    tw_matrix per_row;
} context;

static const tw_loss_kernels *kernels(int dtype) {
    return dtype == TW_FLOAT32 ? TW_PICK(tw_loss_f32) : TW_PICK(tw_loss_f64);
}

static int is_ignored(const tw_cross_entropy *w, ptrdiff_t row) { return w->labels[row] == w->ignore_index; }

static ptrdiff_t counted(const tw_cross_entropy *w) {
    ptrdiff_t count = 0;
    for (ptrdiff_t row = 0; row < w->rows; row++) count += !is_ignored(w, row);
    return count;
}

static int is_invalid(const tw_cross_entropy *w) {
    if ((w->dtype != TW_FLOAT32 && w->dtype != TW_FLOAT64) || w->reduction < TW_REDUCE_NONE || w->reduction > TW_REDUCE_SUM)
        return 1;
    for (ptrdiff_t row = 0; row < w->rows; row++)
        if (!is_ignored(w, row) && (w->labels[row] < 0 || w->labels[row] >= w->classes))
            return 1;
    return 0;
}

static double get(int dtype, const void *data, ptrdiff_t i) {
    return dtype == TW_FLOAT32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void put(int dtype, void *data, ptrdiff_t i, double value) {
    if (dtype == TW_FLOAT32)
        ((float *)data)[i] = (float)value;
    else
        ((double *)data)[i] = value;
}

static void row_loss(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    const context *c = job->context;
    if (!is_ignored(c->what, row))
        c->losses[row] = c->kernels->loss(job->cols, data[0], c->what->labels[row], c->what->smoothing);
}

int tw_cross_entropy_loss(const tw_cross_entropy *w, void *loss, ptrdiff_t step) {
    if (is_invalid(w))
        return TW_INVALID;
    double *losses = calloc(w->rows + 1, sizeof *losses), sum = 0;
    if (!losses)
        return TW_NO_MEMORY;
    const context c = {kernels(w->dtype), w, losses, 0, {0}};
    const int size = w->dtype == TW_FLOAT32 ? 4 : 8;
    const int code = tw_run_rows(&(tw_row_job){.operands = 1, .inputs = 1, .itemsize = size, .rows = w->rows, .cols = w->classes,
                                               .operand = {w->logits}, .ns = NS * size / 4, .run = row_loss, .context = &c});
    for (ptrdiff_t row = 0; code == TW_OK && row < w->rows; row++) {
        sum += losses[row];
        if (w->reduction == TW_REDUCE_NONE)
            put(w->dtype, loss, row * step, losses[row]);
    }
    if (code == TW_OK && w->reduction != TW_REDUCE_NONE)
        put(w->dtype, loss, 0, w->reduction == TW_REDUCE_MEAN ? sum / (double)counted(w) : sum);
    free(losses);
    return code;
}

static void row_gradient(const tw_row_job *job, ptrdiff_t row, void *const *data) {
    const context *c = job->context;
    const tw_cross_entropy *w = c->what;
    const double scale = c->per_row.data ? get(w->dtype, c->per_row.data, row * c->per_row.row) : c->scale;
    if (is_ignored(w, row))
        memset(data[1], 0, job->cols * job->itemsize);
    else
        c->kernels->gradient(job->cols, data[0], w->labels[row], w->smoothing, scale, data[1]);
}

int tw_cross_entropy_gradient(const tw_cross_entropy *w, const void *dloss, ptrdiff_t step, tw_matrix dlogits) {
    if (is_invalid(w))
        return TW_INVALID;
    context c = {kernels(w->dtype), w, NULL, 0, {0}};
    if (w->reduction == TW_REDUCE_NONE)
        c.per_row = (tw_matrix){(void *)dloss, step, 0};
    else
        c.scale = get(w->dtype, dloss, 0) / (w->reduction == TW_REDUCE_MEAN ? (double)counted(w) : 1);
    const int size = w->dtype == TW_FLOAT32 ? 4 : 8;
    return tw_run_rows(&(tw_row_job){.operands = 2, .inputs = 1, .itemsize = size, .rows = w->rows, .cols = w->classes,
                                     .operand = {w->logits, dlogits}, .ns = NS * size / 4, .run = row_gradient,
                                     .context = &c});
}
