// Part of self_check.c: quantization and the layers on integers, step by step in float arithmetic that rounds after each step.

static int32_t quantized(float x, float scale, int32_t zero, int32_t low, int32_t high) {
    const float q = rintf(x / scale), least = (float)(low - zero), most = (float)(high - zero);
    return (int32_t)(q > least ? q < most ? q : most : least) + zero;
}

// by: scales and zero points are one for all (0), one a row (1), one a column (2)
static void check_quantize(int rows, int cols, int by, int type) {
    const int size = type == TW_INT8 || type == TW_UINT8 ? 1 : 2, is_signed = type == TW_INT8 || type == TW_INT16, turned = below(2);
    const int32_t high = (1 << (8 * size - is_signed)) - 1, low = is_signed ? -high - 1 : 0;
    float *x = new_floats(rows * cols, 1), *back = new_floats(rows * cols, 0), *scale = new_floats(rows + cols, 1);
    int32_t *zero = malloc((size_t)(rows + cols + 1) * sizeof *zero);
    uint8_t *y = malloc((size_t)(rows * cols * size) + 1);
    for (int i = 0; i < rows * cols; i++) x[i] = below(9) ? x[i] * (float)high / 2 : below(2) ? NAN : -INFINITY;
    for (int i = 0; i <= rows + cols; i++) zero[i] = low + below(high - low);
    for (int i = 0; i < rows + cols; i++) scale[i] = fabsf(scale[i]) + 0.1f;
    const ptrdiff_t row = turned ? 1 : cols, col = turned ? rows : 1, p_row = by == 1, p_col = by == 2;
    const tw_matrix scales = {scale, p_row, p_col}, zeros = {zero, p_row, p_col};
    int ok = tw_quantize_linear(type, low, high, rows, cols, (tw_matrix){x, row, col}, scales, zeros, (tw_matrix){y, cols, 1}) == TW_OK;
    ok &= tw_dequantize_linear(type, rows, cols, (tw_matrix){y, cols, 1}, scales, zeros, (tw_matrix){back, row, col}) == TW_OK;
    float range[2] = {0, 0}, least = 0, most = 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            const ptrdiff_t at = i * row + j * col, to = i * cols + j, p = i * p_row + j * p_col;
            const int32_t want = quantized(x[at], scale[p], zero[p], low, high);
            ok &= size == 1 ? y[to] == (uint8_t)want : ((uint16_t *)y)[to] == (uint16_t)want;
            ok &= back[at] == (float)(want - zero[p]) * scale[p];
            if (isnan(x[at])) x[at] = 0;
            least = fminf(least, x[at]), most = fmaxf(most, x[at]);
        }
    ok &= tw_widen_range(rows, cols, (tw_matrix){x, row, col}, range) == TW_OK && range[0] == least && range[1] == most;
    if (rows > 0 && cols > 0) {
        x[below(rows * cols)] = below(2) ? NAN : -NAN;
        ok &= tw_widen_range(rows, cols, (tw_matrix){x, row, col}, range) == TW_OK && isnan(range[0] + range[1]);
    }
    char what[80];
    snprintf(what, sizeof what, "quantize %dx%d, type %d, by %d", rows, cols, type, by);
    expect(ok, what);
    free(x), free(back), free(scale), free(zero), free(y);
}

typedef struct {
    float scale;
    int32_t zero;
} row_grid;

// A row of x as uint8 over its own range.
static row_grid quantize_row(int k, const float *x, ptrdiff_t step, uint8_t *q) {
    float least = 0, most = 0;
    for (int p = 0; p < k; p++) least = fminf(least, x[p * step]), most = fmaxf(most, x[p * step]);
    const float high = most / 255, low = least / 255, scale = fmaxf(high - low, 0x1p-100f), inverse = 1 / scale;
    const float zero = fminf(rintf(-least * inverse), 255);
    for (int p = 0; p < k; p++) {
        const float product = x[p * step] * inverse, to = rintf(product) + zero;
        q[p] = (uint8_t)(to < 0 ? 0 : to > 255 ? 255 : to);
    }
    return (row_grid){scale, (int32_t)zero};
}

// kind: 1 zeros, 2 a bias, 4 an integer result, else 8 a residual
static void check_layer(int m, int n, int k, int kind, int threads) {
    const int turned = below(2), integer = kind & 4;
    float *x = new_floats(m * k, 1), *scales = new_floats(n, 1), *bias = new_floats(2 * n, 1), *y = new_floats(m * n, kind & 8);
    float *before = new_floats(m * n, 0);
    int8_t *w = malloc((size_t)(n * k) + 1), *zeros = malloc((size_t)n + 1), *small = malloc((size_t)(m * n) + 1);
    uint8_t *q = malloc((size_t)k + 1);
    for (int i = 0; i < n * k; i++) w[i] = (int8_t)below(256);
    for (int j = 0; j < n; j++) scales[j] = fabsf(scales[j]) + 0.01f, zeros[j] = (int8_t)below(256);
    memcpy(before, y, (size_t)(m * n) * sizeof *y);
    void *packed = malloc(tw_pack_integer_bytes(TW_INT8, k, n));
    int ok = tw_pack_integer(TW_INT8, k, n, (tw_matrix){w, 1, k}, packed) == TW_OK;
    tw_qlinear_call call = {.x_type = TW_FLOAT32, .y_type = integer ? TW_INT8 : TW_FLOAT32, .activation = TW_RELU, .m = m, .n = n,
                            .k = k, .x = {x, turned ? 1 : k, turned ? m : 1}, .y = {integer ? (void *)small : y, n, 1},
                            .packed = packed, .scales = scales, .zeros = kind & 1 ? zeros : NULL, .bias = kind & 2 ? bias : NULL,
                            .bias_step = 2, .y_scale = 3, .y_zero = -5};
    if (kind & 8 && !integer) call.residual = call.y;
    tw_set_num_threads(threads);
    ok &= tw_qlinear(&call) == TW_OK;
    for (int i = 0; i < m; i++) {
        const row_grid g = quantize_row(k, x + i * call.x.row, call.x.col, q);
        for (int j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int p = 0; p < k; p++) sum += (q[p] - g.zero) * (w[j * k + p] - (kind & 1 ? zeros[j] : 0));
            const float both = g.scale * scales[j];
            float f = (float)sum * both;
            if (kind & 2) f += bias[2 * j];
            f = f > 0 ? f : 0;
            if (kind & 8 && !integer) f += before[i * n + j];
            ok &= integer ? small[i * n + j] == quantized(f, 3, -5, -128, 127) : y[i * n + j] == f;
        }
    }
    if (m && n && k && !integer && !call.residual.data) {
        x[below(k) * call.x.col] = below(2) ? NAN : INFINITY;
        call.activation = TW_NONE;
        ok &= tw_qlinear(&call) == TW_OK;
        for (int j = 0; j < n; j++) ok &= isnan(y[j]) != 0;
    }
    call.y_type = TW_INT16;
    ok &= tw_qlinear(&call) == TW_INVALID;
    char what[80];
    snprintf(what, sizeof what, "layer %dx%dx%d, kind %d, %d threads", m, n, k, kind, threads);
    expect(ok, what);
    free(x), free(scales), free(bias), free(y), free(before), free(w), free(zeros), free(small), free(q), free(packed);
}

static void check_quantized(void) {
    static const int types[] = {TW_INT8, TW_UINT8, TW_INT16, TW_UINT16};
    for (int round = 0; round < 120; round++) check_quantize(below(9), below(120), round % 3, types[round % 4]);
    for (int round = 0; round < 120; round++) check_layer(below(40), below(70), below(150), round % 16, 1 + round % 2);
}
