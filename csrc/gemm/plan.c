// Which way a product is computed, and into which rectangles it is cut. The path depends on the shape and the strides
// alone, never on the number of threads: that would change the bits.
#include "product.h"

#include <math.h>

#include "../threads/threads.h"
#include "packed.h"
#include "tuning.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

const char *const tw_path_names[] = {"direct", "stream", "dot", "packed"};

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }
static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; } // n > 0

// The length, a multiple of `unit`, that cuts n into as few pieces as `most` allows, of nearly the same size.
static ptrdiff_t even(ptrdiff_t n, ptrdiff_t most, ptrdiff_t unit) { return round_up(pieces(n, pieces(n, most)), unit); }

// One side has few rows and both sides are contiguous along k (b may be packed that way when it is the few).
static int wants_dot(const tw_product *p) {
    if (p->k < 2 * p->kernels->lanes || !p->b)
        return 0;
    if (p->n <= TW_MAX_DOT && p->a_col == 1 && (p->b_row == 1 || p->m >= 16))
        return 1;
    return p->m <= TW_MAX_DOT && !p->panels && p->b_row == 1 && p->n > 1 && p->b_col != 1 && p->a_col == 1;
}

// b is read in place as long as it stays in L2 while all rows of a pass, if not as a whole then slab by slab: c is read and
// written for each, so that slabs of few rows are for few rows of a (16x1024x1024: 185 GFLOP/s packed, 219 in slabs). narrower
// than a cache line read it twice, and from L2 where the rows of b clash in L1 (AVX2, 24x1024x1024: 109, 79).
static tw_path choose(const tw_product *p, const tw_gemm_tuning *t) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t row = p->n * g->size, whole = p->k * row;
    if (p->k == 0)
        return TW_DIRECT;
    if (wants_dot(p))
        return TW_DOT;
    if (p->panels)
        return tw_is_one_panel(g, p->n) ? TW_DIRECT : TW_PACKED;
    if (p->m <= g->stream_rows && whole > t->l1_bytes && p->b_col == 1 && !(g->partial_is_slow && p->n % g->lanes))
        return TW_STREAM;
    const int clash = p->b_row * g->size % 4096 == 0 && g->lanes * g->size < 64;
    const int few_rows = p->m <= g->rows[2] || (p->m <= t->stream_rows && !clash);
    const ptrdiff_t depth = few_rows ? t->stream_depth : t->column_bytes / g->size;
    return whole <= t->direct_bytes || depth * row <= t->direct_bytes || p->m <= g->rows[2] ? TW_DIRECT : TW_PACKED;
}

// About what one thread takes, in nanoseconds; eight more steps of k stand for the reading and writing of c.
static double estimate(const tw_product *p, const tw_gemm_tuning *t) {
    return (double)p->m * (double)p->n * (double)(p->k + 8) / p->kernels->lanes * t->vector_ns;
}

// About `want` rectangles of even work. A cut between columns costs no second packing of b, one between rows leaves b in long
// rows where it is read in place. Streamed rows stay together, for their number decides how they are computed.
static void cut(const tw_product *p, ptrdiff_t want, tw_plan *plan) {
    const tw_gemm_kernels *g = p->kernels;
    const int in_place = plan->path == TW_DIRECT && (plan->panels || !plan->pack_b);
    const int few_columns = plan->path == TW_DOT && p->n <= TW_MAX_DOT;
    const int few_rows = plan->path == TW_STREAM || (plan->path == TW_DOT && !few_columns);
    const int in_one = few_columns || (plan->path == TW_DIRECT && plan->panels);
    const ptrdiff_t unit = plan->panels ? g->nr : g->lanes, narrow = plan->path == TW_STREAM ? 8 * g->lanes : 2 * g->lanes;
    const ptrdiff_t least = plan->panels || p->n > 4 * g->nr ? g->nr : narrow; // streamed rows are long ones
    const ptrdiff_t most_down = few_rows ? 1 : pieces(p->m, g->mr), most_across = in_one ? 1 : pieces(p->n, least);
    ptrdiff_t across, down;
    if (in_place) {
        down = MIN(want, most_down);
        across = MIN(pieces(want, down), most_across);
    } else {
        // panels that do not share out evenly: rows do (256x1024x1024 packed beforehand, 2 threads: 447 GFLOP/s, 509)
        const int uneven = plan->panels && pieces(p->n, g->nr) % want && p->m > 4 * g->mr;
        across = MIN(uneven ? plan->threads : want, most_across);
        across -= across > plan->threads ? across % plan->threads : 0;
        down = across >= plan->threads && !uneven ? 1 : MIN(pieces(want, across), most_down);
    }
    plan->columns = round_up(pieces(p->n, across), across > 1 ? unit : 1);
    plan->across = pieces(p->n, plan->columns);
    plan->rows = round_up(pieces(p->m, down), plan->path == TW_PACKED && down > 1 ? g->mr : 1);
    plan->down = pieces(p->m, plan->rows);
}

static void find_tile(const tw_product *p, tw_plan *plan) {
    const tw_gemm_kernels *g = p->kernels;
    const ptrdiff_t nv = pieces(p->n, g->lanes);
    if (nv > TW_MAX_NV || p->m > g->rows[nv - 1] || plan->kc < p->k || plan->down * plan->across > 1 || plan->panels ||
        plan->pack_b || p->end.bias || p->end.activation || p->end.residual)
        return;
    plan->tile = g->direct[nv - 1][p->m - 1];
    plan->last = p->n - (nv - 1) * g->lanes;
}

tw_plan tw_plan_product(const tw_product *p, ptrdiff_t batches) {
    const tw_gemm_kernels *g = p->kernels;
    const tw_gemm_tuning *t = tw_gemm_tuned();
    tw_plan plan = {.path = choose(p, t)};
    plan.panels = plan.path == TW_DOT || p->k == 0 ? NULL : p->panels;
    plan.pack_b = p->b_col != 1 || (g->partial_is_slow && p->n % g->lanes);
    plan.pack_a = p->a_col != 1 && p->n > 2 * g->nr && p->m > g->mr;
    const double ns = estimate(p, t) * (double)batches;
    plan.ns = ns < t->parallel_ns ? 0 : fmax(ns, TW_PARALLEL_NS);
    plan.threads = tw_threads_for(plan.ns);
    cut(p, plan.threads == 1 ? 1 : pieces(2 * plan.threads, batches), &plan);
    if (plan.path == TW_DIRECT) {
        plan.kc = p->k == 0 ? 0 : even(p->k, MAX(t->stream_depth, t->direct_bytes / (p->n * g->size)), 8);
        find_tile(p, &plan);
    } else if (plan.path == TW_STREAM) {
        plan.nc = MAX(1, t->stream_bytes / (p->m * g->size) / g->lanes) * g->lanes;
    } else if (plan.path == TW_PACKED) {
        plan.kc = even(p->k, t->column_bytes / g->size, 8);
        plan.fetch_a = !plan.pack_a && plan.rows * plan.kc * g->size > t->l2_bytes / 2;
        plan.nc = even(plan.columns, MAX(1, t->block_bytes / (plan.kc * g->size) / g->nr) * g->nr, g->nr);
    }
    return plan;
}
