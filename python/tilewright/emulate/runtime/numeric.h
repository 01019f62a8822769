/* Arithmetic of PTX in C: what the made code calls inline. Included by emulate.h.

   f32 results that are NaN are the one NaN of the hardware, 0x7fffffff; those of f64 are the host's. Approximate
   instructions are computed in double and rounded once. */
#ifndef EMULATE_NUMERIC_H
#define EMULATE_NUMERIC_H

#define INLINE static inline __attribute__((always_inline, unused))

enum { RN, RZ, RM, RP, RNA };  /* rounding: to nearest even, to zero, down, up, to nearest with ties away from zero */

/* ---- bits ---- */
INLINE u32 bits32(f32 x) { u32 u; memcpy(&u, &x, 4); return u; }
INLINE f32 float32(u32 u) { f32 x; memcpy(&x, &u, 4); return x; }
INLINE u64 bits64(f64 x) { u64 u; memcpy(&u, &x, 8); return u; }
INLINE f64 float64(u64 u) { f64 x; memcpy(&x, &u, 8); return x; }
INLINE u8 get8(const u8 *p) { return *p; }
INLINE u16 get16(const u8 *p) { u16 v; memcpy(&v, p, 2); return v; }
INLINE u32 get32(const u8 *p) { u32 v; memcpy(&v, p, 4); return v; }
INLINE u64 get64(const u8 *p) { u64 v; memcpy(&v, p, 8); return v; }
INLINE f32 getf32(const u8 *p) { f32 v; memcpy(&v, p, 4); return v; }
INLINE f64 getf64(const u8 *p) { f64 v; memcpy(&v, p, 8); return v; }
INLINE void put8(u8 *p, u8 v) { *p = v; }
INLINE void put16(u8 *p, u16 v) { memcpy(p, &v, 2); }
INLINE void put32(u8 *p, u32 v) { memcpy(p, &v, 4); }
INLINE void put64(u8 *p, u64 v) { memcpy(p, &v, 8); }
INLINE void putf32(u8 *p, f32 v) { memcpy(p, &v, 4); }
INLINE void putf64(u8 *p, f64 v) { memcpy(p, &v, 8); }

/* ---- conversions (numeric.c) ---- */
/* The nearest number to (-1)^negative * significand * 2^exponent in a format, as bits. */
u64 emu_round(bool negative, u64 significand, int exponent, int exponent_bits, int mantissa_bits, int mode);
u64 emu_narrow(f64 x, int exponent_bits, int mantissa_bits, int mode);  /* NaN: the format's canonical one */
u64 emu_from_unsigned(u64 x, int exponent_bits, int mantissa_bits, int mode);
u64 emu_from_signed(s64 x, int exponent_bits, int mantissa_bits, int mode);
f64 emu_integral(f64 x, int mode);  /* rounded to an integer */
u64 emu_to_unsigned(f64 x, int mode, u64 most, u64 of_nan);
s64 emu_to_signed(f64 x, int mode, s64 least, s64 most, s64 of_nan);
f64 emu_fma_odd(f64 a, f64 b, f64 c);  /* a*b exact in double; the sum rounded to odd, so that it may be rounded again */

INLINE f32 from_f16(u16 h) {
    u32 sign = (u32)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) return float32(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    f32 x = float32(rest << 13) * 0x1p112f;  /* the exponent's bias, subnormals included: exact */
    return float32(sign | bits32(x));
}
INLINE f32 from_bf16(u16 h) { return float32((u32)h << 16); }
INLINE u16 to_f16(f64 x) { return (u16)emu_narrow(x, 5, 10, RN); }
INLINE u16 to_bf16(f64 x) { return (u16)emu_narrow(x, 8, 7, RN); }

/* ---- f32 and f64 ---- */
INLINE f32 ftz(f32 x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x; }
INLINE f32 nan32(f32 x) { return __builtin_expect(x != x, 0) ? float32(0x7fffffff) : x; }
INLINE f32 sat32(f32 x) { return x > 0 ? (x < 1 ? x : 1) : 0; }  /* NaN becomes 0 */
INLINE f64 sat64(f64 x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

#if defined(__x86_64__) && EMU_FMA  /* the host has the instruction; the compiler is not told, so this says it */
INLINE f32 fma32(f32 a, f32 b, f32 c) { __asm__("vfmadd231ss %2, %1, %0" : "+x"(c) : "x"(a), "x"(b)); return c; }
INLINE f64 fma64(f64 a, f64 b, f64 c) { __asm__("vfmadd231sd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b)); return c; }
#elif defined(__aarch64__)
INLINE f32 fma32(f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); }
INLINE f64 fma64(f64 a, f64 b, f64 c) { return __builtin_fma(a, b, c); }
#else
INLINE f32 fma32(f32 a, f32 b, f32 c) { return (f32)emu_fma_odd(a, b, c); }
INLINE f64 fma64(f64 a, f64 b, f64 c) { return fma(a, b, c); }
#endif

INLINE f32 min32(f32 a, f32 b) {
    if (a != a) return nan32(b);
    if (b != b) return a;
    return a == b ? float32(bits32(a) | bits32(b)) : a < b ? a : b;  /* -0 is less than +0 */
}
INLINE f32 max32(f32 a, f32 b) {
    if (a != a) return nan32(b);
    if (b != b) return a;
    return a == b ? float32(bits32(a) & bits32(b)) : a > b ? a : b;
}
INLINE f32 min32_nan(f32 a, f32 b) { return a != a || b != b ? float32(0x7fffffff) : min32(a, b); }
INLINE f32 max32_nan(f32 a, f32 b) { return a != a || b != b ? float32(0x7fffffff) : max32(a, b); }
INLINE f64 min64(f64 a, f64 b) {
    if (a != a) return b;
    if (b != b) return a;
    return a == b ? float64(bits64(a) | bits64(b)) : a < b ? a : b;
}
INLINE f64 max64(f64 a, f64 b) {
    if (a != a) return b;
    if (b != b) return a;
    return a == b ? float64(bits64(a) & bits64(b)) : a > b ? a : b;
}

/* rounded another way than to nearest (numeric.c) */
f32 emu_add32(f32, f32, int), emu_mul32(f32, f32, int), emu_fma32(f32, f32, f32, int), emu_div32(f32, f32, int),
    emu_sqrt32(f32, int);
f64 emu_add64(f64, f64, int), emu_mul64(f64, f64, int), emu_fma64(f64, f64, f64, int), emu_div64(f64, f64, int),
    emu_sqrt64(f64, int);
f64 emu_rcp_high(f64), emu_rsqrt_high(f64);  /* .approx.ftz.f64: high words in and out */

/* ---- integers ---- */
u32 emu_prmt(u32 a, u32 b, u32 selector, int mode);
enum { PRMT, PRMT_F4E, PRMT_B4E, PRMT_RC8, PRMT_ECL, PRMT_ECR, PRMT_RC16 };
u64 emu_brev(u64 x, int width);
u64 emu_bfe_u(u64 x, u32 position, u32 length, int width);
u64 emu_bfe_s(u64 x, u32 position, u32 length, int width);
u64 emu_bfi(u64 from, u64 into, u32 position, u32 length, int width);
u32 emu_bfind(u64 x, int width, bool is_signed, bool shift);
u32 emu_dot(u32 a, u32 b, bool a_signed, bool b_signed, u32 c);                /* dp4a */
u32 emu_dot2(u32 a, u32 b, bool a_signed, bool b_signed, bool high, u32 c);    /* dp2a */
u32 emu_fns(u32 mask, u32 base, s32 offset);

INLINE u32 popc64(u64 x) { return (u32)__builtin_popcountll(x); }
INLINE u32 clz32(u32 x) { return x ? (u32)__builtin_clz(x) : 32; }
INLINE u32 clz64(u64 x) { return x ? (u32)__builtin_clzll(x) : 64; }

#endif
