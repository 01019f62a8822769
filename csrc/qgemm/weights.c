// Public weights of 8 or 4 bits: their packing, and products with float rows.
//
//   few rows of x    panels of columns, from memory straight into registers
//   many             slabs of columns as float32 in cache, and the float product on those
#include "weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "../activation/kernels.h"
#include "../gemm/packed.h"
#include "../threads/threads.h"

TW_KERNELS(tw_weight_kernels, tw_weight)

#define MIN(a, b) ((a) < (b) ? (a) : (b))

// 2048x2048 of 4 bits, 64 rows: 2.15 ms from panels, 2.20 through slabs; 16 rows 0.52, 0.73; 256 rows 9.1, 8.5 (AVX-512).
// AVX2 the same; on 4 lanes slabs take over at 16 rows already, by a seventh.
#define FEW_ROWS 64
#define SLAB_BYTES ((ptrdiff_t)1 << 20) // of float32, at least; they stay in L2
#define SLAB_COLUMNS 192                // at least: panels of both kinds, 64 and 48 columns wide, come out even

#define WEIGHT_NS 0.013  // one weight of a panel in L2 on AVX-512, and each row that it is multiplied with
#define PRODUCT_NS 0.006

static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; }
static ptrdiff_t panels_of(const tw_weight_layout *w) { return pieces(w->n, w->kernels->width); }

// Panels in a slab: as many slabs as there must be, even ones. w must have elements.
static ptrdiff_t slab_panels(const tw_weight_layout *w) {
    const ptrdiff_t columns = SLAB_BYTES / (ptrdiff_t)sizeof(float) / w->k / SLAB_COLUMNS * SLAB_COLUMNS;
    const ptrdiff_t most = (columns > SLAB_COLUMNS ? columns : SLAB_COLUMNS) / w->kernels->width;
    return pieces(panels_of(w), pieces(panels_of(w), most));
}

// About what m rows take on one thread.
static double estimate(const tw_weight_layout *w, ptrdiff_t m) {
    return (double)w->n * (double)w->k * (WEIGHT_NS + PRODUCT_NS * (double)m);
}

// ---- packing

static int lay_out(const tw_weights *w, tw_weight_layout *to, size_t *bytes) {
    if ((w->bits != 8 && w->bits != 4) || w->n < 0 || w->k < 0 || (w->group_size < 1 && w->k > 0))
        return 0;
    const tw_weight_kernels *g = TW_PICK(tw_weight);
    const ptrdiff_t depth = 32 / w->bits, size = w->k ? MIN(w->group_size, w->k) : 1, whole = w->k / size, last = w->k % size;
    const size_t blocks = (size_t)whole * pieces(size, depth) + pieces(last, depth), groups = whole + (last > 0);
    const size_t width = g->width, head = width * (w->zeros ? 5 : 4);
    size_t panel; // of a k that is no count of elements in memory, the products may overflow
    if (__builtin_mul_overflow(blocks, width * 4, &panel) || groups > (SIZE_MAX / 2 - panel) / head ||
        __builtin_mul_overflow(panel += groups * head, (size_t)pieces(w->n, g->width), bytes) ||
        __builtin_add_overflow(*bytes, (size_t)2 * TW_LINE, bytes) || *bytes > PTRDIFF_MAX)
        return 0;
    *to = (tw_weight_layout){g, w->n, w->k, size, w->bits, (int)depth, w->zeros != NULL, (ptrdiff_t)panel};
    return 1;
}

size_t tw_pack_weights_bytes(const tw_weights *w) {
    tw_weight_layout layout;
    size_t bytes;
    return lay_out(w, &layout, &bytes) ? bytes : 0;
}

typedef struct {
    const tw_weights *from;
    const tw_weight_layout *layout;
    char *panels;
} packing;

#define CHUNK 128 // k at a time: a line or two of each row of values, and as much of the panel, stay in L1

// The k numbers p .. of `columns` rows of values, from row j on, into blocks of zeros.
static void pack_blocks(const packing *s, ptrdiff_t j, ptrdiff_t columns, ptrdiff_t p, ptrdiff_t k, char *blocks) {
    const ptrdiff_t width = s->layout->kernels->width, row = s->layout->bits == 8 ? s->from->k : pieces(s->from->k, 2);
    const uint8_t *values = (const uint8_t *)s->from->values + j * row;
    for (ptrdiff_t chunk = 0; chunk < k; chunk += CHUNK)
        for (ptrdiff_t column = 0; column < columns; column++) {
            const uint8_t *from = values + column * row;
            uint32_t *lanes = (uint32_t *)blocks + column;
            for (ptrdiff_t t = chunk; t < MIN(chunk + CHUNK, k); t++)
                if (s->layout->bits == 8)
                    blocks[t * width + column] = (char)from[p + t];
                else
                    lanes[t / 8 * width] |= (uint32_t)((from[(p + t) / 2] >> (p + t) % 2 * 4 & 15) ^ 8) << t % 8 * 4;
        }
}

static void pack_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const packing *s = context;
    const tw_weight_layout *w = s->layout;
    const ptrdiff_t width = w->kernels->width, groups = w->k ? pieces(w->k, w->group_size) : 0;
    for (ptrdiff_t panel = begin; panel < end; panel++) {
        const ptrdiff_t j = panel * width, columns = MIN(width, w->n - j);
        char *at = s->panels + panel * w->panel_bytes;
        memset(at, 0, w->panel_bytes);
        for (ptrdiff_t group = 0; group < groups; group++) {
            const ptrdiff_t p = group * w->group_size, k = MIN(w->group_size, w->k - p);
            for (ptrdiff_t c = 0; c < columns; c++) ((float *)at)[c] = s->from->scales[(j + c) * groups + group];
            at += width * sizeof(float);
            if (w->has_zeros) {
                for (ptrdiff_t c = 0; c < columns; c++) at[c] = s->from->zeros[(j + c) * groups + group];
                at += width;
            }
            pack_blocks(s, j, columns, p, k, at);
            at += pieces(k, w->depth) * width * 4;
        }
    }
}

int tw_pack_weights(const tw_weights *w, void *packed) {
    tw_weight_layout *layout = (tw_weight_layout *)tw_packed_start(packed);
    size_t bytes;
    if (!lay_out(w, layout, &bytes))
        return TW_INVALID;
    packing s = {w, layout, (char *)layout + TW_LINE};
    _Static_assert(sizeof *layout <= TW_LINE, "the panels begin one line behind the layout");
    tw_parallel_ranges(panels_of(layout), 1, (double)w->n * (double)w->k, pack_range, &s);
    return TW_OK;
}

// ---- products

typedef struct {
    const tw_weight_only_call *call;
    const tw_weight_layout *layout;
    const char *panels;
    tw_weight_rows rows; // few rows only
    ptrdiff_t slab; // panels in one; many rows only
    tw_activate *activation;
    double param;
    atomic_int code;
} product;

static float *at(const tw_matrix *m, ptrdiff_t i, ptrdiff_t j) { return (float *)m->data + i * m->row + j * m->col; }

static tw_matrix shifted(tw_matrix m, ptrdiff_t j) { return (tw_matrix){at(&m, 0, j), m.row, m.col}; }

// y[i][j ..] = activation(sums + bias) + residual
static void finish_row(const product *s, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n, float *sums) {
    const tw_weight_only_call *call = s->call;
    const ptrdiff_t bias_step = call->bias_step, from_col = call->residual.col, to_col = call->y.col;
    if (call->bias)
        for (ptrdiff_t c = 0; c < n; c++) sums[c] += call->bias[(j + c) * bias_step];
    if (s->activation)
        s->activation(n, sums, sums, s->param);
    if (call->residual.data) {
        const float *from = at(&call->residual, i, j);
        for (ptrdiff_t c = 0; c < n; c++) sums[c] += from[c * from_col];
    }
    float *to = at(&call->y, i, j);
    for (ptrdiff_t c = 0; c < n; c++) to[c * to_col] = sums[c];
}

static void run_slab(void *context, ptrdiff_t slab) {
    product *s = context;
    const tw_weight_layout *w = s->layout;
    const tw_weight_only_call *call = s->call;
    const ptrdiff_t width = w->kernels->width, j = slab * s->slab * width, row = s->slab * width, n = MIN(row, w->n - j);
    float *b = tw_third_workspace(w->k * row * sizeof *b);
    if (!b) {
        atomic_store_explicit(&s->code, TW_NO_MEMORY, memory_order_relaxed);
        return;
    }
    for (ptrdiff_t c = 0; c < n; c += width)
        w->kernels->expand[w->bits == 4](w, s->panels + (j + c) / width * w->panel_bytes, b + c, row);
    const int code = tw_gemm(&(tw_gemm_call){
        .dtype = TW_FLOAT32, .activation = call->activation, .m = call->m, .n = n, .k = call->k, .a = call->x,
        .b = {b, row, 1}, .c = shifted(call->y, j), .alpha = 1, .bias = call->bias ? call->bias + j * call->bias_step : NULL,
        .bias_step = call->bias_step, .residual = call->residual.data ? shifted(call->residual, j) : call->residual});
    if (code)
        atomic_store_explicit(&s->code, code, memory_order_relaxed);
}

static int run_many_rows(product *s) {
    const tw_weight_layout *w = s->layout;
    s->slab = slab_panels(w);
    tw_parallel(pieces(panels_of(w), s->slab), estimate(w, s->call->m), run_slab, s);
    return atomic_load_explicit(&s->code, memory_order_relaxed);
}

static void run_panels(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const product *s = context;
    const tw_weight_layout *w = s->layout;
    const tw_weight_kernels *g = w->kernels;
    const ptrdiff_t m = s->call->m, tiles = pieces(m, g->rows);
    tw_weight_tile *const *tile = g->tile[w->bits == 4];
    float sums[TW_WEIGHT_ROWS * TW_WEIGHT_WIDTH];
    for (ptrdiff_t panel = begin; panel < end; panel++) {
        const ptrdiff_t j = panel * g->width;
        for (ptrdiff_t t = 0; t < tiles; t++) {
            const ptrdiff_t i = t * m / tiles, rows = (t + 1) * m / tiles - i;
            tw_weight_rows part = s->rows;
            part.x += i * part.x_row;
            part.sums += i * part.sums_row;
            tile[rows - 1](w, s->panels + panel * w->panel_bytes, &part, sums);
            for (ptrdiff_t r = 0; r < rows; r++) finish_row(s, i + r, j, MIN(g->width, w->n - j), sums + r * g->width);
        }
    }
}

// The rows of x as tiles read them: a copy where they are strided along k. TW_INVALID: weights and zeros cannot be multiplied
// apart, an infinity in x would meet itself.
static int prepare_rows(product *s) {
    const tw_weight_only_call *call = s->call;
    const tw_weight_layout *w = s->layout;
    const ptrdiff_t k = call->x.col != 1 ? call->k : 0, groups = w->has_zeros ? pieces(w->k, w->group_size) : 0;
    s->rows = (tw_weight_rows){.x = call->x.data, .x_row = call->x.row};
    if (k + groups == 0)
        return TW_OK;
    float *copy = tw_workspace(call->m * (k + groups) * sizeof *copy), *sums = copy + call->m * k;
    if (!copy)
        return TW_NO_MEMORY;
    for (ptrdiff_t i = 0; i < call->m; i++)
        for (ptrdiff_t p = 0; p < k; p++) copy[i * k + p] = *at(&call->x, i, p);
    if (k)
        s->rows.x = copy, s->rows.x_row = k;
    s->rows.sums = sums, s->rows.sums_row = groups;
    if (groups)
        for (ptrdiff_t i = 0; i < call->m; i++) w->kernels->sum_groups(w, s->rows.x + i * s->rows.x_row, sums + i * groups);
    for (ptrdiff_t i = 0; i < call->m * groups; i++)
        if (!isfinite(sums[i]))
            return TW_INVALID;
    return TW_OK;
}

static int run_few_rows(product *s) {
    const tw_weight_only_call *call = s->call;
    const int prepared = prepare_rows(s);
    if (prepared != TW_OK)
        return prepared == TW_INVALID ? run_many_rows(s) : prepared;
    if (call->activation != TW_NONE)
        s->activation = tw_activation_kernel(TW_FLOAT32, call->activation, &s->param);
    tw_parallel_ranges(panels_of(s->layout), 1, estimate(s->layout, call->m), run_panels, s);
    return TW_OK;
}

static int is_valid(const tw_weight_only_call *call, const tw_weight_layout *w) {
    return call->m >= 0 && call->n >= 0 && call->k >= 0 && call->activation >= TW_NONE && call->activation <= TW_HARDSWISH &&
           w->kernels == TW_PICK(tw_weight) && w->n == call->n && w->k == call->k;
}

static int is_few(const tw_weight_layout *w, ptrdiff_t m) { return m <= FEW_ROWS || w->n == 0 || w->k == 0; }

int tw_weight_only_linear(const tw_weight_only_call *call) {
    const tw_weight_layout *w = (const tw_weight_layout *)tw_packed_start(call->packed);
    if (!is_valid(call, w))
        return TW_INVALID;
    if (call->m == 0 || call->n == 0)
        return TW_OK;
    product s = {.call = call, .layout = w, .panels = (const char *)w + TW_LINE, .code = TW_OK};
    return is_few(w, call->m) ? run_few_rows(&s) : run_many_rows(&s);
}

int tw_weight_only_describe(const void *packed, ptrdiff_t m, char *text, size_t size) {
    const tw_weight_layout *w = (const tw_weight_layout *)tw_packed_start(packed);
    const int few = is_few(w, m), threads = tw_threads_for(estimate(w, m));
    const ptrdiff_t panels = few ? 1 : slab_panels(w), tasks = pieces(panels_of(w), panels);
    const int used = threads > tasks && (few || tasks > 1) ? (int)tasks : threads; // one slab: the float product has threads
    snprintf(text, size, "%s, %s of %td columns, %d thread%s", tw_isa(), few ? "panels" : "slabs in float32",
             panels * w->kernels->width, used, used == 1 ? "" : "s");
    return TW_OK;
}
