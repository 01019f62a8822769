// What each instruction set brings to quantization: maps over contiguous arrays, rows quantized on their own, and what
// becomes of the sums of a product of integers.
//
// Where integers result, each operation is rounded once, to float32: results are the same bits on every instruction set.
#ifndef TW_QUANTIZE_KERNELS_H
#define TW_QUANTIZE_KERNELS_H

#include "../isa/isa.h"

// Of n elements in turn: scale and zero are arrays too, or one element where the bit is set.
enum { TW_ONE_SCALE = 1, TW_ONE_ZERO = 2 };

// y = rint(x / scale) + zero, held to low .. high; NaN gives low. y may hold integers of either sign.
typedef void tw_quantize_map(ptrdiff_t n, unsigned one, int32_t low, int32_t high, const float *x, const float *scale,
                             const int32_t *zero, void *y);
// y = (x - zero) * scale; the difference wraps. stream: y is written past the caches
typedef void tw_dequantize_map(ptrdiff_t n, unsigned one, int stream, const void *x, const float *scale, const int32_t *zero,
                               float *y);

typedef struct {
    tw_quantize_map *quantize[2];  // to integers of 8 bits, of 16
    tw_dequantize_map *dequantize_s8, *dequantize_u8, *dequantize_s16, *dequantize_u16, *dequantize_s32;

    // The range of n elements and 0: -range[0] .. range[1], both from +0 on. A NaN makes one of the two a NaN.
    void (*find_range)(ptrdiff_t n, const float *x, float *range);

    // Each of m rows of n floats as uint8 over its own range: q, a scale (NaN where the row is not finite) and a zero point
    // for each. Rows of q are whole vectors: up to TW_ROW_PAD - 1 bytes beyond n are written.
    void (*quantize_rows)(ptrdiff_t m, ptrdiff_t n, const float *x, ptrdiff_t x_row, uint8_t *q, ptrdiff_t q_row, float *scale,
                          int32_t *zero);

    // y[i][j] = sums[i][j] * (row_scale[i * row_step] * col_scale[j]) + bias[j], for m x n; bias may be NULL. past: the caches
    void (*rescale)(ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t sums_row, const float *row_scale, ptrdiff_t row_step,
                    const float *col_scale, const float *bias, int past, float *y, ptrdiff_t y_row);
} tw_quantize_kernels;

enum { TW_ROW_PAD = 16 };

#endif
