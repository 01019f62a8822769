// The loops around the microkernels: one rectangle of c, on one thread, along each path.
#include "product.h"

#include "../threads/threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

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

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }

static void finish(const tw_product *p, rectangle r) {
    if (p->end.bias)
        p->kernels->add_bias(r.m, r.n, (const char *)p->end.bias + r.j * p->kernels->size, c_at(p, r.i, r.j), p->c_row);
    if (p->end.activation)
        for (ptrdiff_t i = r.i; i < r.i + r.m; i++)
            p->end.activation(r.n, c_at(p, i, r.j), c_at(p, i, r.j), p->end.param);
}

// Tiles down a column block of nv vectors; b has rows call->b_row apart.
static void column_block(const tw_product *p, rectangle r, ptrdiff_t nv, ptrdiff_t k0, ptrdiff_t k, const char *b,
                         const tw_tile_call *call) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t most = g->rows[nv - 1], panels = (r.m + most - 1) / most, last = r.n - (nv - 1) * g->lanes;
    for (ptrdiff_t panel = 0, i = 0; panel < panels; panel++) {
        const ptrdiff_t m = (r.m - i + panels - panel - 1) / (panels - panel);
        g->direct[nv - 1][m - 1](k, a_at(p, r.i + i, k0), b, c_at(p, r.i + i, r.j), last, call);
        i += m;
    }
}

// All column blocks of a rectangle for rows k0 .. k0+k-1 of b: one block of up to 4 vectors, else blocks of up to 3.
static void column_blocks(const tw_product *p, rectangle r, ptrdiff_t k0, ptrdiff_t k, char *panel, tw_tile_call *call) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t vectors = (r.n + g->lanes - 1) / g->lanes, blocks = vectors <= TW_MAX_NV ? 1 : (vectors + 2) / 3;
    const ptrdiff_t end = r.j + r.n;
    for (ptrdiff_t block = 0, left = vectors; block < blocks; block++) {
        const ptrdiff_t nv = (left + blocks - block - 1) / (blocks - block);
        r.n = MIN(nv * g->lanes, end - r.j);
        const char *b = b_at(p, k0, r.j);
        if (panel) {
            call->b_row = nv * g->lanes;
            g->pack(k, r.n, call->b_row, b, p->b_row, p->b_col, panel);
            b = panel;
        }
        column_block(p, r, nv, k0, k, b, call);
        left -= nv;
        r.j += r.n;
    }
}

static int run_direct(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    tw_tile_call call = {p->a_row, p->a_col, p->b_row, p->c_row, p->alpha, p->beta};
    char *panel = NULL;
    if (plan->pack_b && p->k > 0) {
        panel = tw_workspace(p->k * TW_MAX_NV * g->lanes * g->size);
        if (!panel)
            return TW_NO_MEMORY;
    }
    column_blocks(p, r, 0, p->k, panel, &call);
    finish(p, r);
    return TW_OK;
}

static int run_stream(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    tw_tile_call call = {p->a_row, p->a_col, p->b_row, p->c_row, p->alpha, p->beta};
    if (r.m <= g->stream_rows) {
        for (ptrdiff_t j = 0; j < r.n; j += plan->nc)
            g->stream[r.m - 1](p->k, MIN(plan->nc, r.n - j), a_at(p, r.i, 0), b_at(p, 0, r.j + j), c_at(p, r.i, r.j + j), &call);
        finish(p, r);
        return TW_OK;
    }
    for (ptrdiff_t k = 0; k < p->k; k += plan->kc) {
        column_blocks(p, r, k, MIN(plan->kc, p->k - k), NULL, &call);
        call.beta = 1;
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
    if (few_columns && p->b_row != 1) {
        char *panel = tw_workspace(width * p->k * g->size);
        if (!panel)
            return TW_NO_MEMORY;
        g->pack(width, p->k, p->k, few, p->b_col, p->b_row, panel);
        few = panel;
        few_row = p->k;
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
static void panel_tile(const tw_product *p, rectangle t, ptrdiff_t k, const char *a, const char *panel, const tw_tile_call *call) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t nv = (t.n + g->lanes - 1) / g->lanes, last = t.n - (nv - 1) * g->lanes;
    char *c = c_at(p, t.i, t.j);
    if (nv * g->lanes == g->nr) {
        g->packed[t.m - 1](k, a, panel, c, last, call);
        return;
    }
    const ptrdiff_t most = g->rows[nv - 1];
    for (ptrdiff_t i = 0; i < t.m; i += most)
        g->direct[nv - 1][MIN(most, t.m - i) - 1](k, a + i * call->a_row * g->size, panel, c + i * p->c_row * g->size, last, call);
}

// A block of b, k rows by r.n columns, times all rows of the rectangle.
static void block(const tw_product *p, rectangle r, ptrdiff_t k0, ptrdiff_t k, char *panels, char *a_panel, tw_tile_call call,
                  int is_last) {
    const tw_gemm_kernels *g = p->kernels;
    const int fuse = p->b_col == 1 && !a_panel && r.m >= g->mr;
    for (ptrdiff_t j = 0; j < r.n; j += g->nr) {
        const ptrdiff_t n = MIN(g->nr, r.n - j);
        char *panel = panels + j * k * g->size;
        if (fuse && n == g->nr) {
            call.b_row = p->b_row;
            g->fused(k, a_at(p, r.i, k0), b_at(p, k0, r.j + j), panel, c_at(p, r.i, r.j + j), &call);
        } else {
            g->pack(k, n, g->nr, b_at(p, k0, r.j + j), p->b_row, p->b_col, panel);
            call.b_row = g->nr;
            if (fuse)
                panel_tile(p, (rectangle){r.i, r.j + j, g->mr, n}, k, a_at(p, r.i, k0), panel, &call);
        }
    }
    call.b_row = g->nr;
    if (fuse && is_last)
        finish(p, (rectangle){r.i, r.j, g->mr, r.n});
    if (a_panel) {
        call.a_row = 1;
        call.a_col = g->mr;
    }
    for (ptrdiff_t i = fuse ? g->mr : 0; i < r.m; i += g->mr) {
        const ptrdiff_t m = MIN(g->mr, r.m - i);
        const char *a = a_at(p, r.i + i, k0);
        if (a_panel) {
            g->pack(k, m, g->mr, a, p->a_col, p->a_row, a_panel);
            a = a_panel;
        }
        for (ptrdiff_t j = 0; j < r.n; j += g->nr)
            panel_tile(p, (rectangle){r.i + i, r.j + j, m, MIN(g->nr, r.n - j)}, k, a, panels + j * k * g->size, &call);
        if (is_last)
            finish(p, (rectangle){r.i + i, r.j, m, r.n});
    }
}

static int run_packed(const tw_product *p, const tw_plan *plan, rectangle r) {
    const tw_gemm_kernels *g = p->kernels;
    const size_t a_bytes = plan->pack_a ? (size_t)(plan->kc * g->mr * g->size + 63) / 64 * 64 : 0;
    char *space = tw_workspace(a_bytes + (size_t)plan->kc * round_up(plan->nc, g->nr) * g->size);
    if (!space)
        return TW_NO_MEMORY;
    for (ptrdiff_t j = 0; j < r.n; j += plan->nc) {
        tw_tile_call call = {p->a_row, p->a_col, p->b_row, p->c_row, p->alpha, p->beta};
        for (ptrdiff_t k = 0; k < p->k; k += plan->kc) {
            block(p, (rectangle){r.i, r.j + j, r.m, MIN(plan->nc, r.n - j)}, k, MIN(plan->kc, p->k - k), space + a_bytes,
                  plan->pack_a ? space : NULL, call, k + plan->kc >= p->k);
            call.beta = 1;
        }
    }
    return TW_OK;
}

int tw_run_rectangle(const tw_product *p, const tw_plan *plan, ptrdiff_t index) {
    static int (*const paths[])(const tw_product *, const tw_plan *, rectangle) = {
        [TW_DIRECT] = run_direct, [TW_STREAM] = run_stream, [TW_DOT] = run_dot, [TW_PACKED] = run_packed};
    rectangle r = {.i = index % plan->down * plan->rows, .j = index / plan->down * plan->columns};
    r.m = MIN(plan->rows, p->m - r.i);
    r.n = MIN(plan->columns, p->n - r.j);
    return paths[plan->path](p, plan, r);
}
