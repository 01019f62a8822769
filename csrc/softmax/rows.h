// softmax and log_softmax of one row, and their derivatives, for one element type and one ISA.
//
// softmax(x) = exp(x - max) / sum; log_softmax(x) = (x - max) - log sum. Three passes over a row that stays in L1 or L2.
#include "kernels.h"

#include "reduce.h"

static void softmax(ptrdiff_t n, const void *x_, void *y_) {
    const real *x = x_;
    real *y = y_;
    const vec scale = v_set1(1 / row_exp_sum(n, x, row_max(n, x), y));
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, v_load(y + i) * scale);
    if (i < n)
        v_store_n(y + i, v_load_n(y + i, n - i) * scale, n - i);
}

static void log_softmax(ptrdiff_t n, const void *x_, void *y_) {
    const real *x = x_;
    real *y = y_;
    const real max = row_max(n, x);
    const vec m = v_set1(max), log_sum = v_set1(real_log(row_exp_sum(n, x, max, NULL)));
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, (v_load(x + i) - m) - log_sum);
    if (i < n)
        v_store_n(y + i, (v_load_n(x + i, n - i) - m) - log_sum, n - i);
}

// dx = y (dy - sum(dy y))
static void softmax_backward(ptrdiff_t n, const void *dy_, const void *y_, void *dx_) {
    const real *dy = dy_, *y = y_;
    real *dx = dx_;
    vec s0 = ZERO, s1 = ZERO;
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 = v_fma(v_load(dy + i), v_load(y + i), s0);
        s1 = v_fma(v_load(dy + i + LANES), v_load(y + i + LANES), s1);
    }
    for (; i < n; i += LANES) {
        const ptrdiff_t left = n - i < LANES ? n - i : LANES;
        s0 = v_fma(v_load_n(dy + i, left), v_load_n(y + i, left), s0);
    }
    const vec dot = v_set1(v_sum(s0 + s1));
    for (i = 0; i + LANES <= n; i += LANES) v_store(dx + i, v_load(y + i) * (v_load(dy + i) - dot));
    if (i < n)
        v_store_n(dx + i, v_load_n(y + i, n - i) * (v_load_n(dy + i, n - i) - dot), n - i);
}

// dx = dy - exp(y) sum(dy)
static void log_softmax_backward(ptrdiff_t n, const void *dy_, const void *y_, void *dx_) {
    const real *dy = dy_, *y = y_;
    real *dx = dx_;
    vec s0 = ZERO, s1 = ZERO;
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 += v_load(dy + i);
        s1 += v_load(dy + i + LANES);
    }
    for (; i < n; i += LANES) s0 += v_load_n(dy + i, n - i < LANES ? n - i : LANES);
    const vec sum = v_set1(v_sum(s0 + s1));
    for (i = 0; i + LANES <= n; i += LANES) v_store(dx + i, v_fnma(v_exp(v_load(y + i)), sum, v_load(dy + i)));
    if (i < n)
        v_store_n(dx + i, v_fnma(v_exp(v_load_n(y + i, n - i)), sum, v_load_n(dy + i, n - i)), n - i);
}

const tw_softmax_kernels TW_NAME(TW_TYPED(tw_softmax)) = {softmax, log_softmax, softmax_backward, log_softmax_backward};
