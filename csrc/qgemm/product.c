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
#define WORD_NS 0.08  // a word of b from beyond L2: 50 GB/s
#define PIECE_NS 1500 // of work for a thread at a time, at least

static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; }
static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return pieces(n, unit) * unit; }

// About what one thread takes.
static double estimate(const tw_int_product *p) {
    const tw_int_panels *b = &p->b;
    const double words = (double)(b->words + 8) * (double)b->columns; // eight more stand for the writing of c
    return words * ((double)p->m / b->kernels->lanes * DOT_NS + (p->m < 8 ? WORD_NS : 0));
}

int tw_int_threads(const tw_int_product *p) { return tw_threads_for(estimate(p)); }

// ---- rectangles

typedef struct {
    const tw_int_product *product;
    ptrdiff_t rows, units, down; // of a rectangle, in units of columns; rectangles in a column of c
    ptrdiff_t strip, block, nc;  // rows of a strip; units and columns of a block, at most
    int has_b_zero;
    atomic_int code;
} plan;

// What a strip needs beside its tiles, from the thread's workspace.
typedef struct {
    uint32_t *a;     // packed rows
    int32_t *b_zero; // of the columns of the rectangle
    int32_t *sums;   // of a strip, nc columns
} scratch;

int tw_int_reads_in_place(const tw_int_product *p) {
    return p->b.kernels->depth == 4 && p->a_col == 1 && p->flip == 0;
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
    *s = (scratch){a ? memory : NULL, zeros ? (int32_t *)memory + a : NULL, sums ? (int32_t *)memory + a + zeros : NULL};
    return 1;
}

// Rows i .. i+m-1 times columns j .. j+n-1 of c; j0: where the rectangle begins.
static void run_strip(const plan *t, const scratch *s, ptrdiff_t i, ptrdiff_t m, ptrdiff_t j0, ptrdiff_t j, ptrdiff_t n) {
    const tw_int_product *p = t->product;
    const tw_int_panels *b = &p->b;
    const tw_qgemm_kernels *g = b->kernels;
    uint32_t tail[TW_MAX_STRIP];
    int32_t zeros[TW_MAX_STRIP], row_sums[TW_MAX_STRIP];
    const char *a = p->a + i * p->a_row;
    const ptrdiff_t left = b->k % g->depth, words = left ? b->words - 1 : b->words;
    tw_strip strip = {.a_row = p->a_row, .c_row = s->sums ? t->nc : p->c_row, .a_zero = zeros, .row_sums = row_sums,
                      .one_zero = p->a_zero_step == 0 && !s->b_zero};
    if (s->a) {
        g->pack_a(p->a_is_unsigned, m, b->k, a, p->a_row, p->a_col, p->flip, s->a);
        a = (const char *)s->a, strip.a_row = b->words * 4;
    } else if (left) {
        strip.tail = tail;
        for (ptrdiff_t r = 0; r < m; r++) {
            tail[r] = 0;
            memcpy(&tail[r], a + r * p->a_row + words * 4, (size_t)left);
        }
    }
    const ptrdiff_t whole = s->a ? b->words : words;
    for (ptrdiff_t r = 0; r < (strip.one_zero ? 1 : m); r++)
        zeros[r] = a_zero(p, i + r);
    if (s->b_zero) {
        g->sum_rows(m, whole, a, &strip, row_sums);
        for (ptrdiff_t r = 0; r < m; r++) row_sums[r] = (int32_t)((uint32_t)row_sums[r] - (uint32_t)b->k * (uint32_t)zeros[r]);
    }
    int32_t *c = s->sums ? s->sums : p->c + i * p->c_row + j;
    for (ptrdiff_t at = j, width; at < j + n; at += width) {
        width = tw_int_width(b, at);
        const ptrdiff_t nv = width / g->lanes, columns = MIN(j + n - at, width);
        g->tile[nv - 1][m - 1](whole, a, b->panels + at * b->words, b->sums + at, s->b_zero ? s->b_zero + at - j0 : NULL,
                               c + at - j, columns - (nv - 1) * g->lanes, &strip);
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
}

// Rows are shared out where there are many, for then the panels of b are read often enough by each; otherwise columns.
static ptrdiff_t cut(const tw_int_product *p, int threads, double ns, plan *t) {
    const ptrdiff_t units = p->b.units;
    const ptrdiff_t want = threads == 1 ? 1 : MAX(threads, MIN(4 * threads, (ptrdiff_t)(ns / PIECE_NS)));
    const int by_rows = p->m >= 8 * threads * t->strip || units == 1;
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
    plan t = {.product = p, .has_b_zero = has_b_zero(p), .strip = b->kernels->rows[b->width / b->kernels->lanes - 1]};
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
