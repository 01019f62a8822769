// The loops around the microkernels: one rectangle of c, on one thread, along each path.
#include "product.h"

#include <string.h>

#include "../threads/threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

#define LINE 64 // bytes of a cache line
#define TW_A_PANELS 4 // row panels of a packed at a time: whole cache lines where a's columns are contiguous

typedef struct {
    ptrdiff_t i, j, m, n; // rows i .. i+m-1, columns j .. j+n-1 of c
} rectangle;

static const char *a_at(const tw_product *p, ptrdiff_t i, ptrdiff_t k) {
    return p->a + (i * p->a_row + k * p->a_col) * p->kernels->size;
}

static const char *b_at(const tw_product *p, ptrdiff_t k, ptrdiff_t j) {
    return p->b + (k * p->b_row + j * p->b_col) * p->kernels->size;
}

static char *c_at(const tw_product *p, ptrdiff_t i, ptrdiff_t j) { return p->c + (i * p->c_row + j) * p->kernels->size; }

static tw_tile_call call_of(const tw_product *p) {
    return (tw_tile_call){.a_row = p->a_row, .a_col = p->a_col, .b_row = p->b_row, .c_row = p->c_row, .alpha = p->alpha,
                          .beta = p->beta};
}

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }

static void finish(const tw_product *p, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    const tw_epilogue *end = &p->end;
    if (end->bias)
        g->add_rows(r.m, r.n, end->bias + r.j * g->size, 0, 1, c_at(p, r.i, r.j), p->c_row);
    if (end->activation)
        for (ptrdiff_t i = r.i; i < r.i + r.m; i++)
            end->activation(r.n, c_at(p, i, r.j), c_at(p, i, r.j), end->param);
    if (end->residual)
        g->add_rows(r.m, r.n, end->residual + (r.i * end->residual_row + r.j) * g->size, end->residual_row, 1,
                    c_at(p, r.i, r.j), p->c_row);
}

// `count` parts that differ by one at most, the longer ones first.
typedef struct {
    ptrdiff_t count, length, longer; // `longer` of them are one longer than `length`
} parts;

static parts even_parts(ptrdiff_t n, ptrdiff_t count) { return (parts){count, n / count, n % count}; }
static ptrdiff_t part(const parts *s, ptrdiff_t index) { return s->length + (index < s->longer); }

// The columns of a rectangle, in vectors: one block of up to 4, else blocks of up to 3.
static parts column_blocks(const tw_product *p, ptrdiff_t n) {
    const ptrdiff_t vectors = (n + p->kernels->lanes - 1) / p->kernels->lanes;
    return even_parts(vectors, vectors <= TW_MAX_NV ? 1 : (vectors + 2) / 3);
}

// Rows k0 .. k0+k-1 of b in panels as wide as the blocks of columns that direct_tiles will make.
static void pack_blocks(const tw_product *p, rectangle r, ptrdiff_t k0, ptrdiff_t k, char *panels) {
    const tw_gemm_kernels *g = p->kernels;
    const parts blocks = column_blocks(p, r.n);
    for (ptrdiff_t block = 0, j = 0; j < r.n; block++) {
        const ptrdiff_t width = part(&blocks, block) * g->lanes;
        g->pack(k, MIN(width, r.n - j), width, b_at(p, k0, r.j + j), p->b_row, p->b_col, panels + j * k * g->size);
        j += width;
    }
}

// Direct tiles over a rectangle for rows k0 .. k0+k-1 of b, or for the panels that pack_blocks made. Rows of tiles outside:
// b stays in cache and c is written along its rows.
static void direct_tiles(const tw_product *p, rectangle r, ptrdiff_t k0, ptrdiff_t k, const char *panels, tw_tile_call call) {
    const tw_gemm_kernels *g = p->kernels;
    const parts blocks = column_blocks(p, r.n);
    // 16 rows of a a page apart do not fit the ways of L1 (1024x16x1024: 143 GFLOP/s, 174 with fewer)
    const ptrdiff_t full = g->rows[part(&blocks, 0) - 1], most = call.a_row * g->size % 4096 == 0 ? MIN(full, 14) : full;
    const parts rows = even_parts(r.m, (r.m + most - 1) / most);
    for (ptrdiff_t row = 0, i = 0; row < rows.count; i += part(&rows, row++))
        for (ptrdiff_t block = 0, j = 0; block < blocks.count; j += part(&blocks, block++) * g->lanes) {
            const ptrdiff_t nv = part(&blocks, block), n = MIN(nv * g->lanes, r.n - j);
            const char *b = b_at(p, k0, r.j + j);
            if (panels) {
                call.b_row = nv * g->lanes;
                b = panels + j * k * g->size;
            }
            g->direct[nv - 1][part(&rows, row) - 1](k, a_at(p, r.i + i, k0), b, c_at(p, r.i + i, r.j + j),
                                                    n - (nv - 1) * g->lanes, &call);
        }
}

static int run_direct(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t width = round_up(r.n, g->lanes); // of all panels together; of the one that was packed beforehand
    tw_tile_call call = call_of(p);
    char *space = NULL;
    if (plan->pack_b && !plan->panels && p->k > 0) {
        space = tw_workspace(plan->kc * width * g->size);
        if (!space)
            return TW_NO_MEMORY;
    }
    ptrdiff_t k0 = 0;
    do { // once if k is 0, for c = beta c
        const ptrdiff_t k = MIN(plan->kc, p->k - k0);
        if (space)
            pack_blocks(p, r, k0, k, space);
        direct_tiles(p, r, k0, k, plan->panels ? plan->panels + k0 * width * g->size : space, call);
        call.beta = 1;
        k0 += k;
    } while (k0 < p->k);
    finish(p, r);
    return TW_OK;
}

// The sums collect in rows of their own: on no cache line that another thread writes too, and as far from the start of a line
// as b is, so that the vectors of both can be aligned.
static int run_stream(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t bytes = r.m * plan->nc * g->size;
    char *sums = tw_workspace(bytes + LINE);
    if (!sums)
        return TW_NO_MEMORY;
    sums += (uintptr_t)b_at(p, 0, r.j) % LINE;
    tw_tile_call call = call_of(p);
    call.c_row = plan->nc;
    for (ptrdiff_t j = 0; j < r.n; j += plan->nc) {
        const ptrdiff_t n = MIN(plan->nc, r.n - j);
        memset(sums, 0, bytes);
        g->stream[r.m - 1](p->k, n, a_at(p, r.i, 0), b_at(p, 0, r.j + j), sums, &call);
        g->add_rows(r.m, n, sums, plan->nc, p->beta, c_at(p, r.i, r.j + j), p->c_row);
    }
    finish(p, r);
    return TW_OK;
}

// The side with few rows takes the place of b in the tile; c is then written along the other axis.
static int run_dot(const tw_product *p, const tw_plan *plan, rectangle r) {
    (void)plan;
    const tw_gemm_kernels *g = p->kernels;
    const int few_columns = p->n <= TW_MAX_DOT && (p->b_row == 1 || p->m >= 16);
    const char *many = few_columns ? a_at(p, r.i, 0) : b_at(p, 0, r.j), *few = few_columns ? b_at(p, 0, r.j) : a_at(p, r.i, 0);
    const ptrdiff_t rows = few_columns ? r.m : r.n, width = few_columns ? r.n : r.m;
    const ptrdiff_t many_row = few_columns ? p->a_row : p->b_col, step = few_columns ? p->c_row : 1;
    const ptrdiff_t across = few_columns ? 1 : p->c_row;
    ptrdiff_t few_row = few_columns ? p->b_col : p->a_row;
    // columns that do not begin on cache lines cost every load of them two (256x10x1024: 65 us, 32 on lines)
    const int off_lines = ((uintptr_t)few | few_row * g->size) % LINE != 0 && p->m >= 16;
    if (few_columns && (p->b_row != 1 || off_lines)) {
        const ptrdiff_t padded = round_up(p->k, g->lanes);
        char *panel = tw_workspace(width * padded * g->size);
        if (!panel)
            return TW_NO_MEMORY;
        g->pack(width, p->k, padded, few, p->b_col, p->b_row, panel);
        few = panel;
        few_row = padded;
    }
    char *c = c_at(p, r.i, r.j);
    const int tile = g->dot_rows[width - 1];
    ptrdiff_t i = 0;
    for (; i + tile <= rows; i += tile)
        g->dot[width - 1](p->k, many + i * many_row * g->size, many_row, few, few_row, c + i * step * g->size, step, across,
                          p->alpha, p->beta);
    for (; i < rows; i++)
        g->dot_one[width - 1](p->k, many + i * many_row * g->size, many_row, few, few_row, c + i * step * g->size, step, across,
                              p->alpha, p->beta);
    finish(p, r);
    return TW_OK;
}

// One panel of nr columns (fewer at the right edge, where the tile is a direct one over the same panel).
static void panel_tile(const tw_product *p, rectangle t, ptrdiff_t k, const char *a, const char *panel,
                       const tw_tile_call *call) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t nv = (t.n + g->lanes - 1) / g->lanes, last = t.n - (nv - 1) * g->lanes;
    char *c = c_at(p, t.i, t.j);
    if (nv * g->lanes == g->nr) {
        (call->b_is_far && t.m == g->mr ? g->packed_far : g->packed[t.m - 1])(k, a, panel, c, last, call);
        return;
    }
    const ptrdiff_t most = g->rows[nv - 1];
    for (ptrdiff_t i = 0; i < t.m; i += most)
        g->direct[nv - 1][MIN(most, t.m - i) - 1](k, a + i * call->a_row * g->size, panel, c + i * p->c_row * g->size, last,
                                                  call);
}

// The rows i .. i+m-1 of the rectangle times a packed block of b, its panels `depth` rows apart; a as it is or packed, as call
// says. `below`: the next rows of a where they come from beyond L2, or NULL; each tile has its share of them fetched.
static void row_panel(const tw_product *p, rectangle r, ptrdiff_t k, const char *a, const char *below, const char *panels,
                      ptrdiff_t depth, tw_tile_call call, int is_last) {
    const ptrdiff_t nr = p->kernels->nr, size = p->kernels->size;
    call.below = below;
    call.below_bytes = below ? k * nr / r.n * size + 64 : 0;
    for (ptrdiff_t j = 0; j < r.n; j += nr, call.below += call.below_bytes)
        panel_tile(p, (rectangle){r.i, r.j + j, r.m, MIN(nr, r.n - j)}, k, a, panels + j * depth * size, &call);
    if (is_last)
        finish(p, r);
}

// Packs a block of b while its first row panel is computed, so that b is read once; a must lie in rows.
static void first_row_panel(const tw_product *p, rectangle r, ptrdiff_t k0, ptrdiff_t k, char *panels, tw_tile_call call,
                            int is_last) {
    const tw_gemm_kernels *g = p->kernels;
    const char *a = a_at(p, r.i, k0);
    for (ptrdiff_t j = 0; j < r.n; j += g->nr) {
        const rectangle tile = {r.i, r.j + j, g->mr, MIN(g->nr, r.n - j)};
        char *panel = panels + j * k * g->size;
        if (tile.n == g->nr) {
            call.b_row = p->b_row;
            g->fused(k, a, b_at(p, k0, tile.j), panel, c_at(p, tile.i, tile.j), &call);
        } else {
            g->pack(k, tile.n, g->nr, b_at(p, k0, tile.j), p->b_row, p->b_col, panel);
            call.b_row = g->nr;
            panel_tile(p, tile, k, a, panel, &call);
        }
    }
    if (is_last)
        finish(p, (rectangle){r.i, r.j, g->mr, r.n});
}

// A block of b, k rows by r.n columns, times all rows of the rectangle; packed into `space` where it was not beforehand.
static void block(const tw_product *p, const tw_plan *plan, rectangle r, ptrdiff_t k0, ptrdiff_t k, char *space, char *a_panels,
                  tw_tile_call call, int is_last) {
    const tw_gemm_kernels *g = p->kernels;
    const char *panels = space;
    ptrdiff_t i = 0, depth = k;
    if (plan->panels) {
        depth = p->k;
        panels = plan->panels + (r.j * depth + k0 * g->nr) * g->size;
    } else if (p->b_col == 1 && !a_panels && r.m >= g->mr) {
        first_row_panel(p, r, k0, k, space, call, is_last);
        i = g->mr;
    } else {
        g->pack(k, r.n, g->nr, b_at(p, k0, r.j), p->b_row, p->b_col, space);
    }
    call.b_row = g->nr;
    if (a_panels) {
        call.a_row = 1;
        call.a_col = g->mr;
    }
    call.b_is_far = plan->panels != NULL;
    for (; i < r.m; i += g->mr, call.b_is_far = 0) {
        const ptrdiff_t m = MIN(g->mr, r.m - i), in_group = i / g->mr % TW_A_PANELS;
        const char *a = a_at(p, r.i + i, k0);
        if (a_panels) {
            if (in_group == 0)
                g->pack(k, MIN(TW_A_PANELS * g->mr, r.m - i), g->mr, a, p->a_col, p->a_row, a_panels);
            a = a_panels + in_group * k * g->mr * g->size;
        }
        const char *below = plan->fetch_a ? a + g->mr * p->a_row * g->size : NULL;
        row_panel(p, (rectangle){r.i + i, r.j, m, r.n}, k, a, below, panels, depth, call, is_last);
    }
}

static int run_packed(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t a_bytes = plan->pack_a ? round_up(plan->kc * TW_A_PANELS * g->mr * g->size, 64) : 0;
    const ptrdiff_t bytes = a_bytes + (plan->panels ? 0 : plan->kc * round_up(plan->nc, g->nr) * g->size);
    char *space = bytes ? tw_workspace(bytes) : NULL;
    if (bytes && !space)
        return TW_NO_MEMORY;
    for (ptrdiff_t j = 0; j < r.n; j += plan->nc) {
        tw_tile_call call = call_of(p);
        for (ptrdiff_t k = 0; k < p->k; k += plan->kc) {
            block(p, plan, (rectangle){r.i, r.j + j, r.m, MIN(plan->nc, r.n - j)}, k, MIN(plan->kc, p->k - k), space + a_bytes,
                  plan->pack_a ? space : NULL, call, k + plan->kc >= p->k);
            call.beta = 1;
        }
    }
    return TW_OK;
}

int tw_run_rectangle(const tw_product *p, const tw_plan *plan, ptrdiff_t index) {
    static int (*const paths[])(const tw_product *, const tw_plan *, rectangle) = {
        [TW_DIRECT] = run_direct, [TW_STREAM] = run_stream, [TW_DOT] = run_dot, [TW_PACKED] = run_packed};
    if (plan->tile) {
        const tw_tile_call call = call_of(p);
        plan->tile(p->k, p->a, p->b, p->c, plan->last, &call);
        return TW_OK;
    }
    rectangle r = {.i = index % plan->down * plan->rows, .j = index / plan->down * plan->columns};
    r.m = MIN(plan->rows, p->m - r.i);
    r.n = MIN(plan->columns, p->n - r.j);
    return paths[plan->path](p, plan, r);
}
