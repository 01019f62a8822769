// What stands before and behind a product of integers: rows of floats as uint8, and sums as floats. Included by maps.h.

// ---- rows
//
//     s = max(high / 255 - low / 255, 2^-100)    z = round(-low * (1 / s))    q = round(x * (1 / s)) + z, in 0 .. 255
//
// The ranges of some rows come first, for then their scales are computed as one vector (4096x64x64: 147 us row by row, 82 by
// sixteen). No more rows than L1 holds: they are read again.

#define TOGETHER_BYTES 16384

INLINE ivec quantized(const float *x, ptrdiff_t left, vec inverse, ivec zero) {
    return v_to_int(v_load_left(x, left) * inverse) + zero;
}

// No clamps but those of the packing: the row is in its own range, and what becomes of one that is not finite is all the same.
static void quantize_row(ptrdiff_t n, const float *x, real inverse, int32_t zero, uint8_t *q) {
    const vec by = v_set1(inverse);
    const ivec z = (ivec){0} + zero;
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        v_store_bytes(q + i, quantized(x + i, LANES, by, z), quantized(x + i + LANES, LANES, by, z),
                      quantized(x + i + 2 * LANES, LANES, by, z), quantized(x + i + 3 * LANES, LANES, by, z));
    for (; i < n; i += LANES) {
        const ivec some = quantized(x + i, n - i < LANES ? n - i : LANES, by, z);
        uint8_t bytes[4 * LANES];
        v_store_bytes(bytes, some, some, some, some);
        memcpy(q + i, bytes, LANES);
    }
}

static void quantize_rows(ptrdiff_t m, ptrdiff_t n, const float *x, ptrdiff_t x_row, uint8_t *q, ptrdiff_t q_row, float *scale,
                          int32_t *zero) {
    const ptrdiff_t fit = TOGETHER_BYTES / sizeof *x / (n > 0 ? n : 1), together = fit < 1 ? 1 : fit < LANES ? fit : LANES;
    for (ptrdiff_t i = 0; i < m; i += together, x += together * x_row, q += together * q_row) {
        const ptrdiff_t rows = m - i < together ? m - i : together;
        real below[LANES] = {0}, above[LANES] = {0}, inverse[LANES], z[LANES];
        for (ptrdiff_t r = 0; r < rows; r++) {
            real range[2];
            find_range(n, x + r * x_row, range);
            below[r] = range[0], above[r] = range[1];
        }
        vec s = v_load(above) / v_set1(255) + v_load(below) / v_set1(255);
        s = v_max(v_set1(0x1p-100f), s);  // NaN where s is
        v_store(inverse, v_set1(1) / s);
        v_store(z, v_round(v_min(v_load(below) * (v_set1(1) / s), v_set1(255))));
        v_store_n(scale + i, s + (s - s), rows);  // infinity becomes NaN
        for (ptrdiff_t r = 0; r < rows; r++) {
            zero[i + r] = (int32_t)z[r];
            quantize_row(n, x + r * x_row, inverse[r], zero[i + r], q + r * q_row);
        }
    }
}

// ---- sums

INLINE void rescale_row(const int past, ptrdiff_t n, const int32_t *sums, real row_scale, const float *col_scale, const float *bias,
                        float *y) {
    const vec by = v_set1(row_scale);
#define F (v_to_real(v_load_s32_left(sums + i, left)) * (by * v_load_left(col_scale + i, left)))
    if (bias)
        V_WRITE_UNFENCED(n, y, past, F + v_load_left(bias + i, left));
    else
        V_WRITE_UNFENCED(n, y, past, F);
#undef F
}

static void rescale(ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t sums_row, const float *row_scale,
                    ptrdiff_t row_step, const float *col_scale, const float *bias, int past, float *y, ptrdiff_t y_row) {
    for (ptrdiff_t r = 0; r < m; r++)
        if (past)
            rescale_row(1, n, sums + r * sums_row, row_scale[r * row_step], col_scale, bias, y + r * y_row);
        else
            rescale_row(0, n, sums + r * sums_row, row_scale[r * row_step], col_scale, bias, y + r * y_row);
    if (past) v_fence();
}
