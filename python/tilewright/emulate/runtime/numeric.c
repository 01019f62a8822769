/* Conversions, rounding and bit fields that are too long to be inline. */
#include "emulate.h"

#include <fenv.h>

u64 emu_round(bool negative, u64 significand, int exponent, int exponent_bits, int mantissa_bits, int mode) {
    const u64 sign = (u64)negative << (exponent_bits + mantissa_bits);
    const int bias = (1 << (exponent_bits - 1)) - 1, least = 1 - bias;
    if (!significand) return sign;
    const int zeros = __builtin_clzll(significand);
    significand <<= zeros;
    const int e = exponent - zeros + 63;  /* the value is 1.xxx * 2^e */
    int drop = 63 - mantissa_bits + (e < least ? least - e : 0);
    u64 kept = 0, rest = significand, half = (u64)1 << 63;
    if (drop > 64) {
        rest = 1;  /* below half of the least number */
    } else if (drop < 64) {
        kept = drop ? significand >> drop : significand;
        rest = drop ? significand << (64 - drop) : 0;
    }
    bool up = false;
    switch (mode) {
    case RN: up = rest > half || (rest == half && (kept & 1)); break;
    case RNA: up = rest >= half; break;
    case RM: up = negative && rest; break;
    case RP: up = !negative && rest; break;
    }
    kept += up;
    /* a carry out of the mantissa goes on into the exponent, and out of the subnormals into the least normal number */
    const u64 bits = e < least ? kept : ((u64)(e + bias - 1) << mantissa_bits) + kept;
    const u64 infinity = (((u64)1 << exponent_bits) - 1) << mantissa_bits;
    if (e + bias >= (1 << exponent_bits) || bits >= infinity) {
        const bool to_infinity = mode == RN || mode == RNA || (mode == RM && negative) || (mode == RP && !negative);
        return sign | (to_infinity ? infinity : infinity - 1);
    }
    return sign | bits;
}

u64 emu_narrow(f64 x, int exponent_bits, int mantissa_bits, int mode) {
    const u64 u = bits64(x), mantissa = u & 0xfffffffffffff;
    const int e = (int)(u >> 52 & 0x7ff);
    const bool negative = u >> 63;
    if (e == 0x7ff) {
        const u64 all = ((u64)1 << (exponent_bits + mantissa_bits)) - 1;
        if (mantissa) return all;
        return (u64)negative << (exponent_bits + mantissa_bits) | (all >> mantissa_bits << mantissa_bits);
    }
    if (!e) return emu_round(negative, mantissa, -1074, exponent_bits, mantissa_bits, mode);
    return emu_round(negative, mantissa | (u64)1 << 52, e - 1075, exponent_bits, mantissa_bits, mode);
}

u64 emu_from_unsigned(u64 x, int exponent_bits, int mantissa_bits, int mode) {
    return emu_round(false, x, 0, exponent_bits, mantissa_bits, mode);
}

u64 emu_from_signed(s64 x, int exponent_bits, int mantissa_bits, int mode) {
    return emu_round(x < 0, x < 0 ? 0 - (u64)x : (u64)x, 0, exponent_bits, mantissa_bits, mode);
}

f64 emu_integral(f64 x, int mode) {
    return mode == RN ? nearbyint(x) : mode == RZ ? trunc(x) : mode == RM ? floor(x) : ceil(x);
}

u64 emu_to_unsigned(f64 x, int mode, u64 most, u64 of_nan) {
    if (x != x) return of_nan;
    x = emu_integral(x, mode);
    if (x <= 0) return 0;
    return x >= (f64)most ? most : (u64)x;  /* (f64)most is most, or the power of two above it */
}

s64 emu_to_signed(f64 x, int mode, s64 least, s64 most, s64 of_nan) {
    if (x != x) return of_nan;
    x = emu_integral(x, mode);
    if (x <= (f64)least) return least;
    return x >= (f64)most ? most : (s64)x;
}

f64 emu_fma_odd(f64 a, f64 b, f64 c) {
    const f64 product = a * b, sum = product + c;
    const f64 c_part = sum - product, error = (product - (sum - c_part)) + (c - c_part);
    if (error == 0 || !(fabs(sum) < INFINITY) || error != error) return sum;
    const u64 bits = bits64(sum);
    if (bits & 1) return sum;
    return float64((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

/* The operands are volatile so that the operation stays between the two changes of the mode. */
static const int MODES[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
#define ROUNDED(type, expression) \
    do { \
        fesetround(MODES[mode]); \
        volatile type result = (expression); \
        fesetround(FE_TONEAREST); \
        return result; \
    } while (0)

f32 emu_add32(f32 a, f32 b, int mode) { volatile f32 x = a, y = b; ROUNDED(f32, x + y); }
f32 emu_mul32(f32 a, f32 b, int mode) { volatile f32 x = a, y = b; ROUNDED(f32, x * y); }
f32 emu_div32(f32 a, f32 b, int mode) { volatile f32 x = a, y = b; ROUNDED(f32, x / y); }
f32 emu_fma32(f32 a, f32 b, f32 c, int mode) { volatile f32 x = a, y = b, z = c; ROUNDED(f32, fmaf(x, y, z)); }
f32 emu_sqrt32(f32 a, int mode) { volatile f32 x = a; ROUNDED(f32, sqrtf(x)); }
f64 emu_add64(f64 a, f64 b, int mode) { volatile f64 x = a, y = b; ROUNDED(f64, x + y); }
f64 emu_mul64(f64 a, f64 b, int mode) { volatile f64 x = a, y = b; ROUNDED(f64, x * y); }
f64 emu_div64(f64 a, f64 b, int mode) { volatile f64 x = a, y = b; ROUNDED(f64, x / y); }
f64 emu_fma64(f64 a, f64 b, f64 c, int mode) { volatile f64 x = a, y = b, z = c; ROUNDED(f64, fma(x, y, z)); }
f64 emu_sqrt64(f64 a, int mode) { volatile f64 x = a; ROUNDED(f64, sqrt(x)); }

static f64 high(f64 x) { return float64(bits64(x) & 0xffffffff00000000u); }
static f64 flushed(f64 x) { return fabs(x) < 0x1p-1022 ? copysign(0, x) : x; }
f64 emu_rcp_high(f64 x) { return high(flushed(1 / flushed(high(x)))); }
f64 emu_rsqrt_high(f64 x) { return high(flushed(1 / sqrt(flushed(high(x))))); }

u32 emu_prmt(u32 a, u32 b, u32 selector, int mode) {
    const u64 bytes = (u64)b << 32 | a;
    const u32 s = selector & 3;
    u32 result = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 from = selector >> (4 * i) & 15;
        switch (mode) {
        case PRMT_F4E: from = s + i; break;
        case PRMT_B4E: from = (s - i) & 7; break;
        case PRMT_RC8: from = s; break;
        case PRMT_ECL: from = i > s ? i : s; break;
        case PRMT_ECR: from = i < s ? i : s; break;
        case PRMT_RC16: from = (s & 1) * 2 + (i & 1); break;
        }
        u32 byte = bytes >> (8 * (from & 7)) & 255;
        if (from & 8) byte = byte & 128 ? 255 : 0;  /* the sign, eight times */
        result |= byte << (8 * i);
    }
    return result;
}

u64 emu_brev(u64 x, int width) {
    u64 result = 0;
    for (int i = 0; i < width; i++) result |= (x >> i & 1) << (width - 1 - i);
    return result;
}

static u64 ones(u32 length) { return length >= 64 ? ~(u64)0 : ((u64)1 << length) - 1; }

u64 emu_bfe_u(u64 x, u32 position, u32 length, int width) {
    position &= 255, length &= 255;
    if (position >= (u32)width) return 0;
    return x >> position & ones(length);
}

u64 emu_bfe_s(u64 x, u32 position, u32 length, int width) {
    position &= 255, length &= 255;
    if (!length) return 0;
    const u32 top = position + length - 1 < (u32)width - 1 ? position + length - 1 : (u32)width - 1;
    const bool negative = x >> top & 1;
    u64 field = position >= (u32)width ? 0 : x >> position & ones(length);
    const u32 known = position > top ? 0 : top - position + 1;
    return negative ? field | ~ones(known) : field & ones(known);
}

u64 emu_bfi(u64 from, u64 into, u32 position, u32 length, int width) {
    position &= 255, length &= 255;
    if (position >= (u32)width) return into;
    const u64 mask = ones(length) << position;
    return (into & ~mask) | (from << position & mask);
}

u32 emu_bfind(u64 x, int width, bool is_signed, bool shift) {
    if (is_signed && x >> (width - 1) & 1) x = ~x & ones((u32)width);
    if (!x) return 0xffffffff;
    const u32 found = 63 - (u32)__builtin_clzll(x);
    return shift ? (u32)width - 1 - found : found;
}

static s32 part(u32 x, u32 i, u32 width, bool is_signed) {
    const u32 v = x >> (i * width) & ((1u << width) - 1);
    return is_signed && v >> (width - 1) ? (s32)(v - (1u << width)) : (s32)v;
}

u32 emu_dot(u32 a, u32 b, bool a_signed, bool b_signed, u32 c) {
    for (u32 i = 0; i < 4; i++) c += (u32)(part(a, i, 8, a_signed) * part(b, i, 8, b_signed));
    return c;
}

u32 emu_dot2(u32 a, u32 b, bool a_signed, bool b_signed, bool high, u32 c) {
    for (u32 i = 0; i < 2; i++) c += (u32)(part(a, i, 16, a_signed) * part(b, i + 2 * high, 8, b_signed));
    return c;
}

u32 emu_fns(u32 mask, u32 base, s32 offset) {
    if (offset == 0) return mask >> (base & 31) & 1 ? base : 0xffffffff;
    const int step = offset > 0 ? 1 : -1;
    s32 left = offset > 0 ? offset : -offset;
    for (int at = (int)base; at >= 0 && at < 32; at += step)
        if (mask >> at & 1 && --left == 0) return (u32)at;
    return 0xffffffff;
}
