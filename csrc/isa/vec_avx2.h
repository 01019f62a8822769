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

#if TW_BITS == 32
INLINE ivec v_to_int(vec a) { return (ivec)_mm256_cvtps_epi32(a); }
INLINE ivec v_larger(ivec a, ivec b) { return (ivec)_mm256_max_epi32((__m256i)a, (__m256i)b); }
INLINE ivec v_larger_unsigned(ivec a, ivec b) { return (ivec)_mm256_max_epu32((__m256i)a, (__m256i)b); }
INLINE ivec v_load_s8(const int8_t *p) { return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE ivec v_load_u8(const uint8_t *p) { return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE ivec v_load_s16(const int16_t *p) { return (ivec)_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE ivec v_load_u16(const uint16_t *p) { return (ivec)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE ivec v_load_s32_n(const int32_t *p, ptrdiff_t n) { return (ivec)_mm256_maskload_epi32(p, (__m256i)v_lanes(n)); }
INLINE void v_store_8(uint8_t *p, ivec a) {
    const __m256i low = _mm256_shuffle_epi8((__m256i)a, _mm256_set1_epi32(0x0c080400));  // four bytes of each half
    _mm_storel_epi64((__m128i *)p, _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}
INLINE void v_store_bytes(uint8_t *p, ivec a, ivec b, ivec c, ivec d) {
    const __m256i ab = _mm256_packs_epi32((__m256i)a, (__m256i)b), cd = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    const __m256i turn = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by 16 bytes
    _mm256_storeu_si256((__m256i *)p, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), turn));
}
INLINE void v_store_16(uint16_t *p, ivec a) {  // packing saturates: nothing is left to
    const __m256i low = (__m256i)(a << 16 >> 16);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}
#endif
#undef I
