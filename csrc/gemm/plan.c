// Which way a product is computed, and into which rectangles it is cut. The path depends on the shape and the strides
// alone, never on the number of threads: that would change the bits.
#include "product.h"

#include <stdatomic.h>
#include <unistd.h>

#include "../threads/threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

const char *const tw_path_names[] = {"direct", "stream", "dot", "packed"};

// Measured on AVX-512 with 48 KiB of L1 and 1 MiB of L2 (bench/ repeats it).
#define DIRECT_BYTES (64 << 10) // b may have this many bytes to be used in place
#define STREAM_ROWS 12          // m up to which b is not worth packing
#define STREAM_BYTES (16 << 10) // of c that stay in L1 while b passes
#define STREAM_K 16             // rows of b that pass at a time
#define NS_PER_PRODUCT 0.0125   // with 16 lanes: 160 GFLOP/s
#define AVX512_LANES 16.0

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }
static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; } // n > 0

// The length, a multiple of `unit`, that cuts n into as few pieces as `most` allows, of nearly the same size.
static ptrdiff_t even(ptrdiff_t n, ptrdiff_t most, ptrdiff_t unit) { return round_up(pieces(n, pieces(n, most)), unit); }

static ptrdiff_t l2_bytes(void) {
    static atomic_long known;
    long bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (!bytes) {
#ifdef _SC_LEVEL2_CACHE_SIZE
        bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        if (bytes < 256 << 10)
            bytes = 512 << 10;
        atomic_store_explicit(&known, bytes, memory_order_relaxed);
    }
    return bytes;
}

// One side has few rows and both sides are contiguous along k (b may be packed that way when it is the few).
static int wants_dot(const tw_product *p) {
    if (p->k < 2 * p->kernels->lanes)
        return 0;
    if (p->n <= TW_MAX_DOT && p->a_col == 1 && (p->b_row == 1 || p->m >= 16))
        return 1;
    return p->m <= TW_MAX_DOT && p->b_row == 1 && p->n > 1 && p->b_col != 1 && p->a_col == 1;
}

static tw_path choose(const tw_product *p) {
    const tw_gemm_kernels *g = p->kernels;
    if (p->k == 0)
        return TW_DIRECT;
    if (wants_dot(p))
        return TW_DOT;
    if (p->m <= STREAM_ROWS && p->b_col == 1 && !(g->partial_is_slow && p->n % g->lanes))
        return p->k * p->n * g->size > DIRECT_BYTES ? TW_STREAM : TW_DIRECT;
    return p->k * p->n * g->size <= DIRECT_BYTES && p->k <= 2 * g->kc ? TW_DIRECT : TW_PACKED;
}

// About what one thread takes, in nanoseconds; eight more steps of k stand for the reading and writing of c.
static double estimate(const tw_product *p) {
    const double products = (double)p->m * (double)p->n * (double)(p->k + 8);
    return products * NS_PER_PRODUCT * (AVX512_LANES / p->kernels->lanes);
}

// About `want` rectangles, columns first: a cut between columns costs no second packing of b. Streamed rows stay together,
// for their number decides how they are computed.
static void cut(const tw_product *p, ptrdiff_t want, tw_plan *plan) {
    const tw_gemm_kernels *g = p->kernels;
    const int narrow = p->n <= 2 * g->nr, few_columns = plan->path == TW_DOT && p->n <= TW_MAX_DOT;
    const ptrdiff_t unit = narrow ? 2 * g->lanes : g->nr, least = narrow || p->m <= 2 * g->mr ? unit : 2 * unit;
    const ptrdiff_t across = few_columns ? 1 : MIN(want, pieces(p->n, least));
    const ptrdiff_t down = plan->path == TW_STREAM ? 1 : MIN(pieces(want, across), pieces(p->m, g->mr));
    plan->columns = round_up(pieces(p->n, across), across > 1 ? unit : 1);
    plan->across = pieces(p->n, plan->columns);
    plan->rows = round_up(pieces(p->m, down), down > 1 ? g->mr : 1);
    plan->down = pieces(p->m, plan->rows);
}

tw_plan tw_plan_product(const tw_product *p, ptrdiff_t batches) {
    const tw_gemm_kernels *g = p->kernels;
    tw_plan plan = {.path = choose(p), .ns = estimate(p)};
    plan.pack_b = p->b_col != 1 || (g->partial_is_slow && p->n % g->lanes);
    plan.pack_a = p->a_col != 1 && p->n > 2 * g->nr && p->m > g->mr;
    const int threads = tw_threads_for(plan.ns * (double)batches);
    cut(p, threads == 1 ? 1 : pieces(2 * threads, batches), &plan);
    if (plan.path == TW_STREAM) {
        plan.kc = STREAM_K;
        plan.nc = round_up(STREAM_BYTES / (p->m * g->size), g->lanes);
    } else if (plan.path == TW_PACKED) {
        plan.kc = MIN(p->k, even(p->k, g->kc, 8));
        plan.nc = even(plan.columns, l2_bytes() / 2 / (plan.kc * g->size) / g->nr * g->nr, g->nr);
    }
    return plan;
}
