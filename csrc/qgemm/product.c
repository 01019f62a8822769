// One product: rectangles of c to threads, strips of rows and panels of b to tiles.
//
//             nc columns, whose panels stay in L2
//            +----------------+--------              Rows of a are read where they lie (packed where they are not
//   a strip  |  tile  tile  t |                      contiguous, or not of the elements that a word holds). A strip keeps
//            +----------------+                      its rows in L1 while the panels pass; with `finish` its sums stay
//            |                |                      there, too, until they have been finished.
#include "product.h"

#include <stdatomic.h>
#include <string.h>

#include "../gemm/tuning.h"
#include "../threads/threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define DOT_NS 0.2    // one w_dot: two a cycle on Zen 5
#define UNIT_NS 0.04  // the same work by a matrix unit
#define CACHED_NS 0.02 // a word of b from L2: 200 GB/s
#define WORD_NS 0.12  // from beyond it: 33 GB/s
#define PIECE_NS 1500 // of work for a thread at a time, at least
// A matrix unit is opened for so many w_dot and more: 32x64x64 takes as long with it as without, 128x128x128 half as long.
#define UNIT_DOTS 2000
// Its strips take so many words of k at a time where the sums stay in L1: 1 KiB of 32 rows does, too. A layer of 2048x2048x2048 at
// 1.9 Tops/s reaches 2.2 with it. Sums that go to memory would be read from there again.
enum { KC = 256 };
enum { LINE = 64, FEW_COLUMNS = 64 }; // bytes of a cache line; rows across lines are copied where more columns read them

static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; }
static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return pieces(n, unit) * unit; }

const tw_matrix_unit *tw_int_matrix(const tw_int_panels *b, ptrdiff_t m) {
    const ptrdiff_t lanes = b->kernels->lanes, depth = b->kernels->depth;
    const double dots = (double)m * (double)pieces(b->k, depth) * (double)pieces(b->n, lanes);
    return m > 1 && dots >= UNIT_DOTS ? b->kernels->matrix : NULL;
}

static ptrdiff_t bytes_of_b(const tw_int_panels *b) { return b->words * b->columns * 4; }

// About what one thread takes.
static double estimate(const tw_int_product *p) {
    const tw_int_panels *b = &p->b;
    const double words = (double)(b->words + 8) * (double)b->columns; // eight more stand for the writing of c
    const double fetch = bytes_of_b(b) > tw_gemm_tuned()->l2_bytes ? WORD_NS : CACHED_NS;
    return words * ((double)p->m / b->kernels->lanes * (p->matrix ? UNIT_NS : DOT_NS) + fetch);
}

int tw_int_threads(const tw_int_product *p) { return tw_threads_for(estimate(p)); }

// ---- rectangles

typedef struct {
    const tw_int_product *product;
    ptrdiff_t rows, units, down; // of a rectangle, in units of columns; rectangles in a column of c
    ptrdiff_t strip, block, nc;  // rows of a strip; units and columns of a block, at most
    int has_b_zero, past;        // past: c is written past the caches
    atomic_int code;
} plan;

// What a strip needs beside its tiles, from the thread's workspace.
typedef struct {
    uint32_t *a;     // packed rows
    int32_t *b_zero; // of the columns of the rectangle
    int32_t *sums;   // of a strip, nc columns
    ptrdiff_t open;  // rows that the matrix unit is open for
} scratch;

int tw_int_reads_in_place(const tw_int_product *p) {
    if (p->b.kernels->depth != 4 || p->a_col != 1 || p->flip != 0)
        return 0;
    return !p->matrix || p->b.n <= FEW_COLUMNS || ((uintptr_t)p->a | (uintptr_t)p->a_row) % LINE == 0;
}

// Zero points of the elements as tiles see them.
static int32_t a_zero(const tw_int_product *p, ptrdiff_t i) {
    return (int32_t)((p->a_zero ? (uint32_t)p->a_zero[i * p->a_zero_step] : 0) + (uint32_t)p->a_shift);
}
static int32_t b_zero(const tw_int_product *p, ptrdiff_t j) {
    return (int32_t)((p->b_zero ? (uint32_t)p->b_zero[j * p->b_zero_step] : 0) + (uint32_t)p->b_shift);
}

static int has_b_zero(const tw_int_product *p) {
    ptrdiff_t j = p->b_zero && p->b_zero_step ? p->b.n - 1 : 0;
    while (j > 0 && b_zero(p, j) == 0) j--;
    return b_zero(p, j) != 0;
}

static int take_scratch(const plan *t, scratch *s) {
    const tw_int_product *p = t->product;
    const ptrdiff_t a = tw_int_reads_in_place(p) ? 0 : round_up(t->strip * p->b.words, 16);
    const ptrdiff_t zeros = t->has_b_zero ? round_up((t->units + 1) * p->b.width, 16) : 0, sums = p->finish ? t->strip * t->nc : 0;
    uint32_t *memory = a + zeros + sums ? tw_workspace((size_t)(a + zeros + sums) * 4) : NULL;
    if (a + zeros + sums && !memory)
        return 0;
    *s = (scratch){.a = a ? memory : NULL, .b_zero = zeros ? (int32_t *)memory + a : NULL,
                   .sums = sums ? (int32_t *)memory + a + zeros : NULL};
    return 1;
}

// What tiles read of m rows of a.
typedef struct {
    const char *a;
    ptrdiff_t words; // of a row; what is left of it is in tail
    uint32_t tail[TW_MAX_STRIP * TW_MATRIX_WORDS];
    int32_t zeros[TW_MAX_STRIP], sums[TW_MAX_STRIP];
    tw_strip strip;
} rows;

static void take_rows(const plan *t, const scratch *s, ptrdiff_t i, ptrdiff_t m, rows *r) {
    const tw_int_product *p = t->product;
    const tw_qgemm_kernels *g = p->b.kernels;
    ptrdiff_t bytes = p->b.k;
    r->a = p->a + i * p->a_row;
    r->strip = (tw_strip){.m = m, .a_row = p->a_row, .tail_words = p->matrix ? TW_MATRIX_WORDS : 1,
                          .a_is_signed = p->matrix && !p->a_is_unsigned, .a_zero = r->zeros, .row_sums = r->sums,
                          .one_zero = p->a_zero_step == 0 && !s->b_zero};
    if (s->a) {
        const ptrdiff_t row = p->matrix ? p->b.words : pieces(p->b.k, g->depth);
        g->pack_a(p->a_is_unsigned, m, p->b.k, row, r->a, p->a_row, p->a_col, p->flip, s->a);
        r->a = (const char *)s->a, r->strip.a_row = bytes = row * 4;
    }
    const ptrdiff_t left = bytes % (4 * r->strip.tail_words);
    r->words = (bytes - left) / 4;
    if (left) {
        r->strip.tail = r->tail;
        memset(r->tail, 0, (size_t)(m * r->strip.tail_words) * 4);
        for (ptrdiff_t q = 0; q < m; q++)
            memcpy(r->tail + q * r->strip.tail_words, r->a + q * r->strip.a_row + r->words * 4, (size_t)left);
    }
    for (ptrdiff_t q = 0; q < (r->strip.one_zero ? 1 : m); q++) r->zeros[q] = a_zero(p, i + q);
    if (s->b_zero) {
        g->sum_rows(m, r->words, r->a, &r->strip, r->sums);
        for (ptrdiff_t q = 0; q < m; q++)
            r->sums[q] = (int32_t)((uint32_t)r->sums[q] - (uint32_t)p->b.k * (uint32_t)r->zeros[q]);
    }
}

// Rows i .. i+m-1 times columns j .. j+n-1 of c; j0: where the rectangle begins.
static void run_strip(const plan *t, scratch *s, ptrdiff_t i, ptrdiff_t m, ptrdiff_t j0, ptrdiff_t j, ptrdiff_t n) {
    const tw_int_product *p = t->product;
    const tw_int_panels *b = &p->b;
    int32_t *c = s->sums ? s->sums : p->c + i * p->c_row + j;
    rows r;
    take_rows(t, s, i, m, &r);
    r.strip.c_row = s->sums ? t->nc : p->c_row;
    r.strip.past = t->past;
    if (p->matrix && s->open != m)
        p->matrix->open(s->open = m);
    const ptrdiff_t kc = p->matrix && s->sums ? KC : MAX(r.words, 1);
    const uint32_t *tail = r.strip.tail;
    for (ptrdiff_t from = 0; from == 0 || from < r.words; from += kc) {
        const ptrdiff_t words = MIN(r.words - from, kc);
        r.strip.goes_on = from > 0;
        r.strip.tail = from + words == r.words ? tail : NULL;
        for (ptrdiff_t at = j, width; at < j + n; at += width) {
            width = tw_int_width(b, at);
            const ptrdiff_t nv = width / b->kernels->lanes, columns = s->sums ? width : MIN(j + n - at, width);
            tw_int_tile *tile = p->matrix ? p->matrix->tile[p->a_is_unsigned][nv - 1] : b->kernels->tile[nv - 1][m - 1];
            tile(words, r.a + from * 4, b->panels + at * b->words + from * width, b->sums + at,
                 s->b_zero ? s->b_zero + at - j0 : NULL, c + at - j, columns - (nv - 1) * b->kernels->lanes, &r.strip);
        }
    }
    if (s->sums)
        p->finish(p->context, i, j, m, n, s->sums, t->nc);
}

static void run_rectangle(void *context, ptrdiff_t index) {
    plan *t = context;
    const tw_int_product *p = t->product;
    const ptrdiff_t i0 = index % t->down * t->rows, i1 = MIN(p->m, i0 + t->rows);
    const ptrdiff_t u0 = index / t->down * t->units, u1 = MIN(p->b.units, u0 + t->units);
    const ptrdiff_t j0 = tw_int_unit(&p->b, u0), j1 = tw_int_unit(&p->b, u1);
    scratch s;
    if (!take_scratch(t, &s)) {
        atomic_store_explicit(&t->code, TW_NO_MEMORY, memory_order_relaxed);
        return;
    }
    if (s.b_zero) // zeros beyond n: their columns are thrown away
        for (ptrdiff_t j = 0; j < round_up(j1 - j0, 16); j++)
            s.b_zero[j] = j0 + j < j1 ? b_zero(p, j0 + j) : 0;
    for (ptrdiff_t u = u0; u < u1; u += t->block) {
        const ptrdiff_t j = tw_int_unit(&p->b, u), n = tw_int_unit(&p->b, MIN(u + t->block, u1)) - j;
        for (ptrdiff_t i = i0; i < i1; i += t->strip) run_strip(t, &s, i, MIN(t->strip, i1 - i), j0, j, n);
    }
    if (s.open)
        p->matrix->close();
}

// Rows are shared out where there are many, for then the panels of b are read often enough by each, and by a matrix unit where there
// are two strips a thread and b fits the L2 of each; otherwise columns. A thread that gets the same columns in the next call finds
// them in its L2, if all threads' together hold b: then they get one piece each.
static ptrdiff_t cut(const tw_int_product *p, int threads, double ns, plan *t) {
    const ptrdiff_t units = p->b.units, l2 = tw_gemm_tuned()->l2_bytes, bytes = bytes_of_b(&p->b);
    const int by_rows = p->m >= 8 * threads * t->strip || units == 1 || (p->matrix && p->m >= 2 * threads * t->strip && bytes <= l2 / 2);
    const int one_each = !by_rows && bytes > l2 / 2 && bytes <= l2 * threads;
    const ptrdiff_t want = threads == 1 || one_each ? threads : MAX(threads, MIN(4 * threads, (ptrdiff_t)(ns / PIECE_NS)));
    t->rows = by_rows ? round_up(pieces(p->m, want), t->strip) : p->m;
    t->units = by_rows ? units : pieces(units, want);
    t->down = pieces(p->m, t->rows);
    return t->down * pieces(units, t->units);
}

int tw_run_int_product(const tw_int_product *p) {
    const tw_int_panels *b = &p->b;
    if (p->m == 0 || b->n == 0)
        return TW_OK;
    const tw_gemm_tuning *tuned = tw_gemm_tuned();
    const double ns = estimate(p);
    const int whole_lines = ((uintptr_t)p->c | (uintptr_t)(p->c_row * 4) | (uintptr_t)(b->n * 4)) % LINE == 0;
    plan t = {.product = p, .has_b_zero = has_b_zero(p), .past = !p->finish && whole_lines && tw_qgemm_writes_past(p->m, b->n * 4),
              .strip = p->matrix ? p->matrix->rows : b->kernels->rows[b->width / b->kernels->lanes - 1]};
    const ptrdiff_t tasks = cut(p, tw_threads_for(ns), ns, &t);
    // blocks of b stay in half of L2 while all rows pass, and finished sums in a third of L1
    ptrdiff_t most = t.rows > t.strip ? tuned->l2_bytes / 2 / (MAX(b->words, 1) * 4 * b->width) : t.units;
    if (p->finish)
        most = MIN(most, tuned->l1_bytes / 3 / (t.strip * 4 * b->width));
    t.block = pieces(t.units, pieces(t.units, MAX(most, 1)));
    t.nc = (t.block + 1) * b->width;
    tw_parallel(tasks, ns, run_rectangle, &t);
    return atomic_load_explicit(&t.code, memory_order_relaxed);
}
