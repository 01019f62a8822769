// Exponentials and what is made of them, on the vectors of vec.h; one source for float and double.
//
// Everything keeps NaN, takes its limits at the infinities and is within 4 ULP of the exact value, at denormal results
// too. docs/ACCURACY.md has the largest error of each over every float, on each instruction set; over 1.6 million doubles:
//
//               exp        expm1      tanh       sigmoid    softplus   silu       gelu       gelu_tanh
//     FMA       0.9        1.1        2.6        2.3        1.6        2.9        3.3        2.9
//     without   1.2        1.1        2.5        2.3        2.0        3.1        3.4        3.0
//
// Two habits make that so:
//   - exp(x) is carried as p * 2^n, p near 1, and scaled last: a denormal is rounded once and never multiplied;
//   - where the argument of exp is itself rounded, as x^2/2 is in gelu, its error is carried along: a relative error e
//     there is a relative error |x| e in the result, up to a hundred ULP in the tails.
#ifndef TW_VMATH_H
#define TW_VMATH_H
#include "vec.h"
#include "vmath_tables.h"

#define ONE v_set1(1)
#define ZERO v_set1(0)
#define POLY(x, table) v_poly(x, table, sizeof(table) / sizeof(real) - 1)

INLINE vec v_poly(vec x, const real *c, int degree) {
    vec p = v_set1(c[degree]);
    V_UNROLL for (int k = degree - 1; k >= 0; k--) p = v_fma(p, x, v_set1(c[k]));
    return p;
}

// expm1(r) for |r| <= ln(2) / 2
INLINE vec v_expm1_near(vec r) { return v_fma(POLY(r, EXPM1), r * r, r); }

// exp(r) for |r| <= ln(2) / 2
INLINE vec v_exp_near(vec r) { return v_fma(v_fma(POLY(r, EXPM1), r, ONE), r, ONE); }

// exp(x) = p * 2^n, EXP_MIN <= x <= EXP_MAX (Cody and Waite: n LN2_HI is exact)
INLINE vec v_exp_split(vec x, vec *n) {
    *n = v_round(x * LOG2E);
    vec r = v_fnma(*n, v_set1(LN2_LO), v_fnma(*n, v_set1(LN2_HI), x));
    return v_exp_near(r);
}

// exp(x + lo) = p * 2^n, lo an error of x
INLINE vec v_exp_split_lo(vec x, vec lo, vec *n) {
    *n = v_round(x * LOG2E);
    vec r = v_fnma(*n, v_set1(LN2_HI), x) + v_fnma(*n, v_set1(LN2_LO), lo);
    return v_exp_near(r);
}

// exp(-(w + lo) / 2) = p * 2^n, without the product by 1/2
INLINE vec v_exp_split_half(vec w, vec lo, vec *n) {
    *n = v_round(w * (REAL(-0.5) * LOG2E));
    vec r = v_fma(*n, v_set1(2 * LN2_HI), w) + v_fma(*n, v_set1(2 * LN2_LO), lo);
    return POLY(r, EXP_HALF);
}

// exp(x) for x <= 0
INLINE vec v_exp_decay(vec x) {
    vec n, p = v_exp_split(v_max(v_set1(EXP_MIN), x), &n);
    return v_scale(p, n);
}

INLINE vec v_exp(vec x) { return v_exp_decay(v_min(v_set1(EXP_MAX), x)); }

// expm1(x) for x <= 0: 2^n expm1(r) + (2^n - 1) does not cancel, for it is at least 0.29 unless n = 0
INLINE vec v_expm1_decay(vec x) {
    x = v_max(v_set1(EXPM1_MIN), x);
    const vec shifter = v_set1(V_SHIFTER + EXPONENT_BIAS);  // rounds, and leaves n + bias in the low bits: those of 2^n
    vec shifted = v_fma(x, v_set1(LOG2E), shifter), n = shifted - shifter, scale = v_from_bits(v_bits(shifted) << MANTISSA);
    vec r = v_fnma(n, v_set1(LN2_LO), v_fnma(n, v_set1(LN2_HI), x));
    return v_fma(v_expm1_near(r), scale, scale - ONE);
}

// log1p(e) for 0 <= e <= 1
INLINE vec v_log1p_unit(vec e) { return v_fma(POLY(e, LOG1P), e * e, e); }

// f(t) by one of many polynomials: exponent and first bits of start + t scale say which.
#define PIECEWISE(f, t) \
    v_piecewise(t, f##_START, f##_SCALE, f##_SHIFT, sizeof f##_CENTER / sizeof(real), f##_CENTER, f##_PIECES[0], \
                sizeof f##_PIECES / sizeof *f##_PIECES - 1)

INLINE vec v_piecewise(vec t, real start, real scale, int shift, int n, const real *center, const real *c, int degree) {
    const ivec i = v_bits(v_fma(t, v_set1(scale), v_set1(start))) >> shift;
    const vec u = t - v_lookup(center, i, n);
    vec p = v_lookup(c + degree * n, i, n);
    V_UNROLL for (int k = degree - 1; k >= 0; k--) p = v_fma(p, u, v_lookup(c + k * n, i, n));
    return p;
}

#if LOOKUP == 16
INLINE vec v_tanh(vec x) { return v_copysign(PIECEWISE(TANH, v_min(v_set1(TANH_MAX), v_abs(x))), x); }
#else
// tanh|x| = -m / (2 + m), m = expm1(-2|x|)
INLINE vec v_tanh(vec x) {
    vec t = -v_abs(x), m = v_expm1_decay(t + t);
    return v_copysign(m / (m + REAL(2.0)), x);
}
#endif

// 1 / (1 + exp(-x)), from exp(-|x|) which never overflows
INLINE vec v_sigmoid(vec x) {
    vec e = v_exp_decay(-v_abs(x));
    return v_select(v_lt(x, ZERO), e, ONE) / (ONE + e);
}

// max(x, 0) + log1p(exp(-|x|))
INLINE vec v_softplus(vec x) { return v_max(ZERO, x) + v_log1p_unit(v_exp_decay(-v_abs(x))); }

// a sigmoid(z), where exp(-|z|) = p 2^n and z has the sign of a; a below the range of exp counts as its edge
INLINE vec v_gate(vec a, vec p, vec n) {
    mask negative = v_lt(a, ZERO);
    vec top = v_select(negative, v_max(v_set1(EXP_MIN), a) * p, a) / (ONE + v_scale_normal(p, n));
    return v_scale(top, v_select(negative, n, ZERO));
}

INLINE vec v_silu(vec x) {
    vec n, p = v_exp_split(v_max(v_set1(EXP_MIN), -v_abs(x)), &n);
    return v_gate(x, p, n);
}

// sqrt(8/pi) (t + 0.044715 t^3) as a sum of two, 0 <= t
INLINE vec v_gelu_tanh_arg(vec t, vec *lo) {
    const vec a = v_set1(GELU_TANH_A), b = v_set1(GELU_TANH_B);
    vec z = t * t, bz = b * z, w = a + bz, v = t * w;
    vec z_lo = v_mul_lo(t, t, z), bz_lo = v_mul_lo(b, z, bz) + v_fma(b, z_lo, z * GELU_TANH_B_LO);
    vec back = w - a, w_lo = ((a - (w - back)) + (bz - back)) + (bz_lo + GELU_TANH_A_LO);  // Knuth's two-sum
    *lo = v_fma(t, w_lo, v_mul_lo(t, w, v));
    return v;
}

INLINE vec v_gelu_tanh(vec x) {
    vec lo, n, t = v_min(v_set1(GELU_TANH_MAX), v_abs(x)), v = v_gelu_tanh_arg(t, &lo);
    vec p = v_exp_split_lo(v_max(v_set1(EXP_MIN), -v), -lo, &n);
    return v_gate(x, p, n);
}

// Phi(-t) = exp(-t^2/2) R(t), where R(t) = erfcx(t/sqrt(2))/2 is smooth and never small; 0 <= t <= GELU_MAX. With
//     v_gelu_bell   exp(-t^2/2) = p * 2^n
//     v_gelu_left   t R(t)                 so that gelu(-t) = -left * bell
//     v_gelu_slope  R(t) - t / sqrt(2 pi)  so that gelu'(-t) = slope * bell
#if LOOKUP == 16
// 2^(n/16) from a table (v_scale rounds n down), which halves the polynomial; left and slope make up for its factor.
INLINE vec v_gelu_bell(vec t, vec *n) {
    const vec w = t * t, shifter = v_set1(V_SHIFTER / 16), place = v_fma(w, v_set1(REAL(-0.5) * LOG2E), shifter);
    *n = place - shifter;
    vec r = v_fma(*n, v_set1(2 * LN2_HI), w) + v_fma(*n, v_set1(2 * LN2_LO), v_mul_lo(t, t, w));
    vec root = v_lookup(ROOTS, v_bits(place), 16);
    return v_fma(root, POLY(r, ROOT_HALF) * r, root);
}
INLINE vec v_gelu_left(vec t) { return PIECEWISE(GELU_LEFT, t); }
INLINE vec v_gelu_slope(vec t) { return PIECEWISE(GELU_SLOPE, t); }
#else
INLINE vec v_gelu_bell(vec t, vec *n) {
    vec w = t * t;
    return v_exp_split_half(w, v_mul_lo(t, t, w), n);
}
INLINE vec v_gelu_left(vec t) { return t * PIECEWISE(GELU_RATIO, t); }
INLINE vec v_gelu_slope(vec t) { return v_fnma(t, v_set1(INV_SQRT_2PI), PIECEWISE(GELU_RATIO, t)); }
#endif

// x Phi(x) = max(x, 0) - |x| Phi(-|x|). The bell may be denormal before it is multiplied: left < 0.4 makes up for that.
// -0.0 in place of 0, so that what underflows keeps its sign.
INLINE vec v_gelu(vec x) {
    vec n, t = v_min(v_set1(GELU_MAX), v_abs(x)), p = v_gelu_bell(t, &n);
    return v_fnma(v_gelu_left(t), v_scale(p, n), v_max(-ZERO, x));
}
#endif
