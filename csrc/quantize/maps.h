// Quantization for one ISA; included by quantize_f32.isa.c.
//
// Bits matter: a true division (no reciprocal), and the quotient is held to the range while it is a float, so that no
// conversion to an integer overflows. low - zero and high - zero are exact in float32, and so it does not matter that the
// quotient is rounded after it was held.
#include "kernels.h"

#include "../isa/vec.h"

INLINE vec scales(unsigned one, const float *scale, ptrdiff_t i, ptrdiff_t left) {
    return one & TW_ONE_SCALE ? v_set1(*scale) : v_load_left(scale + i, left);
}

INLINE ivec zeros(unsigned one, const int32_t *zero, ptrdiff_t i, ptrdiff_t left) {
    return one & TW_ONE_ZERO ? (ivec){0} + *zero : v_load_s32_left(zero + i, left);
}

// ---- quantize

INLINE void store_8(void *y, ptrdiff_t i, ivec q, ptrdiff_t left) { v_store_8_left((uint8_t *)y + i, q, left); }
INLINE void store_16(void *y, ptrdiff_t i, ivec q, ptrdiff_t left) { v_store_16_left((uint16_t *)y + i, q, left); }

INLINE void quantize(void store(void *, ptrdiff_t, ivec, ptrdiff_t), ptrdiff_t n, unsigned one, int32_t low, int32_t high,
                     const float *x, const float *scale, const int32_t *zero, void *y) {
    V_EACH(n, {
        const ivec z = zeros(one, zero, i, left);
        const vec least = v_to_real(low - z), most = v_to_real(high - z);
        const vec q = v_load_left(x + i, left) / scales(one, scale, i, left);
        store(y, i, v_to_int(v_min(v_max(q, least), most)) + z, left);
    });
}

// What is the same for all is taken out of the loop where the compiler sees that it is.
#define QUANTIZE(bits) \
    static void quantize_##bits(ptrdiff_t n, unsigned one, int32_t low, int32_t high, const float *x, const float *scale, \
                                const int32_t *zero, void *y) { \
        if (one == (TW_ONE_SCALE | TW_ONE_ZERO)) \
            quantize(store_##bits, n, TW_ONE_SCALE | TW_ONE_ZERO, low, high, x, scale, zero, y); \
        else \
            quantize(store_##bits, n, one, low, high, x, scale, zero, y); \
    }
QUANTIZE(8)
QUANTIZE(16)

// ---- dequantize

INLINE ivec load_s8(const void *x, ptrdiff_t i, ptrdiff_t left) { return v_load_s8_left((const int8_t *)x + i, left); }
INLINE ivec load_u8(const void *x, ptrdiff_t i, ptrdiff_t left) { return v_load_u8_left((const uint8_t *)x + i, left); }
INLINE ivec load_s16(const void *x, ptrdiff_t i, ptrdiff_t left) { return v_load_s16_left((const int16_t *)x + i, left); }
INLINE ivec load_u16(const void *x, ptrdiff_t i, ptrdiff_t left) { return v_load_u16_left((const uint16_t *)x + i, left); }
INLINE ivec load_s32(const void *x, ptrdiff_t i, ptrdiff_t left) { return v_load_s32_left((const int32_t *)x + i, left); }

typedef ivec load_some(const void *x, ptrdiff_t i, ptrdiff_t left);

INLINE vec dequantized(load_some load, unsigned one, const void *x, const float *scale, const int32_t *zero, ptrdiff_t i,
                       ptrdiff_t left) {
    typedef uint32_t wraps __attribute__((vector_size(VEC_BYTES)));
    const ivec difference = (ivec)((wraps)load(x, i, left) - (wraps)zeros(one, zero, i, left));
    return v_to_real(difference) * scales(one, scale, i, left);
}

#define DEQUANTIZE(type) \
    static void dequantize_##type(ptrdiff_t n, unsigned one, int stream, const void *x, const float *scale, \
                                  const int32_t *zero, float *y) { \
        const unsigned both = TW_ONE_SCALE | TW_ONE_ZERO; \
        if (one == both) \
            V_WRITE(n, y, stream, dequantized(load_##type, both, x, scale, zero, i, left)); \
        else \
            V_WRITE(n, y, stream, dequantized(load_##type, one, x, scale, zero, i, left)); \
    }
DEQUANTIZE(s8)
DEQUANTIZE(u8)
DEQUANTIZE(s16)
DEQUANTIZE(u16)
DEQUANTIZE(s32)

// ---- the range of floats
//
// Floats from +0 on, and above infinity the positive NaNs, have the bits of integers in the same order; negative ones, seen
// as unsigned, follow after those, also by magnitude. So the largest integer from 0 on is the largest float from 0 on, or a
// NaN; and the largest unsigned is the least float, or a negative NaN, or no negative number at all.

static void find_range(ptrdiff_t n, const float *x, float *range) {
    ivec low[4], high[4];
    for (int k = 0; k < 4; k++) low[k] = high[k] = (ivec){0};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        V_UNROLL for (int k = 0; k < 4; k++) {
            const ivec bits = v_bits(v_load(x + i + k * LANES));
            low[k] = v_larger_unsigned(low[k], bits);
            high[k] = v_larger(high[k], bits);
        }
    for (; i < n; i += LANES) {
        const ivec bits = v_bits(v_load_n(x + i, n - i < LANES ? n - i : LANES));
        low[0] = v_larger_unsigned(low[0], bits);
        high[0] = v_larger(high[0], bits);
    }
    const ivec least = v_larger_unsigned(v_larger_unsigned(low[0], low[1]), v_larger_unsigned(low[2], low[3]));
    const ivec most = v_larger(v_larger(high[0], high[1]), v_larger(high[2], high[3]));
    const int32_t below = v_largest_int(least ^ INT32_MIN), above = v_largest_int(most);  // the first from -2^31 on
    memcpy(range, &(int32_t){below < 0 ? 0 : below}, sizeof below);
    memcpy(range + 1, &above, sizeof above);
}

#include "rows.h"

extern const tw_quantize_kernels TW_NAME(tw_quantize);
const tw_quantize_kernels TW_NAME(tw_quantize) = {
    .quantize = {quantize_8, quantize_16},
    .dequantize_s8 = dequantize_s8,
    .dequantize_u8 = dequantize_u8,
    .dequantize_s16 = dequantize_s16,
    .dequantize_u16 = dequantize_u16,
    .dequantize_s32 = dequantize_s32,
    .find_range = find_range,
    .quantize_rows = quantize_rows,
    .rescale = rescale,
};
