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

#if TW_BITS == 32
#ifdef __SSE2__
INLINE ivec v_to_int(vec a) { return (ivec)_mm_cvtps_epi32(a); }
INLINE __m128i v_low_16(ivec a) {  // packing saturates: nothing is left to
    const __m128i low = (__m128i)(a << 16 >> 16);
    return _mm_packs_epi32(low, low);
}
INLINE void v_store_8(uint8_t *p, ivec a) {
    const __m128i low = v_low_16(a << 24 >> 24);
    const int four = _mm_cvtsi128_si32(_mm_packs_epi16(low, low));
    memcpy(p, &four, 4);
}
INLINE void v_store_bytes(uint8_t *p, ivec a, ivec b, ivec c, ivec d) {
    const __m128i ab = _mm_packs_epi32((__m128i)a, (__m128i)b), cd = _mm_packs_epi32((__m128i)c, (__m128i)d);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi16(ab, cd));
}
INLINE void v_store_16(uint16_t *p, ivec a) { _mm_storel_epi64((__m128i *)p, v_low_16(a)); }
INLINE __m128i v_four_bytes(const void *p) {  // each of them four times, in a lane
    int four;
    memcpy(&four, p, 4);
    const __m128i twice = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_cvtsi32_si128(four));
    return _mm_unpacklo_epi16(twice, twice);
}
INLINE ivec v_load_s8(const int8_t *p) { return (ivec)v_four_bytes(p) >> 24; }
INLINE ivec v_load_u8(const uint8_t *p) { return (ivec)v_four_bytes(p) & 255; }
#else
INLINE ivec v_to_int(vec a) { return v_bits(a + 0x1.8p23f) - v_bits(v_set1(0x1.8p23f)); }
INLINE void v_store_8(uint8_t *p, ivec a) {
    for (int i = 0; i < LANES; i++) p[i] = (uint8_t)a[i];
}
INLINE void v_store_bytes(uint8_t *p, ivec a, ivec b, ivec c, ivec d) {
    const ivec all[] = {a, b, c, d};
    for (int i = 0; i < 4 * LANES; i++) {
        const int32_t t = all[i / LANES][i % LANES];
        p[i] = (uint8_t)(t < 0 ? 0 : t > 255 ? 255 : t);
    }
}
INLINE void v_store_16(uint16_t *p, ivec a) {
    for (int i = 0; i < LANES; i++) p[i] = (uint16_t)a[i];
}
INLINE ivec v_load_s8(const int8_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
INLINE ivec v_load_u8(const uint8_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
#endif
INLINE ivec v_larger(ivec a, ivec b) { return (a & (a > b)) | (b & ~(a > b)); }
INLINE ivec v_larger_unsigned(ivec a, ivec b) { return v_larger(a ^ INT32_MIN, b ^ INT32_MIN) ^ INT32_MIN; }
INLINE ivec v_load_s32_n(const int32_t *p, ptrdiff_t n) {
    ivec v = {0};
    for (int i = 0; i < LANES; i++)
        if (i < n) v[i] = p[i];
    return v;
}
INLINE ivec v_load_s16(const int16_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
INLINE ivec v_load_u16(const uint16_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
#endif

INLINE mask v_lt(vec a, vec b) { return a < b; }
INLINE mask v_le(vec a, vec b) { return a <= b; }
INLINE mask v_unord(vec a, vec b) { return ~((a == a) & (b == b)); }

INLINE vec v_lookup(const real *table, ivec i, int n) {
    vec v;
    for (int lane = 0; lane < LANES; lane++) v[lane] = table[i[lane] & (n - 1)];
    return v;
}
