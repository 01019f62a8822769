// tw_gemm: from the call as the user makes it to products that the plan understands, and their rectangles to threads.
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../isa/isa.h"
#include "../threads/threads.h"
#include "gemm.h"
#include "packed.h"
#include "product.h"

TW_KERNELS(tw_gemm_kernels, tw_gemm_f32)
TW_KERNELS(tw_gemm_kernels, tw_gemm_f64)

// The batch axes of a call, those left out that have length 1, and those that follow one another in memory joined into one.
typedef struct {
    int axes;
    ptrdiff_t count;
    ptrdiff_t shape[TW_MAX_BATCH_AXES], a[TW_MAX_BATCH_AXES], b[TW_MAX_BATCH_AXES], c[TW_MAX_BATCH_AXES];
} batch;

static int goes_on(const batch *s, int axis, ptrdiff_t length, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c) {
    return s->a[axis] == length * a && s->b[axis] == length * b && s->c[axis] == length * c;
}

static int read_batch(const tw_gemm_call *call, batch *out) {
    out->axes = 0;
    out->count = 1;
    for (int i = 0; i < call->batch_axes; i++) {
        const ptrdiff_t length = call->batch_shape[i], a = call->a_batch[i], b = call->b_batch[i], c = call->c_batch[i];
        if (length == 1)
            continue;
        out->count *= length;
        const int joins = out->axes > 0 && goes_on(out, out->axes - 1, length, a, b, c);
        if (!joins && out->axes == TW_MAX_BATCH_AXES)
            return 0;
        const int axis = joins ? out->axes - 1 : out->axes++;
        out->shape[axis] = joins ? out->shape[axis] * length : length;
        out->a[axis] = a;
        out->b[axis] = b;
        out->c[axis] = c;
    }
    return 1;
}

// The last batch axis joins the rows where b is the same for all of it and the rows of a and c go on at their stride.
static void fold_batch_into_rows(tw_product *p, batch *s) {
    while (s->axes > 0) {
        const int last = s->axes - 1;
        if (s->b[last] != 0 || s->a[last] != p->m * p->a_row || s->c[last] != p->m * p->c_row)
            return;
        p->m *= s->shape[last];
        s->count /= s->shape[last];
        s->axes--;
    }
}

static void transpose(tw_product *p, batch *s) {
    tw_product t = *p;
    for (int axis = 0; axis < s->axes; axis++) {
        const ptrdiff_t a = s->a[axis];
        s->a[axis] = s->b[axis];
        s->b[axis] = a;
    }
    t.m = p->n, t.n = p->m;
    t.a = p->b, t.a_row = p->b_col, t.a_col = p->b_row;
    t.b = p->a, t.b_row = p->a_col, t.b_col = p->a_row;
    t.panels = NULL;
    *p = t;
}

typedef struct {
    const tw_product *product;
    const tw_plan *plan;
    const batch *batch;
    ptrdiff_t rectangles;
    atomic_int code;
} job;

static void move(tw_product *p, const batch *s, int axis, ptrdiff_t steps) {
    p->a += steps * s->a[axis] * p->kernels->size;
    p->b += steps * s->b[axis] * p->kernels->size;
    p->c += steps * s->c[axis] * p->kernels->size;
}

// Rectangles number begin .. end-1, those of the first product first.
static void run_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    job *j = context;
    const batch *s = j->batch;
    tw_product p = *j->product;
    ptrdiff_t at[TW_MAX_BATCH_AXES], rectangle = begin % j->rectangles, index = begin / j->rectangles;
    for (int axis = s->axes - 1; axis >= 0; axis--) {
        at[axis] = index % s->shape[axis];
        index /= s->shape[axis];
        move(&p, s, axis, at[axis]);
    }
    for (ptrdiff_t task = begin; task < end; task++) {
        const int code = tw_run_rectangle(&p, j->plan, rectangle);
        if (code)
            atomic_store_explicit(&j->code, code, memory_order_relaxed);
        rectangle++;
        for (int axis = s->axes - 1; axis >= 0 && rectangle == j->rectangles; axis--) {
            at[axis]++;
            move(&p, s, axis, 1);
            if (at[axis] < s->shape[axis]) {
                rectangle = 0;
            } else {
                move(&p, s, axis, -at[axis]);
                at[axis] = 0;
            }
        }
    }
}

static int is_residual_c(const tw_gemm_call *call) {
    const tw_matrix *r = &call->residual, *c = &call->c;
    return r->data && r->data == c->data && r->row == c->row && r->col == c->col;
}

// Whether what finishes the rows of c cannot be read along them, or would be overwritten by them.
static int needs_copies(const tw_gemm_call *call) {
    return (call->bias && call->bias_step != 1 && call->n > 1) ||
           (call->residual.data && call->residual.col != 1 && call->n > 1 && !is_residual_c(call)) ||
           (is_residual_c(call) && call->activation != TW_NONE);
}

// The product of a call whose c has contiguous rows or columns: fills in *p and *s, transposed where that helps.
// 0: c has neither, or has contiguous columns but also an epilogue along its rows.
static int normal_product(const tw_gemm_call *call, tw_product *p, batch *s) {
    *p = (tw_product){
        .kernels = call->dtype == TW_FLOAT64 ? TW_PICK(tw_gemm_f64) : TW_PICK(tw_gemm_f32),
        .m = call->m, .n = call->n, .k = call->alpha == 0 ? 0 : call->k,
        .a = call->a.data, .b = call->b.data, .c = call->c.data,
        .a_row = call->a.row, .a_col = call->a.col, .b_row = call->b.row, .b_col = call->b.col, .c_row = call->c.row,
        .alpha = call->k == 0 ? 0 : call->alpha, .beta = call->beta,
        .end = {.bias = call->bias},
        .panels = tw_panels(call->packed),
    };
    if (call->activation != TW_NONE)
        p->end.activation = tw_activation_kernel(call->dtype, call->activation, &p->end.param);
    if (is_residual_c(call)) { // c before the activation, of which there is none
        p->beta += 1;
    } else if (call->residual.data) {
        p->end.residual = call->residual.data;
        p->end.residual_row = call->residual.row;
    }
    const int plain_end = !p->end.bias && !p->end.activation && !p->end.residual;
    const int rows = call->c.col == 1 || p->n == 1, may_transpose = (call->c.row == 1 || p->m == 1) && plain_end && p->b;
    if (!rows && !may_transpose)
        return 0;
    // a column times a column-major matrix is a row times a row-major one
    const int column = p->n == 1 && p->m > 1 && may_transpose && p->a_col != 1;
    if (!rows || column) {
        transpose(p, s);
        p->c_row = call->c.col;
    } else {
        fold_batch_into_rows(p, s);
    }
    return 1;
}

static int run(const tw_product *p, const batch *s) {
    const tw_plan plan = tw_plan_product(p, s->count);
    if (plan.down * plan.across == 1 && s->count == 1)
        return tw_run_rectangle(p, &plan, 0);
    job j = {p, &plan, s, plan.down * plan.across, TW_OK};
    tw_parallel_ranges(j.rectangles * s->count, 1, plan.ns, run_range, &j);
    return atomic_load_explicit(&j.code, memory_order_relaxed);
}

static int is_valid(const tw_gemm_call *call) {
    if (call->m < 0 || call->n < 0 || call->k < 0 || call->dtype < TW_FLOAT32 || call->dtype > TW_BFLOAT16 ||
        call->activation < TW_NONE || call->activation > TW_HARDSWISH || call->batch_axes < 0 ||
        (call->residual.data && call->batch_axes > 0) || (call->packed && !tw_packed_fits(call)))
        return 0;
    for (int i = 0; i < call->batch_axes; i++)
        if (call->batch_shape[i] < 0 || (call->packed && call->batch_shape[i] > 1 && call->b_batch[i]))
            return 0;
    return 1;
}

static int is_empty(const tw_gemm_call *call) {
    for (int i = 0; i < call->batch_axes; i++)
        if (call->batch_shape[i] == 0)
            return 1;
    return call->m == 0 || call->n == 0;
}

int tw_gemm(const tw_gemm_call *call) {
    tw_product p;
    batch s;
    if (!is_valid(call))
        return TW_INVALID;
    if (is_empty(call))
        return TW_OK;
    if (!read_batch(call, &s))
        return TW_INVALID;
    if (call->dtype > TW_FLOAT64 || needs_copies(call) || !normal_product(call, &p, &s))
        return tw_gemm_through_copies(call);
    return run(&p, &s);
}

int tw_gemm_describe(const tw_gemm_call *call, char *text, size_t size) {
    tw_product p;
    batch s;
    tw_gemm_call seen = *call;
    const char *how = "";
    if (!is_valid(call) || !read_batch(call, &s))
        return TW_INVALID;
    if (is_empty(call)) {
        snprintf(text, size, "%s, nothing to compute", tw_isa());
        return TW_OK;
    }
    if (seen.dtype > TW_FLOAT64) {
        how = ", through float32 copies";
        seen.dtype = TW_FLOAT32;
    }
    if (!normal_product(&seen, &p, &s)) {
        how = ", through a copy of c";
        seen.c.col = 1, seen.c.row = seen.n;
        normal_product(&seen, &p, &s);
    }
    const tw_plan plan = tw_plan_product(&p, s.count);
    const ptrdiff_t tasks = plan.down * plan.across * s.count;
    const int threads = plan.threads > tasks ? (int)tasks : plan.threads;
    char tile[80] = "";
    const char *when = plan.panels ? " beforehand" : "";
    if (plan.path == TW_PACKED)
        snprintf(tile, sizeof tile, " %dx%d, k by %td, b packed%s%s", p.kernels->mr, p.kernels->nr, plan.kc, when,
                 plan.pack_a ? ", a packed" : "");
    else if (plan.path == TW_DIRECT && (plan.panels || plan.pack_b))
        snprintf(tile, sizeof tile, ", b packed%s", when);
    const char *plural = threads == 1 ? "" : "s";
    snprintf(text, size, "%s %s%s, %d thread%s%s", tw_isa(), tw_path_names[plan.path], tile, threads, plural, how);
    return TW_OK;
}
