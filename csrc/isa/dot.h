// Dot products of small integers on every integer ISA, under one set of names.
//
// A word is 32 bits: the DEPTH neighbours along k of one row of a or one column of b. A vector holds LANES words.
//
//     element                of a
//     wvec                   LANES unsigned words; + - * & ^ are exact modulo 2^32
//     w_set1 w_load w_store  no alignment asked for
//     w_store_n              the first n lanes (0 <= n <= LANES)
//     w_dot(c, a, b)         c + a[0] b[0] + ... + a[DEPTH-1] b[DEPTH-1], lane by lane
//
//     ISA             LANES  DEPTH  elements of a, of b   w_dot
//     avx512_amx         16      4  uint8     int8        vpdpbusd, and matrices (qgemm/matrix.h)
//     avx512_vnni        16      4  uint8     int8        vpdpbusd
//     avx512             16      2  int16     int16       vpmaddwd, vpaddd
//     avx2_vnni           8      4  uint8     int8        vpdpbusd
//     avx2                8      2  int16     int16       vpmaddwd, vpaddd
//     baseline (x86)      4      2  int16     int16       pmaddwd, paddd
//     neon_i8mm           4      4  uint8     int8        usdot
//     neon_dotprod        4      4  int8      int8        sdot
//     neon                4      4  int8      int8        smull, saddlp, addp
//     any other           4      2  int16     int16       what the compiler makes of it
//
// Bytes of the other sign get there by XOR 0x80, which shifts them and their zero point by 128 (A_UNSIGNED says whose), and
// 16 bits hold int8 and uint8 as they are. vpmaddubsw would take bytes on AVX2, but saturates sums of two products: 255 * 127
// * 2 does not fit 16 bits.
#ifndef TW_DOT_H
#define TW_DOT_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __x86_64__
#include <immintrin.h>
#elif defined __ARM_NEON && defined __aarch64__
#include <arm_neon.h>
#endif

#if defined __AVX512BW__
#define WVEC_BYTES 64
#elif defined __AVX2__
#define WVEC_BYTES 32
#else
#define WVEC_BYTES 16
#endif
enum { LANES = WVEC_BYTES / 4 };

#if defined __AVX512VNNI__ || defined __AVXVNNI__ || defined __ARM_FEATURE_MATMUL_INT8
enum { DEPTH = 4, A_UNSIGNED = 1 };
typedef uint8_t element;
#elif defined __ARM_NEON && defined __aarch64__
enum { DEPTH = 4, A_UNSIGNED = 0 };
typedef int8_t element;
#else
enum { DEPTH = 2, A_UNSIGNED = 0 };
typedef int16_t element;
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef uint32_t wvec __attribute__((vector_size(WVEC_BYTES)));
typedef uint32_t wvec_unaligned __attribute__((vector_size(WVEC_BYTES), aligned(1), may_alias));

INLINE wvec w_set1(uint32_t a) { return (wvec){0} + a; }
INLINE wvec w_load(const void *p) { return *(const wvec_unaligned *)p; }
INLINE void w_store(void *p, wvec a) { *(wvec_unaligned *)p = a; }
INLINE uint32_t word_at(const void *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

INLINE void w_store_n(void *p, wvec a, ptrdiff_t n) {
#if WVEC_BYTES == 64
    _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), (__m512i)a);
#else
    memcpy(p, &a, (size_t)n * 4);
#endif
}

// Inline assembly, because gcc 12 copies the sums of _mm512_dpbusd_epi32 through memory: half the speed.
INLINE wvec w_dot(wvec c, wvec a, wvec b) {
#if defined __AVX512VNNI__
    __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
#elif defined __AVXVNNI__
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return c;
#elif defined __AVX512BW__
    return c + (wvec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined __AVX2__
    return c + (wvec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined __SSE2__
    return c + (wvec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined __ARM_FEATURE_MATMUL_INT8
    return (wvec)vusdotq_s32((int32x4_t)c, (uint8x16_t)a, (int8x16_t)b);
#elif defined __ARM_FEATURE_DOTPROD
    return (wvec)vdotq_s32((int32x4_t)c, (int8x16_t)a, (int8x16_t)b);
#elif defined __ARM_NEON && defined __aarch64__
    const int8x16_t x = (int8x16_t)a, y = (int8x16_t)b; // sums of two products are taken in 32 bits: (-128)^2 * 2 is above 32767
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y))), high = vpaddlq_s16(vmull_high_s8(x, y));
    return c + (wvec)vpaddq_s32(low, high);
#else
    typedef int32_t ivec __attribute__((vector_size(WVEC_BYTES)));
    const ivec x = (ivec)a, y = (ivec)b, low = ((ivec)(a << 16) >> 16) * ((ivec)(b << 16) >> 16);
    return c + (wvec)low + (wvec)((x >> 16) * (y >> 16));
#endif
}
#endif
