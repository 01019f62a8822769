// AVX2 with FMA: 8 floats or 4 doubles, truth values as lanes of all ones. Included by vec.h alone.
#include <immintrin.h>

#define V_HAS_FMA
#define V_HAS_ROUND
#if TW_BITS == 32
#define I(op) _mm256_##op##_ps
#else
#define I(op) _mm256_##op##_pd
#endif
typedef ivec mask;

INLINE vec v_set1(real a) { return I(set1)(a); }
INLINE mask v_lanes(ptrdiff_t n) {  // a window on n times -1 and then zeros
    static const ireal ramp[2 * LANES] = {-1, -1, -1, -1
#if TW_BITS == 32
                                          , -1, -1, -1, -1
#endif
    };
    return (mask)_mm256_loadu_si256((const __m256i *)(ramp + LANES - n));
}
INLINE vec v_load_n(const real *p, ptrdiff_t n) { return I(maskload)(p, (__m256i)v_lanes(n)); }
INLINE void v_store_n(real *p, vec a, ptrdiff_t n) { I(maskstore)(p, (__m256i)v_lanes(n), a); }
INLINE void v_stream(real *p, vec a) { I(stream)(p, a); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE vec v_fma(vec a, vec b, vec c) { return I(fmadd)(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return I(fnmadd)(a, b, c); }
INLINE vec v_min(vec a, vec b) { return I(min)(a, b); }
INLINE vec v_max(vec a, vec b) { return I(max)(a, b); }
INLINE vec v_sqrt(vec a) { return I(sqrt)(a); }
INLINE vec v_round(vec a) { return I(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

INLINE mask v_lt(vec a, vec b) { return (mask)I(cmp)(a, b, _CMP_LT_OQ); }
INLINE mask v_le(vec a, vec b) { return (mask)I(cmp)(a, b, _CMP_LE_OQ); }
INLINE mask v_unord(vec a, vec b) { return (mask)I(cmp)(a, b, _CMP_UNORD_Q); }
INLINE vec v_select(mask m, vec a, vec b) { return I(blendv)(b, a, (vec)m); }

#if TW_BITS == 32
INLINE vec v_lookup(const real *table, ivec i, int n) {
    (void)n;
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)i);
}
#else
INLINE vec v_lookup(const real *table, ivec i, int n) {
    (void)n;
    return _mm256_i64gather_pd(table, (__m256i)(i & 7), 8);
}
#endif
#undef I
