// AVX-512 (F, BW, DQ, VL): 16 floats or 8 doubles, truth values in mask registers. Included by vec.h alone.
#include <immintrin.h>

#define V_HAS_FMA
#define V_HAS_ROUND
#define V_HAS_SCALE
#define V_HAS_REDUCE
#if TW_BITS == 32
#define I(op) _mm512_##op##_ps
#define I_MASK(op) _mm512_##op##_ps_mask
typedef __mmask16 mask;
#else
#define I(op) _mm512_##op##_pd
#define I_MASK(op) _mm512_##op##_pd_mask
typedef __mmask8 mask;
#endif

INLINE vec v_set1(real a) { return I(set1)(a); }
INLINE mask v_lanes(ptrdiff_t n) { return (mask)((1u << n) - 1); }
INLINE vec v_load_n(const real *p, ptrdiff_t n) { return I(maskz_loadu)(v_lanes(n), p); }
INLINE void v_store_n(real *p, vec a, ptrdiff_t n) { I(mask_storeu)(p, v_lanes(n), a); }
INLINE void v_stream(real *p, vec a) { I(stream)(p, a); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE vec v_fma(vec a, vec b, vec c) { return I(fmadd)(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return I(fnmadd)(a, b, c); }
INLINE vec v_min(vec a, vec b) { return I(min)(a, b); }
INLINE vec v_max(vec a, vec b) { return I(max)(a, b); }
INLINE vec v_sqrt(vec a) { return I(sqrt)(a); }
INLINE vec v_round(vec a) { return I(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

INLINE mask v_lt(vec a, vec b) { return I_MASK(cmp)(a, b, _CMP_LT_OQ); }
INLINE mask v_le(vec a, vec b) { return I_MASK(cmp)(a, b, _CMP_LE_OQ); }
INLINE mask v_unord(vec a, vec b) { return I_MASK(cmp)(a, b, _CMP_UNORD_Q); }
INLINE vec v_select(mask m, vec a, vec b) { return I(mask_blend)(m, b, a); }

INLINE vec v_scale(vec a, vec n) { return I(scalef)(a, n); }
INLINE vec v_scale_normal(vec a, vec n) { return I(scalef)(a, n); }
#if TW_BITS == 32
INLINE vec v_lookup(const real *table, ivec i, int n) {
    const vec first = _mm512_loadu_ps(table);
    return n == 16 ? _mm512_permutexvar_ps((__m512i)i, first)
                   : _mm512_permutex2var_ps(first, (__m512i)i, _mm512_loadu_ps(table + 16));
}
#else
INLINE vec v_lookup(const real *table, ivec i, int n) {
    (void)n;
    return _mm512_permutexvar_pd((__m512i)i, _mm512_loadu_pd(table));
}
#endif

INLINE real v_sum(vec a) { return I(reduce_add)(a); }
INLINE real v_largest(vec a) { return v_unord(a, a) ? I(reduce_add)(a) : I(reduce_max)(a); }

#if TW_BITS == 32
INLINE ivec v_to_int(vec a) { return (ivec)_mm512_cvtps_epi32(a); }
INLINE ivec v_larger(ivec a, ivec b) { return (ivec)_mm512_max_epi32((__m512i)a, (__m512i)b); }
INLINE ivec v_larger_unsigned(ivec a, ivec b) { return (ivec)_mm512_max_epu32((__m512i)a, (__m512i)b); }
INLINE int32_t v_largest_int(ivec a) { return _mm512_reduce_max_epi32((__m512i)a); }
INLINE ivec v_load_s8(const int8_t *p) { return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE ivec v_load_u8(const uint8_t *p) { return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE ivec v_load_s16(const int16_t *p) { return (ivec)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
INLINE ivec v_load_u16(const uint16_t *p) { return (ivec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
INLINE ivec v_load_s32_n(const int32_t *p, ptrdiff_t n) { return (ivec)_mm512_maskz_loadu_epi32(v_lanes(n), p); }
INLINE void v_store_8(uint8_t *p, ivec a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)a)); }
INLINE void v_store_bytes(uint8_t *p, ivec a, ivec b, ivec c, ivec d) {
    const __m512i ab = _mm512_packs_epi32((__m512i)a, (__m512i)b), cd = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // packing goes by 16 bytes
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(turn, _mm512_packus_epi16(ab, cd)));
}
INLINE void v_store_16(uint16_t *p, ivec a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)a)); }
#endif
#undef I
#undef I_MASK
