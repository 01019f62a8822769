// tw_matmul_maddubs: a packed for all, panels of b to threads, each packed by the thread that multiplies it.
#include <stdatomic.h>
#include <string.h>

#include "../isa/isa.h"
#include "../threads/threads.h"
#include "kernels.h"

TW_KERNELS(tw_maddubs_kernels, tw_maddubs)

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define WORD_NS 1.0 // of one row and 16 columns

enum { MAX_LANES = 16 };

typedef struct {
    const tw_maddubs_kernels *kernels;
    ptrdiff_t m, n, k, words;
    const uint32_t *a;
    tw_matrix b, c;
    _Atomic int64_t clipped;
    atomic_int code;
} job;

// Up to four bytes, `step` apart, as a word.
static uint32_t word(const uint8_t *from, ptrdiff_t step, ptrdiff_t left) {
    uint32_t bytes = 0;
    for (int i = 0; i < MIN(left, 4); i++) bytes |= (uint32_t)from[i * step] << 8 * i;
    return bytes;
}

static void run_panels(void *context, ptrdiff_t begin, ptrdiff_t end) {
    job *t = context;
    const ptrdiff_t lanes = t->kernels->lanes;
    const uint8_t *b = t->b.data;
    uint32_t *panel = tw_workspace((size_t)(t->words * lanes) * 4);
    int64_t clipped = 0;
    if (!panel) {
        atomic_store_explicit(&t->code, TW_NO_MEMORY, memory_order_relaxed);
        return;
    }
    for (ptrdiff_t j = begin * lanes; j < MIN(end * lanes, t->n); j += lanes) {
        const ptrdiff_t columns = MIN(lanes, t->n - j);
        memset(panel, 0, (size_t)(t->words * lanes) * 4);
        for (ptrdiff_t p = 0; p < t->words; p++)
            for (ptrdiff_t s = 0; s < columns; s++)
                panel[p * lanes + s] = word(b + 4 * p * t->b.row + (j + s) * t->b.col, t->b.row, t->k - 4 * p);
        for (ptrdiff_t i = 0, rows; i < t->m; i += rows) {
            int32_t sums[TW_MADDUBS_ROWS * MAX_LANES], *c = (int32_t *)t->c.data + i * t->c.row + j * t->c.col;
            rows = MIN(TW_MADDUBS_ROWS, t->m - i);
            clipped += t->kernels->tile((int)rows, t->words, t->a + i * t->words, panel, sums);
            for (ptrdiff_t r = 0; r < rows; r++)
                for (ptrdiff_t s = 0; s < columns; s++) c[r * t->c.row + s * t->c.col] = sums[r * lanes + s];
        }
    }
    t->clipped += clipped;
}

int tw_matmul_maddubs(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, tw_matrix a, tw_matrix b, tw_matrix c, int64_t *clipped) {
    if (m < 0 || n < 0 || k < 0)
        return TW_INVALID;
    *clipped = 0;
    if (m == 0 || n == 0)
        return TW_OK;
    const tw_maddubs_kernels *g = TW_PICK(tw_maddubs);
    const ptrdiff_t words = k / 4 + 1, panels = (n + g->lanes - 1) / g->lanes; // one at least, of zeros where k is 0
    uint32_t *rows = tw_second_workspace((size_t)(m * words) * 4);
    if (!rows)
        return TW_NO_MEMORY;
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t p = 0; p < words; p++)
            rows[i * words + p] = word((const uint8_t *)a.data + i * a.row + 4 * p * a.col, a.col, k - 4 * p);
    job t = {.kernels = g, .m = m, .n = n, .k = k, .words = words, .a = rows, .b = b, .c = c};
    tw_parallel_ranges(panels, 1, (double)panels * (double)words * (double)m * WORD_NS, run_panels, &t);
    *clipped = t.clipped;
    return atomic_load_explicit(&t.code, memory_order_relaxed);
}
