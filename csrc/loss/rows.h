// cross_entropy of one row of logits and its gradient, for one element type and one ISA.
//
// With logp = (x - max) - log sum exp(x - max), s = smoothing and n classes the loss is
// -(1 - s) logp[label] - s mean(logp), and mean(logp) = mean(x - max) - log sum.
#include "kernels.h"

#include "../softmax/reduce.h"

// Sum of x - max, in a fixed order.
INLINE real row_offset_sum(ptrdiff_t n, const real *x, real max) {
    const vec m = v_set1(max);
    vec s = ZERO;
    V_EACH(n, s += v_select(v_lanes(left), v_load_left(x + i, left) - m, ZERO););
    return v_sum(s);
}

static double loss(ptrdiff_t n, const void *x_, ptrdiff_t label, double smoothing) {
    const real *x = x_, max = row_max(n, x), log_sum = real_log(row_exp_sum(n, x, max, NULL));
    const double picked = (1 - smoothing) * ((double)(x[label] - max) - (double)log_sum);
    if (smoothing == 0)
        return -picked;
    return -picked - smoothing * ((double)row_offset_sum(n, x, max) / n - (double)log_sum);
}

static void gradient(ptrdiff_t n, const void *x_, ptrdiff_t label, double smoothing, double scale, void *dx_) {
    const real *x = x_, max = row_max(n, x);
    real *dx = dx_;
    const real sum = row_exp_sum(n, x, max, dx), at_label = dx[label];
    const vec factor = v_set1((real)(scale / sum)), uniform = v_set1((real)(scale * smoothing / n));
    V_WRITE(n, dx, 0, v_fma(v_load_left(dx + i, left), factor, -uniform));
    dx[label] = (real)(((double)at_label / sum - (1 - smoothing) - smoothing / n) * scale);
}

const tw_loss_kernels TW_NAME(TW_TYPED(tw_loss)) = {loss, gradient};
