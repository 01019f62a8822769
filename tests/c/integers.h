// Part of self_check.c: integer products, exact modulo 2^32.
// ---- integer products: exact, at the ends of the ranges too, with sums that wrap

static uint32_t integer_at(int type, const void *x, ptrdiff_t i) {
    return (uint32_t)(type == TW_INT8 ? ((const int8_t *)x)[i] : ((const uint8_t *)x)[i]);
}

// sum (a - a_zero)(b - b_zero) modulo 2^32 for one element of c
static uint32_t integer_dot(const tw_qgemm_call *call, int i, int j) {
    const uint32_t a_zero = call->a_zero ? (uint32_t)call->a_zero[i * call->a_zero_step] : 0;
    const uint32_t b_zero = call->b_zero ? (uint32_t)call->b_zero[j * call->b_zero_step] : 0;
    uint32_t sum = 0;
    for (ptrdiff_t p = 0; p < call->k; p++)
        sum += (integer_at(call->a_type, call->a.data, i * call->a.row + p * call->a.col) - a_zero) *
               (integer_at(call->b_type, call->b.data, p * call->b.row + j * call->b.col) - b_zero);
    return sum;
}

static void check_integers(int m, int n, int k, int kind) {
    const int a_type = kind & 1 ? TW_INT8 : TW_UINT8, b_type = kind & 2 ? TW_INT8 : TW_UINT8, zeros = kind >> 2 & 3;
    const int ends = below(4) == 0, a_rows = below(2), b_rows = below(2), c_rows = below(4) > 0;
    uint8_t *a = malloc((size_t)m * k + 1), *b = malloc((size_t)k * n + 1);
    for (int i = 0; i < m * k; i++) a[i] = (uint8_t)(ends ? 127 + below(2) + 128 * below(2) : below(256));
    for (int i = 0; i < k * n; i++) b[i] = (uint8_t)(ends ? 127 + below(2) : below(256));
    int32_t *c = malloc(((size_t)m * n + 1) * sizeof *c);
    int32_t *a_zero = malloc((size_t)(m + 1) * 4), *b_zero = malloc((size_t)(n + 1) * 4);
    for (int i = 0; i <= m; i++) a_zero[i] = 77 * i - 128;
    for (int j = 0; j <= n; j++) b_zero[j] = 1 << 30 >> j % 31;
    tw_qgemm_call call = {.a_type = a_type, .b_type = b_type, .m = m, .n = n, .k = k, .a = {a, a_rows ? k : 1, a_rows ? 1 : m},
                          .b = {b, b_rows ? n : 1, b_rows ? 1 : k}, .c = {c, c_rows ? n : 1, c_rows ? 1 : m},
                          .a_zero = zeros ? a_zero : NULL, .a_zero_step = zeros != 1,
                          .b_zero = zeros & 2 ? b_zero : NULL, .b_zero_step = 1};
    void *packed = malloc(tw_pack_integer_bytes(b_type, k, n));
    int ok = tw_pack_integer(b_type, k, n, call.b, packed) == TW_OK;
    for (int round = 0; round < 2; round++, call.packed = packed) {
        tw_set_num_threads(1 + round);
        memset(c, 0x5a, (size_t)m * n * sizeof *c);
        ok &= tw_matmul_integer(&call) == TW_OK;
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                ok &= (uint32_t)c[i * call.c.row + j * call.c.col] == integer_dot(&call, i, j);
    }
    call.b_type = TW_INT16;
    ok &= tw_matmul_integer(&call) == TW_INVALID;
    char what[80];
    snprintf(what, sizeof what, "integer product %dx%dx%d, kind %d", m, n, k, kind);
    expect(ok, what);
    free(a), free(b), free(c), free(a_zero), free(b_zero), free(packed);
}

// Pairs of products held to 16 bits, and how many that changed.
static void check_maddubs(int m, int n, int k) {
    uint8_t *a = malloc((size_t)m * k + 1);
    int8_t *b = malloc((size_t)k * n + 1);
    int32_t *c = malloc(((size_t)m * n + 1) * sizeof *c);
    for (int i = 0; i < m * k; i++) a[i] = (uint8_t)(255 - below(3) * below(128));
    for (int i = 0; i < k * n; i++) b[i] = (int8_t)(below(2) ? 127 - below(9) : below(9) - 128);
    int64_t clipped = -1, count = 0;
    int ok = tw_matmul_maddubs(m, n, k, (tw_matrix){a, k, 1}, (tw_matrix){b, n, 1}, (tw_matrix){c, n, 1}, &clipped) == TW_OK;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int p = 0; p < k; p += 2) {
                const int32_t pair = a[i * k + p] * b[p * n + j] + (p + 1 < k ? a[i * k + p + 1] * b[(p + 1) * n + j] : 0);
                const int32_t held = pair < INT16_MIN ? INT16_MIN : pair > INT16_MAX ? INT16_MAX : pair;
                count += held != pair, sum += held;
            }
            ok &= c[i * n + j] == sum;
        }
    char what[80];
    snprintf(what, sizeof what, "maddubs %dx%dx%d", m, n, k);
    expect(ok && clipped == count, what);
    free(a), free(b), free(c);
}

static void check_integer_products(void) {
    static const int sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 48, 50, 65, 97, 112};
    const int count = sizeof sizes / sizeof *sizes;
    for (int round = 0; round < 320; round++)
        check_integers(sizes[below(count)], sizes[below(count)], sizes[below(count)], round % 16);
    for (int kind = 0; kind < 16; kind++) check_integers(2, 3, 100000, kind);
    for (int round = 0; round < 40; round++) check_maddubs(sizes[below(count)], sizes[below(count)], sizes[below(count)]);
}
