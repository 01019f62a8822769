// The microkernels of integer products, for one ISA; included by *.int.isa.c.
//
//                panel: words of b, nv vectors a row      A tile of c stays in registers for the whole of k. Each step loads nv
//                    | v0 | v1 | v2 |                     vectors of b and multiplies them by one word of each of m rows of a,
//                  --+----+----+----+                     spread over a vector: the loop of gemm/tiles.h with a dot product of
//      word of a0 -> | c  | c  | c  |   m x nv vectors    DEPTH elements in the place of the multiply-add.
//      word of a1 -> | c  | c  | c  |   of c
//
// Registers: m * nv for c, nv for b, 1 for a. With 32 (AVX-512, NEON): 8 x 3 + 3 + 1 = 28; 16 + 1 + 1; 14 x 2 + 2 + 1 = 31;
// 6 x 4 + 4 + 1 = 29. With 16 (AVX2, SSE2): 6 x 2 + 2 + 1 = 15 and one product; 12 + 1 + 1.
// Sums are exact modulo 2^32 in any order, so that k may be cut where that helps.
#include "../isa/dot.h"
#include "../isa/isa.h"
#include "../isa/up_to.h"
#include "kernels.h"
#include "pack.h"

#if defined __AVX512F__ || defined __aarch64__
#define ROWS_1 16
#define ROWS_2 14
#define ROWS_3 8
#define ROWS_4 6
#ifdef __AMX_INT8__
#define NV 2 // as wide as two registers of the matrix unit
#else
#define NV 3
#endif
#else
#define ROWS_1 12
#define ROWS_2 6
#define ROWS_3 4
#define ROWS_4 2
#define NV 2
#endif
_Static_assert(ROWS_1 <= TW_MAX_STRIP, "the driver keeps a strip's zero points and sums in arrays of TW_MAX_STRIP");

// c before the products: - a_zero sum b - b_zero (sum a - k a_zero)
INLINE void start(const int m, const int nv, wvec (*acc)[TW_MAX_VECTORS], const int32_t *sums, const int32_t *b_zero,
                  const tw_strip *t, ptrdiff_t first_row) {
    const int32_t *a_zero = t->a_zero + first_row, *row_sums = t->row_sums + first_row;
    if (t->one_zero) {
        const wvec zero = w_set1(-(uint32_t)*t->a_zero);
        UNROLL for (int j = 0; j < nv; j++) {
            const wvec first = zero * w_load(sums + j * LANES);
            UNROLL for (int i = 0; i < m; i++) acc[i][j] = first;
        }
        return;
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++)
        acc[i][j] = w_set1(-(uint32_t)a_zero[i]) * w_load(sums + j * LANES);
    if (b_zero)
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++)
            acc[i][j] -= w_set1((uint32_t)row_sums[i]) * w_load(b_zero + j * LANES);
}

// One word of each row: from a on, a_row bytes apart.
INLINE void step(const int m, const int nv, wvec (*acc)[TW_MAX_VECTORS], const char *a, ptrdiff_t a_row, const uint32_t *b) {
    wvec bv[TW_MAX_VECTORS];
    UNROLL for (int j = 0; j < nv; j++) bv[j] = w_load(b + j * LANES);
    UNROLL for (int i = 0; i < m; i++) {
        const wvec av = w_set1(word_at(a + i * a_row));
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = w_dot(acc[i][j], av, bv[j]);
    }
}

// `ways` steps are taken at a time, each into sums of its own: a dot product takes 4 cycles, and few rows are few sums.
INLINE void tile(const int m, const int nv, const int ways, ptrdiff_t words, const char *a, const uint32_t *b, const int32_t *sums,
                 const int32_t *b_zero, int32_t *c, ptrdiff_t last, const tw_strip *t) {
    const ptrdiff_t a_row = t->a_row;
    wvec acc[TW_MAX_STRIP][TW_MAX_VECTORS];
    start(m, nv, acc, sums, b_zero, t, 0);
    UNROLL for (int i = m; i < ways * m; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = (wvec){0};
    ptrdiff_t p = 0;
    for (; p + ways <= words; p += ways)
        UNROLL for (int w = 0; w < ways; w++, a += 4, b += nv * LANES) step(m, nv, acc + w * m, a, a_row, b);
    if (ways > 1)
        for (; p < words; p++, a += 4, b += nv * LANES) step(m, nv, acc, a, a_row, b);
    if (t->tail) step(m, nv, acc, (const char *)t->tail, 4, b);
    UNROLL for (int i = m; i < ways * m; i++) UNROLL for (int j = 0; j < nv; j++) acc[i % m][j] += acc[i][j];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) {
        int32_t *to = c + i * t->c_row + j * LANES;
        if (j < nv - 1 || last == LANES)
            w_store(to, acc[i][j]);
        else
            w_store_n(to, acc[i][j], last);
    }
}

INLINE wvec add_up(const tw_strip *t, wvec sum, wvec elements) {
    const wvec ones = w_set1(DEPTH == 4 ? 0x01010101 : 0x00010001);
    return t->a_is_signed ? w_dot(sum, ones, elements) : w_dot(sum, elements, ones);
}

static void sum_rows(ptrdiff_t m, ptrdiff_t words, const void *a, const tw_strip *t, int32_t *sums) {
    for (ptrdiff_t i = 0; i < m; i++) {
        const char *row = (const char *)a + i * t->a_row;
        wvec sum = {0}, rest = {0};
        ptrdiff_t p = 0;
        for (; p + LANES <= words; p += LANES) sum = add_up(t, sum, w_load(row + 4 * p));
        memcpy(&rest, row + 4 * p, (size_t)(words - p) * 4);
        sum = add_up(t, sum, rest);
        if (t->tail) {
            memset(&rest, 0, sizeof rest);
            memcpy(&rest, t->tail + i * t->tail_words, (size_t)t->tail_words * 4);
            sum = add_up(t, sum, rest);
        }
        uint32_t total = 0;
        for (int lane = 0; lane < LANES; lane++) total += sum[lane];
        sums[i] = (int32_t)total;
    }
}

#ifdef __AMX_INT8__
#include "matrix.h"
#define MATRIX &matrix_unit
#define STEP TW_MATRIX_WORDS
#else
#define MATRIX NULL
#define STEP 1
#endif

// ---- instances and the table

#define WAYS(m, nv) ((m) == 1 ? 4 : (m) == 2 ? 2 : 1)
#define TILE(m, nv) \
    static void tile_##m##x##nv(ptrdiff_t words, const void *a, const void *panel, const int32_t *sums, const int32_t *b_zero, \
                                int32_t *c, ptrdiff_t last, const tw_strip *strip) { \
        tile(m, nv, WAYS(m, nv), words, a, panel, sums, b_zero, c, last, strip); \
    }
#define TILE_ROW(m, nv) tile_##m##x##nv,
UP_TO(ROWS_1, TILE, 1)
UP_TO(ROWS_2, TILE, 2)
UP_TO(ROWS_3, TILE, 3)
UP_TO(ROWS_4, TILE, 4)
static tw_int_tile *const tiles_1[] = {UP_TO(ROWS_1, TILE_ROW, 1)};
static tw_int_tile *const tiles_2[] = {UP_TO(ROWS_2, TILE_ROW, 2)};
static tw_int_tile *const tiles_3[] = {UP_TO(ROWS_3, TILE_ROW, 3)};
static tw_int_tile *const tiles_4[] = {UP_TO(ROWS_4, TILE_ROW, 4)};

extern const tw_qgemm_kernels TW_NAME(tw_qgemm);
const tw_qgemm_kernels TW_NAME(tw_qgemm) = {
    .lanes = LANES,
    .depth = DEPTH,
    .a_unsigned = A_UNSIGNED,
    .vectors = NV,
    .alone = NV == 3 ? 4 : 2,
    .rows = {ROWS_1, ROWS_2, ROWS_3, ROWS_4},
    .tile = {tiles_1, tiles_2, tiles_3, tiles_4},
    .matrix = MATRIX,
    .step = STEP,
    .pack_b = pack_b,
    .pack_a = pack_a,
    .sum_rows = sum_rows,
};
