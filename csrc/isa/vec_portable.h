// Any other machine, x86-64 with SSE2 among them: 4 floats or 2 doubles in GNU vectors, no FMA. Included by vec.h alone.
#ifdef __SSE2__
#include <emmintrin.h>
#if TW_BITS == 32
#define I(op) _mm_##op##_ps
#else
#define I(op) _mm_##op##_pd
#endif
#endif
typedef ivec mask;

INLINE vec v_select(mask m, vec a, vec b) { return v_from_bits((m & v_bits(a)) | (~m & v_bits(b))); }

INLINE vec v_set1(real a) { return a - (vec){0}; }  // folded to a broadcast; a - 0 is a, its sign included
INLINE mask v_lanes(ptrdiff_t n) {
    mask m;
    for (int i = 0; i < LANES; i++) m[i] = -(i < n);
    return m;
}
INLINE vec v_load_n(const real *p, ptrdiff_t n) {
    vec v = {0};
    for (int i = 0; i < LANES; i++)
        if (i < n) v[i] = p[i];
    return v;
}
INLINE void v_store_n(real *p, vec a, ptrdiff_t n) {
    for (int i = 0; i < LANES; i++)
        if (i < n) p[i] = a[i];
}
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec v_fnma(vec a, vec b, vec c) { return c - a * b; }

#ifdef __SSE2__
INLINE void v_stream(real *p, vec a) { I(stream)(p, a); }
INLINE void v_fence(void) { _mm_sfence(); }
INLINE vec v_min(vec a, vec b) { return I(min)(a, b); }
INLINE vec v_max(vec a, vec b) { return I(max)(a, b); }
INLINE vec v_sqrt(vec a) { return I(sqrt)(a); }
#undef I
#else
INLINE void v_stream(real *p, vec a) { *(vec *)p = a; }
INLINE void v_fence(void) {}
INLINE vec v_min(vec a, vec b) { return v_select(a < b, a, b); }
INLINE vec v_max(vec a, vec b) { return v_select(a > b, a, b); }
INLINE vec v_sqrt(vec a) {
    for (int i = 0; i < LANES; i++) a[i] = TW_BITS == 32 ? (real)__builtin_sqrtf((float)a[i]) : (real)__builtin_sqrt(a[i]);
    return a;
}
#endif

INLINE mask v_lt(vec a, vec b) { return a < b; }
INLINE mask v_le(vec a, vec b) { return a <= b; }
INLINE mask v_unord(vec a, vec b) { return ~((a == a) & (b == b)); }

INLINE vec v_lookup(const real *table, ivec i, int n) {
    vec v;
    for (int lane = 0; lane < LANES; lane++) v[lane] = table[i[lane] & (n - 1)];
    return v;
}
