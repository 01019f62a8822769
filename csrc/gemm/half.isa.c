// Conversions between float32 and the two 16-bit floats. bfloat16 is the upper half of a float32, so plain integer
// arithmetic vectorises on every ISA; float16 has instructions on all but the x86-64 baseline.
#include "half.h"

#include <string.h>

#include "../isa/isa.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static void widen_bf16(ptrdiff_t n, const uint16_t *restrict from, float *restrict to) {
    for (ptrdiff_t i = 0; i < n; i++) to[i] = float_of((uint32_t)from[i] << 16);
}

static void narrow_bf16(ptrdiff_t n, const float *restrict from, uint16_t *restrict to) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of(from[i]), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded); // a NaN stays one, made quiet
    }
}

#if defined __F16C__

static void widen_f16(ptrdiff_t n, const uint16_t *from, float *to) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
    for (; i < n; i++) to[i] = _cvtsh_ss(from[i]);
}

static void narrow_f16(ptrdiff_t n, const float *from, uint16_t *to) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
}

#elif defined __aarch64__

static void widen_f16(ptrdiff_t n, const uint16_t *from, float *to) {
    const __fp16 *x = (const __fp16 *)from;
    for (ptrdiff_t i = 0; i < n; i++) to[i] = x[i];
}

static void narrow_f16(ptrdiff_t n, const float *from, uint16_t *to) {
    __fp16 *x = (__fp16 *)to;
    for (ptrdiff_t i = 0; i < n; i++) x[i] = (__fp16)from[i];
}

#else

#define TWO_TO_112 5.192296858534828e33f // the distance of the two exponent biases: 2^(127 - 15)

static void widen_f16(ptrdiff_t n, const uint16_t *from, float *to) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t sign = (uint32_t)(from[i] & 0x8000) << 16, rest = (uint32_t)(from[i] & 0x7fff) << 13;
        const uint32_t value = rest >= 0x0f800000 ? rest | 0x7f800000 : bits_of(float_of(rest) * TWO_TO_112);
        to[i] = float_of(sign | value | (rest > 0x0f800000 ? 0x400000 : 0));
    }
}

// Adding 2^(e + 13 - 10) to a float of exponent e leaves its upper 10 bits of significand, rounded to nearest even.
static uint16_t narrow_one_f16(float x) {
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000) // 65520 and more round to infinity
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) // below 2^-14: units of 2^-24, which adding 0.5 leaves in the low bits
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

static void narrow_f16(ptrdiff_t n, const float *from, uint16_t *to) {
    for (ptrdiff_t i = 0; i < n; i++) to[i] = narrow_one_f16(from[i]);
}

#endif

extern const tw_half_kernels TW_NAME(tw_half);
const tw_half_kernels TW_NAME(tw_half) = {.widen = {widen_f16, widen_bf16}, .narrow = {narrow_f16, narrow_bf16}};
