// layer_norm and rms_norm of one row and their derivatives, for one element type and one ISA.
//
//     u = x - mean (or x),  r = 1 / sqrt(mean(u^2) + eps),  h = u r,  y = h weight + bias
//     g = dy weight,  dx = r (g - mean(g) - h mean(g h)),  dweight += dy h,  dbias += dy      (mean(g) only if centred)
//
// The variance is summed about a shift near the mean, so that 1e4 + noise keeps the digits of the noise. The first
// element serves, in one pass, unless it proves to lie more than 1.7 deviations away; then the mean itself, in another.
// The mean is held as a sum of two, base + rest, base being the rounded one.
#include "kernels.h"

#include "../isa/vmath.h"

typedef struct {
    real base, rest, inverse;  // mean = base + rest; r
} stats;

// Sums of x - shift and of its square, four vectors at a time, in a fixed order.
INLINE void moments(ptrdiff_t n, const real *x, real shift, real *first, real *second) {
    const vec m = v_set1(shift);
    vec s[4] = {ZERO, ZERO, ZERO, ZERO}, q[4] = {ZERO, ZERO, ZERO, ZERO};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        V_UNROLL for (int k = 0; k < 4; k++) {
            vec u = v_load(x + i + k * LANES) - m;
            s[k] += u;
            q[k] = v_fma(u, u, q[k]);
        }
    for (; i < n; i += LANES) {
        const ptrdiff_t left = n - i < LANES ? n - i : LANES;
        vec u = v_select(v_lanes(left), v_load_n(x + i, left) - m, ZERO);
        s[0] += u;
        q[0] = v_fma(u, u, q[0]);
    }
    *first = v_sum((s[0] + s[1]) + (s[2] + s[3]));
    *second = v_sum((q[0] + q[1]) + (q[2] + q[3]));
}

INLINE real square_root(real x) { return TW_BITS == 32 ? (real)__builtin_sqrtf((float)x) : (real)__builtin_sqrt(x); }

INLINE stats stats_of(ptrdiff_t n, int centre, double eps, const real *x) {
    real sum, squares, shift = centre ? x[0] : 0;
    moments(n, x, shift, &sum, &squares);
    real off = sum / n, variance = squares / n;
    if (!centre)
        return (stats){0, 0, 1 / square_root(variance + (real)eps)};
    variance -= off * off;
    if (!(off * off <= 3 * variance)) {
        shift += off;
        moments(n, x, shift, &sum, &squares);
        off = sum / n;
        variance = squares / n - off * off;
    }
    const real base = shift + off;
    return (stats){base, (shift - base) + off, 1 / square_root(variance + (real)eps)};
}

INLINE vec normalized(vec x, int centre, vec base, vec rest, vec inverse) {
    return (centre ? (x - base) - rest : x) * inverse;
}

INLINE void forward_row(ptrdiff_t n, int centre, double eps, const real *x, const real *weight, const real *bias, real *y,
                        int stream) {
    const stats s = stats_of(n, centre, eps, x);
    const vec base = v_set1(s.base), rest = v_set1(s.rest), inverse = v_set1(s.inverse);
#define H normalized(v_load_left(x + i, left), centre, base, rest, inverse)
    if (weight && bias)
        V_WRITE(n, y, stream, v_fma(H, v_load_left(weight + i, left), v_load_left(bias + i, left)));
    else if (weight)
        V_WRITE(n, y, stream, H * v_load_left(weight + i, left));
    else if (bias)
        V_WRITE(n, y, stream, H + v_load_left(bias + i, left));
    else
        V_WRITE(n, y, stream, H);
#undef H
}

static void forward(ptrdiff_t n, int centre, double eps, const void *x, const void *weight, const void *bias, void *y,
                    int stream) {
    if (centre)
        forward_row(n, 1, eps, x, weight, bias, y, stream);
    else
        forward_row(n, 0, eps, x, weight, NULL, y, stream);
}

typedef struct {
    const real *dy, *x, *weight;
    real *dx, *dweight, *dbias;
    vec base, rest, inverse, mean_g, mean_gh;
    int centre;
} row;

// Lanes beyond `left` hold zeros in dy, and so in what is summed.
INLINE void sums(const row *r, ptrdiff_t i, ptrdiff_t left, vec *sum_g, vec *sum_gh) {
    vec dy = v_load_left(r->dy + i, left), h = normalized(v_load_left(r->x + i, left), r->centre, r->base, r->rest, r->inverse);
    vec g = r->weight ? dy * v_load_left(r->weight + i, left) : dy;
    *sum_g += g;
    *sum_gh = v_fma(g, h, *sum_gh);
    v_store_left(r->dweight + i, v_fma(dy, h, v_load_left(r->dweight + i, left)), left);
    if (r->centre)
        v_store_left(r->dbias + i, v_load_left(r->dbias + i, left) + dy, left);
}

INLINE void differences(const row *r, ptrdiff_t i, ptrdiff_t left) {
    vec dy = v_load_left(r->dy + i, left), h = normalized(v_load_left(r->x + i, left), r->centre, r->base, r->rest, r->inverse);
    vec g = r->weight ? dy * v_load_left(r->weight + i, left) : dy;
    v_store_left(r->dx + i, v_fnma(h, r->mean_gh, r->centre ? g - r->mean_g : g) * r->inverse, left);
}

static void backward(ptrdiff_t n, int centre, double eps, const void *dy, const void *x, const void *weight, void *dx,
                     void *dweight, void *dbias) {
    const stats s = stats_of(n, centre, eps, x);
    row r = {dy, x, weight, dx, dweight, dbias, v_set1(s.base), v_set1(s.rest), v_set1(s.inverse), ZERO, ZERO, centre};
    vec sum_g = ZERO, sum_gh = ZERO;
    V_EACH(n, sums(&r, i, left, &sum_g, &sum_gh););
    r.mean_g = v_set1(v_sum(sum_g) / n);
    r.mean_gh = v_set1(v_sum(sum_gh) / n);
    V_EACH(n, differences(&r, i, left););
}

static void add(ptrdiff_t n, const void *x_, void *sum_) {
    const real *x = x_;
    real *sum = sum_;
    V_WRITE(n, sum, 0, v_load_left(sum + i, left) + v_load_left(x + i, left));
}

const tw_norm_kernels TW_NAME(TW_TYPED(tw_norm)) = {forward, backward, add};
