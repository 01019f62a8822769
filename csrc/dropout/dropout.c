// Public dropout, which is its own derivative.
#include <math.h>

#include "../loops/elementwise.h"
#include "kernels.h"

TW_KERNELS(tw_dropout_kernels, tw_dropout_f32)
TW_KERNELS(tw_dropout_kernels, tw_dropout_f64)

#define NS 0.4  // one float32 on AVX-512, in L2

typedef struct {
    tw_dropout_map *map;
    uint64_t first, seed, threshold;
    double scale;
} context;

static void chunk(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    const context *c = job->context;
    c->map(n, c->first + (uint64_t)at, c->seed, c->threshold, c->scale, data[0], data[1]);
}

int tw_dropout(int dtype, double p, uint64_t seed, uint64_t first, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x,
               tw_matrix y) {
    if ((dtype != TW_FLOAT32 && dtype != TW_FLOAT64) || !(p >= 0 && p <= 1))
        return TW_INVALID;
    const tw_dropout_kernels *k = dtype == TW_FLOAT32 ? TW_PICK(tw_dropout_f32) : TW_PICK(tw_dropout_f64);
    const context c = {k->map, first, seed, (uint64_t)rint(p * 4294967296.0), p < 1 ? 1 / (1 - p) : 0};
    const int size = dtype == TW_FLOAT32 ? 4 : 8;
    tw_run_elementwise(&(tw_elementwise){.operands = 2, .read = 1u, .written = 1u << 1, .itemsize = size,
                                         .rows = rows, .cols = cols, .operand = {x, y}, .ns = NS, .ordered = 1,
                                         .chunk = chunk, .context = &c});
    return TW_OK;
}
