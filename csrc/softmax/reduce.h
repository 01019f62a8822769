// The maximum of a row and the sum of its exponentials, in a fixed order; shared by softmax and the losses.
//
// NaN: the maximum may pass over a NaN, the sum cannot. A row of +infinity somewhere, or of -infinity alone, has a NaN in
// x - max, and so in the sum, and so everywhere.
#ifndef TW_REDUCE_H
#define TW_REDUCE_H

#include "../isa/vmath.h"

#define V_LOWEST v_set1(-__builtin_inff())

INLINE real row_max(ptrdiff_t n, const real *x) {
    vec a = V_LOWEST, b = a, c = a, d = a;
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        a = v_max(a, v_load(x + i));
        b = v_max(b, v_load(x + i + LANES));
        c = v_max(c, v_load(x + i + 2 * LANES));
        d = v_max(d, v_load(x + i + 3 * LANES));
    }
    for (; i + LANES <= n; i += LANES) a = v_max(a, v_load(x + i));
    if (i < n)
        b = v_max(b, v_select(v_lanes(n - i), v_load_n(x + i, n - i), V_LOWEST));
    return v_largest(v_max(v_max(a, b), v_max(c, d)));
}

// Sum of exp(x - max); the exponentials themselves go to e unless it is NULL.
INLINE real row_exp_sum(ptrdiff_t n, const real *x, real max, real *e) {
    const vec m = v_set1(max);
    vec s0 = ZERO, s1 = ZERO;
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec e0 = v_exp_decay(v_load(x + i) - m), e1 = v_exp_decay(v_load(x + i + LANES) - m);
        s0 += e0;
        s1 += e1;
        if (e) {
            v_store(e + i, e0);
            v_store(e + i + LANES, e1);
        }
    }
    for (; i < n; i += LANES) {
        const ptrdiff_t left = n - i < LANES ? n - i : LANES;
        vec e0 = v_exp_decay(v_load_n(x + i, left) - m);
        s0 += v_select(v_lanes(left), e0, ZERO);
        if (e)
            v_store_n(e + i, e0, left);
    }
    return v_sum(s0 + s1);
}

INLINE real real_log(real x) { return TW_BITS == 32 ? (real)__builtin_logf((float)x) : (real)__builtin_log(x); }

#endif
