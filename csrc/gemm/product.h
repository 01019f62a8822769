// The driver's view of one product and of the way it will be computed.
#ifndef TW_GEMM_PRODUCT_H
#define TW_GEMM_PRODUCT_H

#include "../activation/kernels.h"
#include "kernels.h"

// What happens to rows of c once they hold their sums, while they are in cache: + bias, the activation, + residual.
typedef struct {
    const char *bias;        // n elements, or NULL
    tw_activate *activation; // in place, or NULL
    double param;            // of the activation
    const char *residual;    // (m, n) with contiguous rows, apart from c, or NULL
    ptrdiff_t residual_row;
} tw_epilogue;

// c = alpha a b + beta c: a (m, k), b (k, n), c (m, n); strides in elements, c's rows contiguous; `batches` of them.
typedef struct {
    const tw_gemm_kernels *kernels;
    ptrdiff_t m, n, k;
    const char *a, *b;
    const char *panels; // of b, packed beforehand, or NULL; with them b may be NULL
    char *c;
    ptrdiff_t a_row, a_col, b_row, b_col, c_row;
    double alpha, beta;
    tw_epilogue end;
} tw_product;

// How a rectangle of c is computed.
//   DIRECT  tiles straight from b, or from a panel of it packed for the occasion; small sizes
//   STREAM  a few rows: b passes once, some rows of it at a time, and c stays in cache
//   DOT     vectors along k, where one side has at most 10 rows and both are contiguous along k
//   PACKED  b in panels of nr columns that fill the L2 cache, a read in place (packed where its rows are not contiguous)
// Where b was packed beforehand: DIRECT for a b of one panel, PACKED for others; DOT where few columns make that faster.
typedef enum { TW_DIRECT, TW_STREAM, TW_DOT, TW_PACKED } tw_path;

typedef struct {
    tw_path path;
    ptrdiff_t rows, columns;   // of a rectangle: the unit of work that threads take
    ptrdiff_t down, across;    // rectangles in a column and in a row of c
    ptrdiff_t kc, nc;          // PACKED: the block of b; STREAM: kc rows of b at a time
    int pack_a, pack_b;        // DIRECT, DOT: b (or the smaller side) goes through a packed panel
    tw_tile *tile;             // DIRECT: the one tile that is all of the product, or NULL: many small ones in a call
    ptrdiff_t last;            // its last argument
    int fetch_a;               // PACKED: the rows of a that pass come from beyond L2
    const char *panels;        // DIRECT, PACKED: of all of b, where it was packed beforehand
    double ns;                 // that all of the batch takes, about; 0 where it is not worth a second thread
    int threads;               // that are worth having
} tw_plan;

tw_plan tw_plan_product(const tw_product *p, ptrdiff_t batches);

// Computes rectangle `index` of the plan; TW_OK or TW_NO_MEMORY.
int tw_run_rectangle(const tw_product *p, const tw_plan *plan, ptrdiff_t index);

extern const char *const tw_path_names[];

#endif
