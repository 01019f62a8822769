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
#define NS_PER_FLOP_BYTE 1.6e-3 // one thread at 2.5 GHz with 64-byte vectors: 4 bytes * 2 flops at 160 GFLOP/s

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }
static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; }

// The largest multiple of `unit` that cuts n into as few pieces as `most` allows, of nearly the same size.
static ptrdiff_t even(ptrdiff_t n, ptrdiff_t most, ptrdiff_t unit) {
    return n <= 0 ? unit : round_up(pieces(n, pieces(n, most)), unit);
}

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

tw_plan tw_plan_product(const tw_product *p, ptrdiff_t batches) {
    const tw_gemm_kernels *g = p->kernels;
    const double work = (double)p->m * (double)p->n * (double)(p->k + 8);
    tw_plan plan = {.path = choose(p), .ns = work * g->size / 4 * 2 * NS_PER_FLOP_BYTE * 4 / (g->lanes * g->size / 16)};
    plan.pack_b = p->b_col != 1 || (g->partial_is_slow && p->n % g->lanes);
    plan.pack_a = p->a_col != 1 && p->n > 2 * g->nr && p->m > g->mr;
    const int threads = tw_threads_for(plan.ns * (double)batches);

    // About two rectangles a thread, columns first: a cut between columns costs no second packing of b.
    const ptrdiff_t want = threads == 1 ? 1 : pieces(2 * threads, batches > 0 ? batches : 1);
    ptrdiff_t across = MIN(want, p->m <= 2 * g->mr ? pieces(p->n, g->nr) : pieces(p->n, 2 * g->nr));
    if (plan.path == TW_DOT && p->n <= TW_MAX_DOT)
        across = 1;
    across = across < 1 ? 1 : across;
    plan.columns = even(p->n, pieces(p->n, across) ? pieces(p->n, across) : 1, g->nr);
    plan.across = p->n > 0 ? pieces(p->n, plan.columns) : 0;
    ptrdiff_t down = MIN(pieces(want, across), pieces(p->m, g->mr));
    down = down < 1 ? 1 : down;
    plan.rows = p->m > 0 ? round_up(pieces(p->m, down), g->mr) : g->mr;
    plan.down = p->m > 0 ? pieces(p->m, plan.rows) : 0;

    plan.kc = plan.path == TW_STREAM ? STREAM_K : even(p->k, g->kc, 8);
    if (plan.path == TW_STREAM) {
        plan.nc = round_up(STREAM_BYTES / (p->m * g->size), g->lanes);
        return plan;
    }
    plan.nc = even(plan.columns, l2_bytes() / 2 / (plan.kc * g->size) / g->nr * g->nr, g->nr);
    return plan;
}
