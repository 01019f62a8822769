// softmax and log_softmax of one row, and their derivatives, for one element type and one ISA.
//
// softmax(x) = exp(x - max) / sum; log_softmax(x) = (x - max) - log sum. Three passes over a row that stays in L1 or L2.
#include "kernels.h"

#include "reduce.h"

enum { STREAMED = 4096 };  // elements of a row whose exponentials wait on the stack, in L1, for their sum

static void softmax(ptrdiff_t n, const void *x_, void *y_, int stream) {
    const real *x = x_;
    real *y = y_, waiting[STREAMED], *e = stream && n <= STREAMED ? waiting : y;
    const vec scale = v_set1(1 / row_exp_sum(n, x, row_max(n, x), e));
    V_WRITE(n, y, e == waiting, v_load_left(e + i, left) * scale);
}

static void log_softmax(ptrdiff_t n, const void *x_, void *y_, int stream) {
    const real *x = x_, max = row_max(n, x);
    real *y = y_;
    const vec m = v_set1(max), log_sum = v_set1(real_log(row_exp_sum(n, x, max, NULL)));
    V_WRITE(n, y, stream, (v_load_left(x + i, left) - m) - log_sum);
}

// dx = y (dy - sum(dy y))
static void softmax_backward(ptrdiff_t n, const void *dy_, const void *y_, void *dx_) {
    const real *dy = dy_, *y = y_;
    real *dx = dx_;
    vec sum = ZERO;
    V_EACH(n, sum = v_fma(v_load_left(dy + i, left), v_load_left(y + i, left), sum););
    const vec dot = v_set1(v_sum(sum));
    V_WRITE(n, dx, 0, v_load_left(y + i, left) * (v_load_left(dy + i, left) - dot));
}

// dx = dy - exp(y) sum(dy)
static void log_softmax_backward(ptrdiff_t n, const void *dy_, const void *y_, void *dx_) {
    const real *dy = dy_, *y = y_;
    real *dx = dx_;
    vec total = ZERO;
    V_EACH(n, total += v_load_left(dy + i, left););
    const vec sum = v_set1(v_sum(total));
    V_WRITE(n, dx, 0, v_fnma(v_exp(v_load_left(y + i, left)), sum, v_load_left(dy + i, left)));
}

const tw_softmax_kernels TW_NAME(TW_TYPED(tw_softmax)) = {softmax, log_softmax, softmax_backward, log_softmax_backward};
