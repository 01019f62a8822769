// The microkernels of gemm, for one element type (TW_BITS) and one ISA; included by gemm_f32.isa.c and gemm_f64.isa.c.
//
//            b: k rows, nv vectors each              A tile of c stays in registers for the whole of k. Each step loads
//              | v0 | v1 | v2 |                      nv vectors of b and multiplies them by m numbers of a, each spread
//            --+----+----+----+                      over a vector, read where they are (a is not packed as long as its
//      a[0] -> | c  | c  | c  |   m x nv vectors     rows are contiguous).
//      a[1] -> | c  | c  | c  |   of c
//
// Registers: m * nv for c, nv for b, 1 for a. With 32 (AVX-512, NEON): 8 x 3 + 3 + 1 = 28; 16 + 1 + 1; 14 x 2 + 2 + 1;
// 6 x 4 + 4 + 1. With 16 (AVX2, baseline): 6 x 2 + 2 + 1 = 15, 12 + 1 + 1, 4 x 3 + 3 + 1 (b spills nothing), 2 x 4 + 4 + 1.
// k runs in order in every tile and every product is fused in the same way, so that an element of c has the same bits
// whichever tile computes it.
#if defined __GNUC__ && !defined __clang__
#pragma GCC optimize("no-version-loops-for-strides") // a second copy of each k loop for a_col == 1 gains nothing
#endif
#include "../isa/isa.h"
#include "../isa/up_to.h"
#include "../isa/vec.h"
#include "kernels.h"

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_BY_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#define UNROLL_BY_4 _Pragma("GCC unroll 4")
#endif

#if defined __AVX512F__ || defined __aarch64__
#define MR 8
#define NV 3
#define ROWS_1 16
#define ROWS_2 14
#define ROWS_3 9
#define ROWS_4 6
#define DOT_REGISTERS 22
#define STREAM_ROWS 4
#else
#define MR 6
#define NV 2
#define ROWS_1 12
#define ROWS_2 6
#define ROWS_3 4
#define ROWS_4 2
#define DOT_REGISTERS 10
#define STREAM_ROWS 2
#endif
#define NR (NV * LANES)
#define STREAM_DEPTH 8
#define AHEAD 8 // rows of a packed panel fetched ahead into L1
#define FAR_AHEAD 64 // and into L2, where nobody has just packed it

// ---- tiles

INLINE void store_tile(const int m, const int nv, vec (*acc)[TW_MAX_NV], real *c, ptrdiff_t last, const tw_tile_call *t) {
    if (t->alpha == 1 && t->beta == 0 && last == LANES) { // most tiles; what they save is a twelfth of 128x512x10
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) v_store(c + i * t->c_row + j * LANES, acc[i][j]);
        return;
    }
    const vec alpha = v_set1((real)t->alpha), beta = v_set1((real)t->beta);
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) {
        real *to = c + i * t->c_row + j * LANES;
        vec r = acc[i][j] * alpha;
        if (j < nv - 1 || last == LANES) {
            if (t->beta != 0) r = v_fma(beta, v_load(to), r);
            v_store(to, r);
        } else {
            if (t->beta != 0) r = v_fma(beta, v_load_n(to, last), r);
            v_store_n(to, r, last);
        }
    }
}

INLINE void step(const int m, const int nv, vec (*acc)[TW_MAX_NV], const real *a, ptrdiff_t a_row, const vec *bv) {
    UNROLL for (int i = 0; i < m; i++) {
        const vec av = v_set1(a[i * a_row]);
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = v_fma(av, bv[j], acc[i][j]);
    }
}

INLINE void direct_tile(const int m, const int nv, ptrdiff_t k, const real *a, const real *b, real *c, ptrdiff_t last,
                        const tw_tile_call *t) {
    const ptrdiff_t a_row = t->a_row, a_col = t->a_col, b_row = t->b_row;
    vec acc[ROWS_1][TW_MAX_NV], bv[TW_MAX_NV];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = (vec){0};
    if (last == LANES)
        for (ptrdiff_t p = 0; p < k; p++, a += a_col, b += b_row) {
            UNROLL for (int j = 0; j < nv; j++) bv[j] = v_load(b + j * LANES);
            step(m, nv, acc, a, a_row, bv);
        }
    else
        for (ptrdiff_t p = 0; p < k; p++, a += a_col, b += b_row) {
            UNROLL for (int j = 0; j < nv - 1; j++) bv[j] = v_load(b + j * LANES);
            bv[nv - 1] = v_load_n(b + (nv - 1) * LANES, last);
            step(m, nv, acc, a, a_row, bv);
        }
    store_tile(m, nv, acc, c, last, t);
}

// The rows of c and of the a below are fetched one by one between stretches of k: all at once they take the line buffers
// that b and a want (2048x2048x2048: 226 GFLOP/s with c at once and without a, 240 with c spread, 247 with both).
INLINE void packed_tile(const int m, const int far, ptrdiff_t k, const real *a, const real *b, real *c, ptrdiff_t last,
                        const tw_tile_call *t) {
    const ptrdiff_t a_row = t->a_row, a_col = t->a_col, c_row = t->c_row;
    const char *below = t->below;
    vec acc[MR][TW_MAX_NV], bv[NV];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < NV; j++) acc[i][j] = (vec){0};
    for (ptrdiff_t i = 0, p = 0; i < m; i++, below += a_row * (ptrdiff_t)sizeof(real)) {
        for (int j = 0; j < NV; j++) __builtin_prefetch(c + i * c_row + j * LANES, 1, 3);
        for (ptrdiff_t at = 0; at < t->below_bytes; at += 64) __builtin_prefetch(below + at, 0, 2);
        UNROLL_BY_4 for (const ptrdiff_t stop = (i + 1) * k / m; p < stop; p++, a += a_col, b += NR) {
            UNROLL for (int j = 0; j < NV; j++) {
                __builtin_prefetch(b + AHEAD * NR + j * LANES, 0, 3);
                if (far) __builtin_prefetch(b + FAR_AHEAD * NR + j * LANES, 0, 2);
                bv[j] = v_load(b + j * LANES);
            }
            step(m, NV, acc, a, a_row, bv);
        }
    }
    store_tile(m, NV, acc, c, last, t);
}

// The first row panel of a block: b comes from the caller's matrix and its packed copy is stored on the way.
static void fused_tile(ptrdiff_t k, const void *a_, const void *b_, void *panel_, void *c_, const tw_tile_call *t) {
    const real *a = a_, *b = b_;
    real *panel = panel_, *c = c_;
    const ptrdiff_t a_row = t->a_row, a_col = t->a_col, b_row = t->b_row;
    vec acc[MR][TW_MAX_NV], bv[NV];
    UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) acc[i][j] = (vec){0};
    for (ptrdiff_t p = 0; p < k; p++, a += a_col, b += b_row, panel += NR) {
        UNROLL for (int j = 0; j <= NV; j++) __builtin_prefetch(b + NR + j * LANES, 0, 2); // next panel, same pages
        UNROLL for (int j = 0; j < NV; j++) {
            bv[j] = v_load(b + j * LANES);
            v_store(panel + j * LANES, bv[j]);
        }
        step(MR, NV, acc, a, a_row, bv);
    }
    store_tile(MR, NV, acc, c, LANES, t);
}

// ---- sums that stay in L1 while b passes, 4 of its rows at a time, or 8 for a single row of a

INLINE void stream_columns(const int m, const int depth, const int nv, ptrdiff_t lanes, const vec (*av)[STREAM_DEPTH],
                           const real *b, ptrdiff_t b_row, ptrdiff_t ahead, real *sum, ptrdiff_t sum_row) {
    vec acc[STREAM_ROWS][TW_MAX_NV];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) {
        const real *from = sum + i * sum_row + j * LANES;
        acc[i][j] = lanes == LANES ? v_load(from) : v_load_n(from, lanes);
    }
    UNROLL for (int d = 0; d < depth; d++) UNROLL for (int j = 0; j < nv; j++) {
        const real *from = b + d * b_row + j * LANES;
        if (ahead) __builtin_prefetch(from + ahead, 0, 3);
        const vec bv = lanes == LANES ? v_load(from) : v_load_n(from, lanes);
        UNROLL for (int i = 0; i < m; i++) acc[i][j] = v_fma(av[i][d], bv, acc[i][j]);
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) {
        real *to = sum + i * sum_row + j * LANES;
        if (lanes == LANES) v_store(to, acc[i][j]);
        else v_store_n(to, acc[i][j], lanes);
    }
}

INLINE void stream_step(const int m, const int depth, ptrdiff_t n, ptrdiff_t ahead, const real *a, const real *b, real *sum,
                        const tw_tile_call *t) {
    const int nv = m == 1 ? 4 : 2;
    const ptrdiff_t b_row = t->b_row, sum_row = t->c_row, to_line = -(uintptr_t)sum / sizeof(real) % LANES;
    vec av[STREAM_ROWS][STREAM_DEPTH];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int d = 0; d < depth; d++)
        av[i][d] = v_set1(a[i * t->a_row + d * t->a_col] * (real)t->alpha);
    ptrdiff_t j = to_line < n ? to_line : n;
    if (j) stream_columns(m, depth, 1, j, av, b, b_row, ahead, sum, sum_row);
    if (ahead)
        for (; j + nv * LANES <= n; j += nv * LANES)
            stream_columns(m, depth, nv, LANES, av, b + j, b_row, ahead, sum + j, sum_row);
    else
        for (; j + nv * LANES <= n; j += nv * LANES)
            stream_columns(m, depth, nv, LANES, av, b + j, b_row, 0, sum + j, sum_row);
    for (; j + LANES <= n; j += LANES) stream_columns(m, depth, 1, LANES, av, b + j, b_row, ahead, sum + j, sum_row);
    if (j < n) stream_columns(m, depth, 1, n - j, av, b + j, b_row, ahead, sum + j, sum_row);
}

// Short rows are fetched by hand, for no prefetcher follows them (1x100x10000: 50 GFLOP/s without, 62 with; 1x4096x4096: 20
// without, 16 with). sum and b lie alike in their cache lines (1x1024x1024: 48 GFLOP/s across lines, 60 along them).
INLINE void stream(const int m, ptrdiff_t k, ptrdiff_t n, const real *a, const real *b, real *sum, const tw_tile_call *t) {
    const int depth = m == 1 ? STREAM_DEPTH : STREAM_DEPTH / 2;
    const ptrdiff_t bytes = n * (ptrdiff_t)sizeof(real), ahead = bytes < 1024 ? 6144 / bytes * t->b_row : 0;
    ptrdiff_t p = 0;
    for (; p + depth <= k; p += depth, a += depth * t->a_col, b += depth * t->b_row)
        stream_step(m, depth, n, ahead, a, b, sum, t);
    for (; p < k; p++, a += t->a_col, b += t->b_row) stream_step(m, 1, n, 0, a, b, sum, t);
}

// ---- dot tiles: vectors along k

INLINE void dot_tile(const int m, const int n, ptrdiff_t k, const real *a, ptrdiff_t a_row, const real *b, ptrdiff_t b_row,
                     real *c, ptrdiff_t c_row, ptrdiff_t c_col, double alpha, double beta) {
    vec acc[TW_MAX_DOT][TW_MAX_DOT], av[TW_MAX_DOT];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < n; j++) acc[i][j] = (vec){0};
    // short rows: the next m of them; long ones: 2 KiB on (512x1x4096: 40 GFLOP/s with the next rows, which L1 loses again, 46)
    const ptrdiff_t ahead = k * (ptrdiff_t)sizeof(real) <= 4096 ? m * a_row : 2048 / (ptrdiff_t)sizeof(real);
    ptrdiff_t p = 0;
    for (; p + LANES <= k; p += LANES) {
        UNROLL for (int i = 0; i < m; i++) {
            av[i] = v_load(a + i * a_row + p);
            __builtin_prefetch(a + i * a_row + p + ahead, 0, 3);
        }
        UNROLL for (int j = 0; j < n; j++) {
            const vec bv = v_load(b + j * b_row + p);
            UNROLL for (int i = 0; i < m; i++) acc[i][j] = v_fma(av[i], bv, acc[i][j]);
        }
    }
    if (p < k) {
        UNROLL for (int i = 0; i < m; i++) av[i] = v_load_n(a + i * a_row + p, k - p);
        UNROLL for (int j = 0; j < n; j++) {
            const vec bv = v_load_n(b + j * b_row + p, k - p);
            UNROLL for (int i = 0; i < m; i++) acc[i][j] = v_fma(av[i], bv, acc[i][j]);
        }
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < n; j++) {
        real *to = c + i * c_row + j * c_col, sum = v_sum(acc[i][j]) * (real)alpha;
        *to = beta != 0 ? sum + (real)beta * *to : sum;
    }
}

#include "pack.h"

// ---- rows

static void add_rows(ptrdiff_t m, ptrdiff_t n, const void *x_, ptrdiff_t x_row, double beta, void *c_, ptrdiff_t c_row) {
    const vec scale = v_set1((real)beta);
    for (ptrdiff_t i = 0; i < m; i++) {
        const real *x = (const real *)x_ + i * x_row;
        real *c = (real *)c_ + i * c_row;
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const ptrdiff_t lanes = n - j < LANES ? n - j : LANES;
            const vec r = v_load_n(x + j, lanes);
            v_store_n(c + j, beta == 0 ? r : v_fma(scale, v_load_n(c + j, lanes), r), lanes);
        }
    }
}

static void sum_rows(ptrdiff_t m, ptrdiff_t n, const void *x_, ptrdiff_t x_row, void *sum_) {
    real *sum = sum_;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t lanes = n - j < LANES ? n - j : LANES;
        const real *x = (const real *)x_ + j;
        vec total = v_load_n(sum + j, lanes);
        if (lanes == LANES)
            for (ptrdiff_t i = 0; i < m; i++) total += v_load(x + i * x_row);
        else
            for (ptrdiff_t i = 0; i < m; i++) total += v_load_n(x + i * x_row, lanes);
        v_store_n(sum + j, total, lanes);
    }
}

// ---- instances and tables

#define DIRECT(m, nv) \
    static void direct_##m##x##nv(ptrdiff_t k, const void *a, const void *b, void *c, ptrdiff_t last, const tw_tile_call *t) { \
        direct_tile(m, nv, k, a, b, c, last, t); \
    }
#define DIRECT_ROW(m, nv) direct_##m##x##nv,
UP_TO(ROWS_1, DIRECT, 1)
UP_TO(ROWS_2, DIRECT, 2)
UP_TO(ROWS_3, DIRECT, 3)
UP_TO(ROWS_4, DIRECT, 4)
static tw_tile *const direct_1[] = {UP_TO(ROWS_1, DIRECT_ROW, 1)};
static tw_tile *const direct_2[] = {UP_TO(ROWS_2, DIRECT_ROW, 2)};
static tw_tile *const direct_3[] = {UP_TO(ROWS_3, DIRECT_ROW, 3)};
static tw_tile *const direct_4[] = {UP_TO(ROWS_4, DIRECT_ROW, 4)};

#define PACKED(m, unused) \
    static void packed_##m(ptrdiff_t k, const void *a, const void *b, void *c, ptrdiff_t last, const tw_tile_call *t) { \
        packed_tile(m, 0, k, a, b, c, last, t); \
    }
#define PACKED_ROW(m, unused) packed_##m,
UP_TO(MR, PACKED, )
static tw_tile *const packed[] = {UP_TO(MR, PACKED_ROW, )};
// 8x1024x4096 with b packed beforehand 120 -> 182 GFLOP/s. Not for fewer rows, where loads are what is scarce (4x1024x1024
// 209 -> 156), nor for panels in L2 (1024x1024x1024 267 -> 257).
static void packed_far(ptrdiff_t k, const void *a, const void *b, void *c, ptrdiff_t last, const tw_tile_call *t) {
    packed_tile(MR, 1, k, a, b, c, last, t);
}

#define STREAM(m, unused) \
    static void stream_##m(ptrdiff_t k, ptrdiff_t n, const void *a, const void *b, void *c, const tw_tile_call *t) { \
        stream(m, k, n, a, b, c, t); \
    }
#define STREAM_ROW(m, unused) stream_##m,
UP_TO(STREAM_ROWS, STREAM, )
static tw_stream *const streams[] = {UP_TO(STREAM_ROWS, STREAM_ROW, )};

// as many rows as there are registers for n columns, at most 4: more streams through memory were slower (1x1024x1024 with 8
// rows 40 GFLOP/s, with 4 rows 50)
#define DOT_ROWS(n) (DOT_REGISTERS / (n) < 4 ? DOT_REGISTERS / (n) : 4)
#define DOT(n, unused) \
    static void dot_##n(ptrdiff_t k, const void *a, ptrdiff_t a_row, const void *b, ptrdiff_t b_row, void *c, ptrdiff_t c_row, \
                        ptrdiff_t c_col, double alpha, double beta) { \
        dot_tile(DOT_ROWS(n), n, k, a, a_row, b, b_row, c, c_row, c_col, alpha, beta); \
    } \
    static void dot_one_##n(ptrdiff_t k, const void *a, ptrdiff_t a_row, const void *b, ptrdiff_t b_row, void *c, \
                            ptrdiff_t c_row, ptrdiff_t c_col, double alpha, double beta) { \
        dot_tile(1, n, k, a, a_row, b, b_row, c, c_row, c_col, alpha, beta); \
    }
#define DOT_ROW(n, unused) dot_##n,
#define DOT_ONE_ROW(n, unused) dot_one_##n,
#define DOT_ROWS_ROW(n, unused) DOT_ROWS(n),
UP_TO_10(DOT, )

extern const tw_gemm_kernels TW_NAME(TW_TYPED(tw_gemm));
const tw_gemm_kernels TW_NAME(TW_TYPED(tw_gemm)) = {
    .size = sizeof(real),
    .lanes = LANES,
    .mr = MR,
    .nr = NR,
#ifndef __AVX2__
    .partial_is_slow = 1,
#endif
    .rows = {ROWS_1, ROWS_2, ROWS_3, ROWS_4},
    .direct = {direct_1, direct_2, direct_3, direct_4},
    .packed = packed,
    .packed_far = packed_far,
    .fused = fused_tile,
    .stream_rows = STREAM_ROWS,
    .stream = streams,
    .dot_rows = {UP_TO_10(DOT_ROWS_ROW, )},
    .dot = {UP_TO_10(DOT_ROW, )},
    .dot_one = {UP_TO_10(DOT_ONE_ROW, )},
    .pack = pack,
    .add_rows = add_rows,
    .sum_rows = sum_rows,
};
