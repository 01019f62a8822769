// Tiles of sums finished while they are in L1.
#include "layer.h"

#include "../loops/tile.h"

enum { PIECE = 512 };  // columns at a time of a row that goes through a buffer

#define MIN(a, b) ((a) < (b) ? (a) : (b))

static void finish_row(const tw_layer *l, ptrdiff_t n, tw_matrix residual, float *f) {
    if (l->activation)
        l->activation(n, f, f, l->param);
    const float *add = residual.data;
    for (ptrdiff_t s = 0; add && s < n; s++) f[s] += add[s * residual.col];
}

// Straight into rows of y, which may be the residual: that is why there is none.
static void finish_in_place(const tw_layer *l, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n, const int32_t *sums,
                            ptrdiff_t row) {
    float *y = tw_at(l->y, sizeof(float), i, j).data;
    l->kernels->rescale(m, n, sums, row, l->row_scale + i * l->row_step, l->row_step, l->col_scale + j,
                        l->bias ? l->bias + j : NULL, l->past && !l->activation, y, l->y.row);
    for (ptrdiff_t r = 0; l->activation && r < m; r++) l->activation(n, y + r * l->y.row, y + r * l->y.row, l->param);
}

static void store(const tw_layer *l, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n, const float *f) {
    if (l->type == TW_FLOAT32) {
        tw_scatter(1, n, sizeof *f, f, n, tw_at(l->y, sizeof *f, i, j));
        return;
    }
    uint8_t q[PIECE];
    const int32_t low = l->type == TW_INT8 ? INT8_MIN : 0;
    const tw_matrix y = tw_at(l->y, 1, i, j);
    l->kernels->quantize[0](n, TW_ONE_SCALE | TW_ONE_ZERO, low, low + UINT8_MAX, f, l->y_scale + i * l->y_scale_step,
                            l->y_zero + i * l->y_zero_step, y.col == 1 ? y.data : q);
    if (y.col != 1)
        tw_scatter(1, n, 1, q, n, y);
}

void tw_finish_layer(void *layer, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t row) {
    const tw_layer *l = layer;
    if (l->type == TW_FLOAT32 && l->y.col == 1 && !l->residual.data) {
        finish_in_place(l, i, j, m, n, sums, row);
        return;
    }
    float f[PIECE];
    for (ptrdiff_t r = 0; r < m; r++)
        for (ptrdiff_t s = 0; s < n; s += PIECE) {
            const ptrdiff_t count = MIN(n - s, PIECE);
            const tw_matrix residual = l->residual.data ? tw_at(l->residual, sizeof *f, i + r, j + s) : l->residual;
            l->kernels->rescale(1, count, sums + r * row + s, row, l->row_scale + (i + r) * l->row_step, 0,
                                l->col_scale + j + s, l->bias ? l->bias + j + s : NULL, 0, f, 0);
            finish_row(l, count, residual, f);
            store(l, i + r, j + s, count, f);
        }
}
