// A plain C user of libtilewright: computes with each group of the public header and compares with double arithmetic.
// Prints the instruction set and what was wrong; the exit status is the number of complaints. Built and run by
// test_c_abi.py on this machine and by test_aarch64.py for another one.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tilewright.h"

static int complaints;

static void expect(int ok, const char *what) {
    if (!ok && complaints++ < 20) printf("wrong: %s\n", what);
}

static unsigned state = 1;
static float uniform(void) { // -1 .. 1
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (1 << 23) - 1;
}
static int below(int n) { return (int)((uniform() + 1) / 2 * 0.999999f * (float)n); }

static float *new_floats(ptrdiff_t n, int fill) {
    float *x = malloc((size_t)(n + 1) * sizeof *x); // exactly what is needed and one: an overrun is for a sanitizer to see
    for (ptrdiff_t i = 0; i < n; i++) x[i] = fill ? uniform() : NAN;
    return x;
}

// ---- gemm: random shapes around the tiles, each operand in rows or in columns

static void check_gemm(int m, int n, int k, double alpha, double beta, int threads) {
    const int a_rows = below(2), b_rows = below(2), c_rows = below(2);
    float *a = new_floats((ptrdiff_t)m * k, 1), *b = new_floats((ptrdiff_t)k * n, 1), *c = new_floats((ptrdiff_t)m * n, beta != 0);
    float *before = new_floats((ptrdiff_t)m * n, 0);
    memcpy(before, c, (size_t)m * n * sizeof *c);
    const tw_gemm_call call = {.dtype = TW_FLOAT32, .m = m, .n = n, .k = k, .alpha = alpha, .beta = beta,
                               .a = {a, a_rows ? k : 1, a_rows ? 1 : m}, .b = {b, b_rows ? n : 1, b_rows ? 1 : k},
                               .c = {c, c_rows ? n : 1, c_rows ? 1 : m}};
    tw_set_num_threads(threads);
    expect(tw_gemm(&call) == TW_OK, "tw_gemm returns TW_OK");
    char what[120];
    snprintf(what, sizeof what, "gemm %dx%dx%d alpha %g beta %g, rows %d%d%d, %d threads", m, n, k, alpha, beta, a_rows, b_rows, c_rows, threads);
    int ok = 1;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0, size = 0; // |error| <= (k + 4) eps (|alpha| |a||b| + |beta c|), any order of the sum
            for (int p = 0; p < k; p++) {
                const double t = (double)a[i * call.a.row + p * call.a.col] * b[p * call.b.row + j * call.b.col];
                sum += t;
                size += fabs(t);
            }
            const ptrdiff_t at = i * call.c.row + j * call.c.col;
            const double old = beta != 0 ? beta * before[at] : 0;
            ok &= fabs(c[at] - (alpha * sum + old)) <= (k + 4) * 1.2e-7 * (fabs(alpha) * size + fabs(old));
        }
    expect(ok, what);
    free(a), free(b), free(c), free(before);
}

static void check_products(void) {
    static const int sizes[] = {0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 24, 25, 33, 47, 48, 49, 65, 97};
    const int count = sizeof sizes / sizeof *sizes;
    for (int round = 0; round < 400; round++)
        check_gemm(sizes[below(count)], sizes[below(count)], round % 40 ? sizes[below(count)] : 1030, round % 3 ? 1 : 0.5,
                   round % 4 == 0 ? 0 : round % 4 == 1 ? 1 : -0.7, 1 + round % 2);
    check_gemm(200, 150, 130, 1, 0, 2);
}

// Products are right by whatever numbers they choose their way.
static void check_tuning(void) {
    tw_gemm_tuning usual, t, now;
    tw_get_gemm_tuning(&usual);
    expect(usual.l1_bytes >= 8192 && usual.l2_bytes >= usual.l1_bytes, "the caches are known");
    t = usual, t.vector_ns = NAN;
    expect(tw_set_gemm_tuning(&t) == TW_INVALID, "a vector_ns of NaN is refused");
    t = usual, t.block_bytes = -1;
    expect(tw_set_gemm_tuning(&t) == TW_INVALID, "negative bytes are refused");
    t = (tw_gemm_tuning){.l1_bytes = 1, .l2_bytes = 1, .stream_bytes = 1024, .stream_depth = 1, .column_bytes = 64,
                         .block_bytes = 4096, .vector_ns = 1e6};
    expect(tw_set_gemm_tuning(&t) == TW_OK, "small numbers are taken");
    check_products();
    t.direct_bytes = t.column_bytes = 1 << 20, t.stream_rows = 64, t.stream_depth = 7, t.parallel_ns = 1e9;
    expect(tw_set_gemm_tuning(&t) == TW_OK, "large numbers are taken");
    check_products();
    expect(tw_set_gemm_tuning(NULL) == TW_OK, "the library's own numbers are taken back");
    tw_get_gemm_tuning(&now);
    expect(!memcmp(&now, &usual, sizeof now), "and are those of the beginning");
}

static void check_cblas(void) {
    const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 0, 1, 2, -1}; // (2, 3), (3, 2)
    float c[] = {NAN, NAN, NAN, NAN};
    tw_cblas_sgemm(101, 111, 111, 2, 2, 3, 1, a, 3, b, 2, 0, c, 2);
    expect(c[0] == 7 && c[1] == -1 && c[2] == 16 && c[3] == -1, "tw_cblas_sgemm row-major");
    const float column[] = {1, 4, 2, 5, 3, 6}; // the same (2, 3) by columns
    tw_cblas_sgemm(102, 111, 112, 2, 2, 3, 1, column, 2, b, 2, 0, c, 2);
    expect(c[0] == 7 && c[1] == 16 && c[2] == -1 && c[3] == -1, "tw_cblas_sgemm column-major, b transposed");
    const double d[] = {2}, e[] = {3};
    double f[] = {5};
    tw_cblas_dgemm(101, 112, 113, 1, 1, 1, 2, d, 1, e, 1, -1, f, 1);
    expect(f[0] == 7, "tw_cblas_dgemm");
    tw_cblas_sgemm(101, 111, 111, 2, 2, 3, 1, a, 2, b, 2, 0, c, 2); // lda too small: named on standard error
    expect(c[0] == 7 && c[3] == -1, "tw_cblas_sgemm leaves c alone when lda is too small");
    expect(tw_gemm(&(tw_gemm_call){.m = -1}) == TW_INVALID, "a negative size is TW_INVALID");
}

// y = relu(x w^T + bias) + r, into an array apart from r and into r itself
static void check_residual(void) {
    enum { M = 7, N = 50, K = 90 };
    float *x = new_floats(M * K, 1), *w = new_floats(N * K, 1), *bias = new_floats(N, 1), *r = new_floats(M * N, 1);
    float *y = new_floats(M * N, 0);
    tw_gemm_call call = {.dtype = TW_FLOAT32, .activation = TW_RELU, .m = M, .n = N, .k = K, .a = {x, K, 1}, .b = {w, 1, K},
                         .c = {y, N, 1}, .alpha = 1, .bias = bias, .bias_step = 1, .residual = {r, N, 1}};
    int ok = tw_gemm(&call) == TW_OK;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = bias[j], size = fabs(sum);
            for (int p = 0; p < K; p++) {
                sum += (double)x[i * K + p] * w[j * K + p];
                size += fabs((double)x[i * K + p] * w[j * K + p]);
            }
            ok &= fabs(y[i * N + j] - ((sum > 0 ? sum : 0) + r[i * N + j])) <= (K + 4) * 1.2e-7 * (size + 1);
        }
    call.c = call.residual;
    ok &= tw_gemm(&call) == TW_OK;
    for (int i = 0; i < M * N; i++) ok &= r[i] == y[i];
    expect(ok, "gemm with a residual");
    call.batch_axes = 1;
    expect(tw_gemm(&call) == TW_INVALID, "a residual with batch axes is TW_INVALID");
    free(x), free(w), free(bias), free(r), free(y);
}

// Products with a b packed once: with and without the plain one, by rows and by columns of c
static void check_packed(int m, int n, int k) {
    float *a = new_floats((ptrdiff_t)m * k, 1), *b = new_floats((ptrdiff_t)k * n, 1);
    float *c = new_floats((ptrdiff_t)m * n, 0), *want = new_floats((ptrdiff_t)m * n, 0);
    void *packed = malloc(tw_pack_bytes(TW_FLOAT32, k, n));
    tw_gemm_call call = {.dtype = TW_FLOAT32, .m = m, .n = n, .k = k, .a = {a, k, 1}, .b = {b, n, 1}, .c = {want, n, 1}, .alpha = 1};
    tw_gemm_naive(&call);
    int ok = tw_pack(TW_FLOAT32, k, n, call.b, packed) == TW_OK;
    call.packed = packed;
    for (int round = 0; round < 4; round++) {
        call.b.data = round & 1 ? b : NULL;
        call.c = round & 2 ? (tw_matrix){c, 1, m} : (tw_matrix){c, n, 1};
        ok &= tw_gemm(&call) == TW_OK;
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                ok &= fabs(c[i * call.c.row + j * call.c.col] - want[i * n + j]) <= 2.4e-7 * (k + 4) * k;
    }
    call.n = n + 1;
    ok &= tw_gemm(&call) == TW_INVALID;
    expect(ok, "gemm with b packed beforehand");
    free(a), free(b), free(c), free(want), free(packed);
}

// ---- weights of 8 or 4 bits: random shapes, groups, strides and rows, the same bits on one thread and on two

static double weight_at(const tw_weights *w, ptrdiff_t j, ptrdiff_t p) {
    const ptrdiff_t groups = (w->k + w->group_size - 1) / w->group_size, at = j * groups + p / w->group_size;
    const int8_t *values = w->values;
    const int nibble = w->bits == 4 ? values[j * ((w->k + 1) / 2) + p / 2] >> p % 2 * 4 & 15 : 0;
    const int value = w->bits == 8 ? values[j * w->k + p] : nibble > 7 ? nibble - 16 : nibble;
    return (double)(value - (w->zeros ? w->zeros[at] : 0)) * w->scales[at];
}

static void check_weights(int m, int bits, int zeros) {
    const ptrdiff_t n = below(200), k = below(400), group = 1 + below(below(2) ? 40 : 500), groups = k ? (k - 1) / group + 1 : 0;
    const ptrdiff_t bytes = n * (bits == 8 ? k : (k + 1) / 2), x_rows = below(2), y_rows = below(2), step = 1 + below(2);
    float *x = new_floats(m * k, 1), *y = new_floats(m * n, 0), *again = new_floats(m * n, 0), *bias = new_floats(n * step, 1);
    float *scales = new_floats(n * groups, 1), *residual = new_floats(m * n, 1);
    int8_t *values = malloc((size_t)bytes + 1), *zero = malloc((size_t)(n * groups) + 1);
    for (ptrdiff_t i = 0; i < bytes; i++) values[i] = (int8_t)(below(256) - 128);
    for (ptrdiff_t i = 0; i < n * groups; i++) zero[i] = (int8_t)(below(1 << bits) - (1 << bits) / 2);
    const tw_weights w = {bits, n, k, group, values, scales, zeros ? zero : NULL};
    void *packed = malloc(tw_pack_weights_bytes(&w));
    int ok = tw_pack_weights(&w, packed) == TW_OK;
    tw_weight_only_call call = {.m = m, .n = n, .k = k, .x = {x, x_rows ? k : 1, x_rows ? 1 : m}, .packed = packed,
                                .activation = TW_RELU, .bias = bias, .bias_step = step, .residual = {residual, 1, m}};
    for (int threads = 1; threads <= 2; threads++) {
        tw_set_num_threads(threads);
        call.y = (tw_matrix){threads == 1 ? y : again, y_rows ? n : 1, y_rows ? 1 : m};
        ok &= tw_weight_only_linear(&call) == TW_OK;
    }
    ok &= memcmp(y, again, (size_t)(m * n) * sizeof *y) == 0;
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t j = 0; j < n; j++) {
            double sum = bias[j * step], size = fabs(sum); // |error| <= (k + 6) eps (|x||w| + |bias| + |residual|)
            for (ptrdiff_t p = 0; p < k; p++) {
                const double t = x[i * call.x.row + p * call.x.col] * weight_at(&w, j, p);
                sum += t;
                size += fabs(t);
            }
            const double added = residual[i + j * m], want = (sum > 0 ? sum : 0) + added;
            ok &= fabs(y[i * call.y.row + j * call.y.col] - want) <= (double)(k + 6) * 1.2e-7 * (size + fabs(added));
        }
    call.k++;
    ok &= tw_weight_only_linear(&call) == TW_INVALID;
    char what[120];
    snprintf(what, sizeof what, "weights of %d bits, %d x %td x %td, groups of %td, zeros %d", bits, m, n, k, group, zeros);
    expect(ok, what);
    free(x), free(y), free(again), free(bias), free(scales), free(residual), free(values), free(zero), free(packed);
}

// ---- everything else: a few elements, against libm in double

// dw = dy^T x + beta dw, db = column sums of dy + beta db with elements `step` apart; the sums are the same product with ones
static void check_gradients(int m, int n, int k, double beta, int step) {
    float *dy = new_floats((ptrdiff_t)m * n, 1), *x = new_floats((ptrdiff_t)m * k, 1);
    float *dw = new_floats((ptrdiff_t)n * k, beta != 0), *db = new_floats((ptrdiff_t)n * step, beta != 0);
    float *dw0 = new_floats((ptrdiff_t)n * k, 0), *db0 = new_floats((ptrdiff_t)n * step, 0);
    memcpy(dw0, dw, (size_t)n * k * sizeof *dw), memcpy(db0, db, (size_t)n * step * sizeof *db);
    expect(tw_linear_backward_weights(TW_FLOAT32, m, n, k, (tw_matrix){dy, n, 1}, (tw_matrix){x, k, 1}, beta,
                                      (tw_matrix){dw, k, 1}, db, step) == TW_OK, "tw_linear_backward_weights returns TW_OK");
    int ok = 1;
    for (int j = 0; j < n; j++)
        for (int p = 0; p <= k; p++) { // p == k: of db
            const double before = p < k ? dw0[j * k + p] : db0[j * step], old = beta != 0 ? beta * before : 0;
            double sum = 0, size = 0;
            for (int i = 0; i < m; i++) {
                const double t = (double)dy[i * n + j] * (p < k ? x[i * k + p] : 1);
                sum += t;
                size += fabs(t);
            }
            ok &= fabs((p < k ? dw[j * k + p] : db[j * step]) - (sum + old)) <= (m + 4) * 1.2e-7 * (size + fabs(old));
        }
    expect(ok, "gradients of a linear layer's parameters");
    free(dy), free(x), free(dw), free(db), free(dw0), free(db0);
}

static int near(double found, double expected) { return fabs(found - expected) <= 1e-6 + 2e-6 * fabs(expected); }

enum { ROWS = 5, COLS = 37 };
static tw_matrix rows_of(float *x) { return (tw_matrix){x, COLS, 1}; }

static void check_maps(void) {
    float *x = new_floats(ROWS * COLS, 1), *y = new_floats(ROWS * COLS, 0);
    for (int i = 0; i < ROWS * COLS; i++) x[i] *= 10;
    int ok = tw_activation(TW_FLOAT32, TW_GELU, 0, ROWS, COLS, rows_of(x), rows_of(y)) == TW_OK;
    for (int i = 0; i < ROWS * COLS; i++) ok &= near(y[i], x[i] * 0.5 * erfc(-x[i] / sqrt(2)));
    expect(ok, "gelu");
    ok = tw_activation(TW_FLOAT32, TW_TANH, 0, ROWS, COLS, rows_of(x), rows_of(y)) == TW_OK;
    for (int i = 0; i < ROWS * COLS; i++) ok &= near(y[i], tanh(x[i]));
    expect(ok, "tanh");
    ok = tw_softmax(TW_FLOAT32, 0, ROWS, COLS, rows_of(x), rows_of(y)) == TW_OK;
    for (int i = 0; i < ROWS; i++) {
        double sum = 0;
        for (int j = 0; j < COLS; j++) sum += exp(x[i * COLS + j]);
        for (int j = 0; j < COLS; j++) ok &= near(y[i * COLS + j], exp(x[i * COLS + j]) / sum);
    }
    expect(ok, "softmax");
    ok = tw_norm(TW_FLOAT32, 1, ROWS, COLS, rows_of(x), NULL, NULL, 1e-5, rows_of(y)) == TW_OK;
    for (int i = 0; i < ROWS; i++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < COLS; j++) mean += x[i * COLS + j] / (double)COLS;
        for (int j = 0; j < COLS; j++) variance += pow(x[i * COLS + j] - mean, 2) / COLS;
        for (int j = 0; j < COLS; j++) ok &= near(y[i * COLS + j], (x[i * COLS + j] - mean) / sqrt(variance + 1e-5));
    }
    expect(ok, "layer_norm");
    const int64_t indices[] = {4, 0, 4};
    ok = tw_embedding(TW_FLOAT32, ROWS, COLS, rows_of(x), 3, indices, rows_of(y)) == TW_OK;
    for (int i = 0; i < 3; i++) ok &= !memcmp(y + i * COLS, x + indices[i] * COLS, COLS * sizeof *x);
    expect(ok, "embedding");
    ok = tw_dropout(TW_FLOAT32, 0.5, 7, 0, ROWS, COLS, rows_of(x), rows_of(y)) == TW_OK;
    int kept = 0;
    for (int i = 0; i < ROWS * COLS; i++) {
        ok &= y[i] == 0 || y[i] == 2 * x[i];
        kept += y[i] != 0;
    }
    expect(ok && kept > 60 && kept < 125, "dropout");
    free(x), free(y);
}

// The same zeros and NaNs on every instruction set.
static void check_special_values(void) {
    const float x[] = {-0.0f, 0.0f, -1, NAN, INFINITY};
    float y[5];
    expect(tw_activation(TW_FLOAT32, TW_RELU, 0, 1, 5, (tw_matrix){(void *)x, 5, 1}, (tw_matrix){y, 5, 1}) == TW_OK, "relu");
    expect(y[0] == 0 && signbit(y[0]) && y[1] == 0 && !signbit(y[1]) && y[2] == 0, "relu keeps the sign of zero");
    expect(isnan(y[3]) && y[4] == INFINITY, "relu keeps NaN and infinity");
}

#include "integers.h"
#include "quantized.h"

int main(int argc, char **argv) { // "integers": those alone
    if (tw_isa_error()) printf("%s\n", tw_isa_error());
    check_integer_products();
    check_quantized();
    if (argc > 1 && !strcmp(argv[1], "integers")) {
        printf("int8 isa %s, complaints %d\n", tw_int8_isa(), complaints);
        return complaints > 100 ? 100 : complaints;
    }
    check_products();
    check_tuning();
    check_cblas();
    check_residual();
    for (int m = 1; m < 40; m += 9) check_packed(m, 10 + 4 * m, 11 * m), check_packed(m, 90 + m, 300);
    expect(tw_pack_bytes(TW_FLOAT32, -1, 2) == 0 && tw_pack_bytes(TW_INT64, 1, 1) == 0, "tw_pack_bytes knows what cannot be");
    for (int i = 0; i < 12; i++) check_gradients(i * 7, 1 + i * 9, 3 + i * 5, i % 3 * 0.5, 1 + i % 2);
    for (int m = 0; m < 80; m += m < 9 ? 1 : 14)
        for (int kind = 0; kind < 8; kind++) check_weights(m, kind & 1 ? 4 : 8, kind >> 1 & 1);
    check_maps();
    check_special_values();
    printf("isa %s, complaints %d\n", tw_isa(), complaints);
    return complaints > 100 ? 100 : complaints;
}
