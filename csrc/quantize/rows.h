// What stands before and behind a product of integers: rows of floats as uint8, and sums as floats. Included by maps.h.

// ---- rows
//
//     s = max(high / 255 - low / 255, 2^-100)    z = round(-low * (1 / s))    q = round(x * (1 / s)) + z, in 0 .. 255
//
// The ranges of some rows come first, for then their scales are computed as one vector (4096 rows of 64: RATIO). No more
// rows than L1 holds: they are read again.

#define TOGETHER_BYTES 16384

static void quantize_row(ptrdiff_t n, const float *x, real inverse, real zero, uint8_t *q) {
    const vec least = v_set1(-zero), most = v_set1(255 - zero), by = v_set1(inverse);
    const ivec z = v_to_int(v_set1(zero));
    V_EACH(n, v_store_8(q + i, v_to_int(v_min(v_max(v_load_left(x + i, left) * by, least), most)) + z););
}

static void quantize_rows(ptrdiff_t m, ptrdiff_t n, const float *x, ptrdiff_t x_row, uint8_t *q, ptrdiff_t q_row, float *scale,
                          int32_t *zero) {
    const ptrdiff_t fit = TOGETHER_BYTES / sizeof *x / (n > 0 ? n : 1), together = fit < 1 ? 1 : fit < LANES ? fit : LANES;
    for (ptrdiff_t i = 0; i < m; i += together, x += together * x_row, q += together * q_row) {
        const ptrdiff_t rows = m - i < together ? m - i : together;
        real below[LANES] = {0}, above[LANES] = {0}, inverse[LANES], z[LANES];
        for (ptrdiff_t r = 0; r < rows; r++) {
            real range[2] = {0, 0};
            widen(n, x + r * x_row, range);
            below[r] = range[0], above[r] = range[1];
        }
        vec s = v_load(above) / v_set1(255) + v_load(below) / v_set1(255);
        s = v_max(v_set1(0x1p-100f), s);  // NaN where s is
        v_store(inverse, v_set1(1) / s);
        v_store(z, v_round(v_min(v_load(below) * (v_set1(1) / s), v_set1(255))));
        v_store_n(scale + i, s + (s - s), rows);  // infinity becomes NaN
        for (ptrdiff_t r = 0; r < rows; r++) {
            zero[i + r] = (int32_t)z[r];
            quantize_row(n, x + r * x_row, inverse[r], z[r], q + r * q_row);
        }
    }
}

// ---- sums

INLINE void rescale_columns(ptrdiff_t m, ptrdiff_t left, const int32_t *sums, ptrdiff_t sums_row, const float *row_scale,
                            ptrdiff_t row_step, vec col_scale, const vec *bias, float *y, ptrdiff_t y_row) {
    for (ptrdiff_t r = 0; r < m; r++) {
        const vec f = v_to_real(v_load_s32_left(sums + r * sums_row, left)) * (v_set1(row_scale[r * row_step]) * col_scale);
        v_store_left(y + r * y_row, bias ? f + *bias : f, left);
    }
}

static void rescale(ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t sums_row, const float *row_scale,
                    ptrdiff_t row_step, const float *col_scale, const float *bias, float *y, ptrdiff_t y_row) {
    V_EACH(n, {
        const vec scales = v_load_left(col_scale + i, left);
        if (bias) {
            const vec added = v_load_left(bias + i, left);
            rescale_columns(m, left, sums + i, sums_row, row_scale, row_step, scales, &added, y + i, y_row);
        } else {
            rescale_columns(m, left, sums + i, sums_row, row_scale, row_step, scales, NULL, y + i, y_row);
        }
    });
}
