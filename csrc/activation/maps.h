// The activations and their derivatives for one element type and one ISA; included by activation_f32.isa.c and _f64.
//
// Each is a function of vectors; MAP turns it into a loop over contiguous arrays: two vectors at a time (their long chains
// of FMAs overlap), then one, then the first lanes of one.
#include "kernels.h"

#include "../isa/vmath.h"

// ---- y = f(x); a is the parameter

INLINE vec f_relu(vec x, vec a) { (void)a; return v_max(ZERO, x); }
INLINE vec f_leaky_relu(vec x, vec a) { return v_select(v_lt(ZERO, x), x, a * x); }
INLINE vec f_elu(vec x, vec a) { return v_select(v_lt(ZERO, x), x, a * v_expm1_decay(x)); }
INLINE vec f_gelu(vec x, vec a) { (void)a; return v_gelu(x); }
INLINE vec f_gelu_tanh(vec x, vec a) { (void)a; return v_gelu_tanh(x); }
INLINE vec f_silu(vec x, vec a) { (void)a; return v_silu(x); }
INLINE vec f_sigmoid(vec x, vec a) { (void)a; return v_sigmoid(x); }
INLINE vec f_tanh(vec x, vec a) { (void)a; return v_tanh(x); }
INLINE vec f_softplus(vec x, vec a) { (void)a; return v_softplus(x); }
INLINE vec f_hardswish(vec x, vec a) {  // x relu6(x + 3) / 6, and 0 at -infinity
    (void)a;
    const vec three = v_set1(3);
    return v_max(-three, x) * (v_min(v_set1(6), v_max(ZERO, x + three)) * (real)(1.0L / 6));
}

// ---- dx = dy f'(x); max(0, x) brings in the NaN of x

INLINE vec d_relu(vec dy, vec x, vec a) { (void)a; return v_select(v_lt(ZERO, x), dy, v_max(ZERO, x)); }
INLINE vec d_leaky_relu(vec dy, vec x, vec a) { return dy * v_select(v_lt(ZERO, x), ONE, a + v_max(ZERO, x)); }
INLINE vec d_elu(vec dy, vec x, vec a) { return dy * v_select(v_lt(ZERO, x), ONE, a * v_exp_decay(x)); }

// Phi(x) + x phi(x) at -|x|, and 1 minus that at |x|
INLINE vec d_gelu(vec dy, vec x, vec a) {
    (void)a;
    vec n, t = v_min(v_set1(GELU_MAX), v_abs(x)), p = v_gelu_bell(t, &n);
    vec tail = v_scale(v_gelu_slope(t) * p, n);
    return dy * v_select(v_lt(x, ZERO), tail, ONE - tail);
}

// d/dx (x sigmoid(v)) = s + x v' s (1 - s); with e = exp(-|v|) = p 2^n, c = 1 + e it is (c + x v' e) / c^2 for v >= 0 and
// e (c + x v') / c^2 for v < 0, p and n kept apart as in v_gate. xv = x v'.
INLINE vec gate_slope(vec x, vec xv, vec p, vec n) {
    mask negative = v_lt(x, ZERO);
    vec e = v_scale_normal(p, n), c = ONE + e;
    vec top = v_select(negative, p * (c + xv), v_fma(xv, e, c));
    return v_scale(top / (c * c), v_select(negative, n, ZERO));
}

INLINE vec clamp(vec x, real limit) { return v_max(v_set1(-limit), v_min(v_set1(limit), x)); }

INLINE vec d_silu(vec dy, vec x, vec a) {
    (void)a;
    x = clamp(x, -EXP_MIN);
    vec n, p = v_exp_split(-v_abs(x), &n);
    return dy * gate_slope(x, x, p, n);
}

INLINE vec d_gelu_tanh(vec dy, vec x, vec a) {
    (void)a;
    x = clamp(x, GELU_TANH_MAX);
    vec lo, n, v = v_gelu_tanh_arg(v_abs(x), &lo);
    vec p = v_exp_split_lo(v_max(v_set1(EXP_MIN), -v), -lo, &n);
    vec slope = v_fma(x * x, v_set1(3 * GELU_TANH_B), v_set1(GELU_TANH_A));
    return dy * gate_slope(x, x * slope, p, n);
}

INLINE vec d_sigmoid(vec dy, vec x, vec a) {  // e / (1 + e)^2
    (void)a;
    vec e = v_exp_decay(-v_abs(x)), c = ONE + e;
    return dy * (e / (c * c));
}

INLINE vec d_tanh(vec dy, vec x, vec a) {  // 4 e / (1 + e)^2, e = exp(-2|x|)
    (void)a;
    vec e = v_exp_decay(v_abs(x) * -2), c = ONE + e;
    return dy * (4 * e / (c * c));
}

INLINE vec d_softplus(vec dy, vec x, vec a) { (void)a; return dy * v_sigmoid(x); }

INLINE vec d_hardswish(vec dy, vec x, vec a) {  // 0 up to -3, 1 from 3 on, x/3 + 1/2 between
    (void)a;
    vec inside = v_fma(x, v_set1((real)(1.0L / 3)), v_set1((real)0.5));
    return dy * v_select(v_le(v_set1(3), x), ONE, v_select(v_le(x, v_set1(-3)), ZERO, inside));
}

// ---- loops

typedef vec unary(vec x, vec a);
typedef vec binary(vec dy, vec x, vec a);

INLINE void map(unary f, ptrdiff_t n, const real *x, real *y, real param) {
    const vec a = v_set1(param);
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec y0 = f(v_load(x + i), a), y1 = f(v_load(x + i + LANES), a);
        v_store(y + i, y0);
        v_store(y + i + LANES, y1);
    }
    for (; i < n; i += LANES) {
        ptrdiff_t left = n - i < LANES ? n - i : LANES;
        v_store_n(y + i, f(v_load_n(x + i, left), a), left);
    }
}

INLINE void map_stream(unary f, ptrdiff_t n, const real *x, real *y, real param) {
    const vec a = v_set1(param);
    ptrdiff_t i = v_unaligned(y);
    i = i < n ? i : n;
    map(f, i, x, y, param);
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec y0 = f(v_load(x + i), a), y1 = f(v_load(x + i + LANES), a);
        v_stream(y + i, y0);
        v_stream(y + i + LANES, y1);
    }
    v_fence();
    map(f, n - i, x + i, y + i, param);
}

INLINE void map_back(binary f, ptrdiff_t n, const real *dy, const real *x, real *dx, real param) {
    const vec a = v_set1(param);
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec d0 = f(v_load(dy + i), v_load(x + i), a), d1 = f(v_load(dy + i + LANES), v_load(x + i + LANES), a);
        v_store(dx + i, d0);
        v_store(dx + i + LANES, d1);
    }
    for (; i < n; i += LANES) {
        ptrdiff_t left = n - i < LANES ? n - i : LANES;
        v_store_n(dx + i, f(v_load_n(dy + i, left), v_load_n(x + i, left), a), left);
    }
}

#define ROWS(X) \
    X(TW_RELU, relu) X(TW_LEAKY_RELU, leaky_relu) X(TW_ELU, elu) X(TW_GELU, gelu) X(TW_GELU_TANH, gelu_tanh) \
    X(TW_SILU, silu) X(TW_SIGMOID, sigmoid) X(TW_TANH, tanh) X(TW_SOFTPLUS, softplus) X(TW_HARDSWISH, hardswish)

#define MAP(code, name) \
    static void name##_map(ptrdiff_t n, const void *x, void *y, double a) { map(f_##name, n, x, y, (real)a); } \
    static void name##_stream(ptrdiff_t n, const void *x, void *y, double a) { map_stream(f_##name, n, x, y, (real)a); } \
    static void name##_back(ptrdiff_t n, const void *dy, const void *x, void *dx, double a) { \
        map_back(d_##name, n, dy, x, dx, (real)a); \
    }
ROWS(MAP)

#define FORWARD(code, name) [code] = name##_map,
#define STREAM(code, name) [code] = name##_stream,
#define BACKWARD(code, name) [code] = name##_back,

const tw_activation_kernels TW_NAME(TW_TYPED(tw_activation)) = {
    .forward = {ROWS(FORWARD)}, .forward_stream = {ROWS(STREAM)}, .backward = {ROWS(BACKWARD)}};
