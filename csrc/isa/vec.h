// Vectors of one element type on every ISA, under one set of names.
//
// A translation unit works in one type: it says TW_BITS 32 or 64 and includes this file, once per ISA (*.isa.c).
//
//     real vec ivec mask     float or double | LANES of them | as many integers of that width | as many truth values
//     a + b  a * b  i << k   GNU vector arithmetic, on vec and on ivec; a scalar operand is broadcast
//     v_set1 v_load v_store  no alignment asked for
//     v_load_n v_store_n     the first n lanes (0 <= n <= LANES), zeros beyond; never touch memory past them
//     v_stream v_fence       store past the caches, p aligned to VEC_BYTES | make such stores visible
//     v_fma v_fnma           a*b + c | c - a*b, rounded once where the ISA has FMA
//     v_mul_lo               a*b - hi exactly, for hi = a*b rounded
//     v_min v_max            b where either is NaN, and where both are zero: the operand that shall survive stands second
//     v_lanes                the mask of the first n lanes
//     v_abs v_sqrt v_copysign v_round      to nearest even; |a| < 2^22 or 2^51
//     v_lt v_le v_unord v_select           select(m, a, b) = m ? a : b
//     v_bits v_from_bits     the same bits as the other type
//     v_pow2 v_scale         2^n | a * 2^n rounded once, denormals included; n integral, |n| <= MAX_POW2 | 2*MAX_POW2
//     v_scale_normal         a * 2^n for -MAX_POW2 <= n <= MAX_POW2, and as good as 0 below that
//     v_lookup               table[i mod n]; n = 8, but where LOOKUP == 16 (AVX-512, float) 16 or 32
//     v_sum v_largest        over the lanes, always in the same order
//
// and, where TW_BITS is 32, integers:
//
//     v_to_int v_to_real     to nearest even, |a| < 2^22 | each lane of an ivec as a real
//     v_larger v_larger_unsigned           of each two lanes
//     v_largest_int          the largest lane
//     v_load_s8 _u8 _s16 _u16 _s32         LANES integers of that type, widened; v_load_s8_left: the first `left`
//     v_store_8 v_store_16   the low 8 or 16 bits of each lane; v_store_8_left
//     v_store_bytes          the lanes of four vectors as bytes, held to 0 .. 255
//
//     V_EACH V_WRITE         loops over a contiguous array: whole vectors, then the first lanes of one
//
// Each ISA is one file with the same functions in the same order, on top of the ones here that need no instruction
// of their own. There is no FTZ anywhere: denormals are numbers.
#ifndef TW_VEC_H
#define TW_VEC_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if TW_BITS == 32
typedef float real;
typedef int32_t ireal;
#define REAL(c) c##f
#define TW_TYPED(x) x##_f32
enum { MANTISSA = 23, EXPONENT_BIAS = 127, MAX_POW2 = 126 };
#elif TW_BITS == 64
typedef double real;
typedef int64_t ireal;
#define REAL(c) c
#define TW_TYPED(x) x##_f64
enum { MANTISSA = 52, EXPONENT_BIAS = 1023, MAX_POW2 = 1022 };
#else
#error "say #define TW_BITS 32 or 64 before including vec.h: a translation unit works in one element type"
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#ifdef __clang__
#define V_UNROLL _Pragma("unroll")
#else
#define V_UNROLL _Pragma("GCC unroll 32")
#endif

#if defined __AVX512F__ && defined __AVX512DQ__ && defined __AVX512BW__ && defined __AVX512VL__
#define VEC_BYTES 64
#elif defined __AVX2__ && defined __FMA__
#define VEC_BYTES 32
#else
#define VEC_BYTES 16
#endif
enum { LANES = VEC_BYTES / sizeof(real) };

#if VEC_BYTES == 64 && TW_BITS == 32
#define LOOKUP 16
#else
#define LOOKUP 8
#endif

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef ireal ivec __attribute__((vector_size(VEC_BYTES)));
typedef real vec_unaligned __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));

INLINE vec v_load(const real *p) { return *(const vec_unaligned *)p; }
INLINE void v_store(real *p, vec a) { *(vec_unaligned *)p = a; }
INLINE ivec v_bits(vec a) { return (ivec)a; }
INLINE vec v_from_bits(ivec a) { return (vec)a; }

#if VEC_BYTES == 64
#include "vec_avx512.h"
#elif VEC_BYTES == 32
#include "vec_avx2.h"
#elif defined __ARM_NEON && defined __aarch64__
#include "vec_neon.h"
#else
#include "vec_portable.h"
#endif

#define V_SIGN v_from_bits((ivec){0} + (ireal)((uint64_t)1 << (TW_BITS - 1)))

INLINE vec v_abs(vec a) { return v_from_bits(v_bits(a) & ~v_bits(V_SIGN)); }
INLINE vec v_copysign(vec a, vec sign) {
    return v_from_bits((v_bits(a) & ~v_bits(V_SIGN)) | (v_bits(sign) & v_bits(V_SIGN)));
}

#ifdef V_HAS_FMA
INLINE vec v_mul_lo(vec a, vec b, vec hi) { return v_fma(a, b, -hi); }
#else
// Dekker: halves of the significand, whose products are exact (also under contraction there is nothing to contract to)
INLINE vec v_mul_lo(vec a, vec b, vec hi) {
    const ivec upper = (ivec){0} + ~(((ireal)1 << (MANTISSA / 2 + 1)) - 1);
    vec ah = v_from_bits(v_bits(a) & upper), al = a - ah, bh = v_from_bits(v_bits(b) & upper), bl = b - bh;
    return ((ah * bh - hi) + (ah * bl + al * bh)) + al * bl;
}
#endif

// The first `left` lanes; whole vectors where the compiler sees that left is LANES.
INLINE vec v_load_left(const real *p, ptrdiff_t left) { return left == LANES ? v_load(p) : v_load_n(p, left); }
INLINE void v_store_left(real *p, vec a, ptrdiff_t left) {
    if (left == LANES)
        v_store(p, a);
    else
        v_store_n(p, a, left);
}

// body for i = 0, LANES, 2 LANES ... below n, with `left` the number of lanes that it may touch.
#define V_EACH(n, ...) \
    do { \
        ptrdiff_t i = 0; \
        for (; i + LANES <= (n); i += LANES) { \
            const ptrdiff_t left = LANES; \
            __VA_ARGS__ \
        } \
        if (i < (n)) { \
            const ptrdiff_t left = (n) - i; \
            __VA_ARGS__ \
        } \
    } while (0)

// y[i ..] = value, an expression in i and left, for 0 <= i < n; past the caches if stream.
#define V_WRITE(n, y, stream, value) \
    do { \
        V_WRITE_UNFENCED(n, y, stream, value); \
        if (stream) v_fence(); \
    } while (0)

// The same for one of many rows, after which the caller makes them visible.
#define V_WRITE_UNFENCED(n, y, stream, value) \
    do { \
        ptrdiff_t i = 0; \
        if (stream) { \
            ptrdiff_t left = v_unaligned(y); \
            left = left < (n) ? left : (n); \
            if (left) v_store_n((y), (value), left); \
            for (i = left; i + LANES <= (n); i += LANES) { \
                const ptrdiff_t left = LANES; \
                v_stream((y) + i, (value)); \
            } \
        } else \
            for (; i + LANES <= (n); i += LANES) { \
                const ptrdiff_t left = LANES; \
                v_store((y) + i, (value)); \
            } \
        if (i < (n)) { \
            const ptrdiff_t left = (n) - i; \
            v_store_n((y) + i, (value), left); \
        } \
    } while (0)

// How many elements lie before the first whole vector of memory.
INLINE ptrdiff_t v_unaligned(const real *p) { return -((uintptr_t)p / sizeof(real)) & (LANES - 1); }

// Adding 1.5 * 2^MANTISSA leaves an integer in the low bits of the sum.
#define V_SHIFTER ((real)(3ll << (MANTISSA - 1)))

INLINE vec v_pow2(vec n) { return v_from_bits(v_bits(n + (V_SHIFTER + EXPONENT_BIAS)) << MANTISSA); }

#ifndef V_HAS_ROUND
INLINE vec v_round(vec a) { return (a + V_SHIFTER) - V_SHIFTER; }
#endif

#ifndef V_HAS_SCALE
INLINE vec v_scale(vec a, vec n) {  // two factors, so that neither leaves the range and only the last product rounds
    vec half = v_round(n * REAL(0.5));
    return a * v_pow2(half) * v_pow2(n - half);
}
INLINE vec v_scale_normal(vec a, vec n) { return a * v_pow2(v_max(v_set1(-MAX_POW2), n)); }
#endif

#if TW_BITS == 32
INLINE vec v_to_real(ivec a) { return __builtin_convertvector(a, vec); }

#ifndef V_HAS_REDUCE
INLINE int32_t v_largest_int(ivec a) {
    int32_t t[LANES];
    memcpy(t, &a, sizeof t);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
    return t[0];
}
#endif

INLINE ivec v_load_s32(const int32_t *p) {
    ivec a;
    memcpy(&a, p, sizeof a);
    return a;
}

#define V_LOAD_LEFT(name, type) \
    INLINE ivec v_load_##name##_left(const type *p, ptrdiff_t left) { \
        type t[LANES] = {0}; \
        if (left == LANES) return v_load_##name(p); \
        memcpy(t, p, left * sizeof *p); \
        return v_load_##name(t); \
    }
V_LOAD_LEFT(s8, int8_t)
V_LOAD_LEFT(u8, uint8_t)
V_LOAD_LEFT(s16, int16_t)
V_LOAD_LEFT(u16, uint16_t)

INLINE ivec v_load_s32_left(const int32_t *p, ptrdiff_t left) { return left == LANES ? v_load_s32(p) : v_load_s32_n(p, left); }

#define V_STORE_LEFT(bits) \
    INLINE void v_store_##bits##_left(uint##bits##_t *p, ivec a, ptrdiff_t left) { \
        uint##bits##_t t[LANES]; \
        v_store_##bits(left == LANES ? p : t, a); \
        if (left != LANES) memcpy(p, t, left * sizeof *p); \
    }
V_STORE_LEFT(8)
V_STORE_LEFT(16)
#endif

#ifndef V_HAS_REDUCE
INLINE real v_sum(vec a) {
    real t[LANES];
    memcpy(t, &a, sizeof t);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++) t[i] += t[i + w];
    return t[0];
}

INLINE real v_largest(vec a) {  // NaN where a lane is NaN
    real t[LANES];
    memcpy(t, &a, sizeof t);
    for (int i = 1; i < LANES; i++) t[0] = t[0] >= t[i] || t[0] != t[0] ? t[0] : t[i];
    return t[0];
}
#endif
#endif
