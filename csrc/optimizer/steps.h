// The optimizer steps on contiguous arrays, for one element type and one ISA: every array read once and written once.
#include "kernels.h"

#include "../isa/vec.h"

static void sgd(ptrdiff_t n, void *p_, const void *g_, void *b_, const tw_sgd_settings *s) {
    real *p = p_, *b = b_;
    const real *g = g_;
    const vec lr = v_set1((real)s->lr), momentum = v_set1((real)s->momentum), decay = v_set1((real)s->weight_decay);
    V_EACH(n, {
        vec p0 = v_load_left(p + i, left), d = v_fma(decay, p0, v_load_left(g + i, left));
        if (b) {
            vec b1 = v_fma(momentum, v_load_left(b + i, left), d);
            v_store_left(b + i, b1, left);
            d = s->nesterov ? v_fma(momentum, b1, d) : b1;
        }
        v_store_left(p + i, v_fnma(lr, d, p0), left);
    });
}

static void adam(ptrdiff_t n, void *p_, const void *g_, void *m_, void *v_, const tw_adam_factors *f) {
    real *p = p_, *m = m_, *v = v_;
    const real *g = g_;
    const vec beta1 = v_set1((real)f->beta1), beta2 = v_set1((real)f->beta2), eps = v_set1((real)f->eps);
    const vec rest1 = v_set1((real)(1 - f->beta1)), rest2 = v_set1((real)(1 - f->beta2)), decay = v_set1((real)f->decay);
    const vec keep = v_set1((real)f->keep), step = v_set1((real)f->step_size), root = v_set1((real)f->root_scale);
    V_EACH(n, {
        vec p0 = v_load_left(p + i, left), d = v_fma(decay, p0, v_load_left(g + i, left));
        vec m1 = v_fma(beta1, v_load_left(m + i, left), rest1 * d);
        vec v1 = v_fma(beta2, v_load_left(v + i, left), rest2 * d * d);
        v_store_left(m + i, m1, left);
        v_store_left(v + i, v1, left);
        v_store_left(p + i, v_fnma(step, m1 / v_fma(v_sqrt(v1), root, eps), p0 * keep), left);
    });
}

// The sum is in double for both types, so that squares of floats neither overflow nor vanish.
static double squares(ptrdiff_t n, const void *x_) {
    enum { SUMS = 32 };
    const real *x = x_;
    double sum[SUMS] = {0};
    ptrdiff_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int k = 0; k < SUMS; k++) sum[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++) sum[0] += (double)x[i] * (double)x[i];
    for (int k = SUMS / 2; k > 0; k /= 2)
        for (int j = 0; j < k; j++) sum[j] += sum[j + k];
    return sum[0];
}

static void scale(ptrdiff_t n, void *x_, double factor) {
    real *x = x_;
    const vec f = v_set1((real)factor);
    V_WRITE(n, x, 0, v_load_left(x + i, left) * f);
}

const tw_optimizer_kernels TW_NAME(TW_TYPED(tw_optimizer)) = {sgd, adam, squares, scale};
