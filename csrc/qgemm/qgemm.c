// tw_matmul_integer and tw_qgemm_finish: from the call as it is made to products of a packed b.
#include "qgemm.h"

#include <stdatomic.h>
#include <stdio.h>

#include "../gemm/tuning.h"
#include "../isa/isa.h"
#include "../threads/threads.h"
#include "product.h"

TW_INT_KERNELS(tw_qgemm_kernels, tw_qgemm)

enum { MAX_AXES = 32 };
#define SHIFT 128 // of bytes whose sign bit is flipped

static int is_valid(const tw_qgemm_kernels *g, const tw_qgemm_call *call) {
    if (!tw_is_int8(call->a_type) || !tw_is_int8(call->b_type) || call->m < 0 || call->n < 0 || call->k < 0 || call->batch_axes < 0 ||
        call->batch_axes > MAX_AXES || (call->packed && !tw_int_fits(g, call)))
        return 0;
    for (int axis = 0; axis < call->batch_axes; axis++)
        if (call->batch_shape[axis] < 0 || (call->packed && call->batch_shape[axis] > 1 && call->b_batch[axis]))
            return 0;
    return 1;
}

tw_qgemm_call tw_qgemm_at(const tw_qgemm_call *call, ptrdiff_t index) {
    tw_qgemm_call one = *call;
    ptrdiff_t a = 0, b = 0, c = 0;
    for (int axis = call->batch_axes - 1; axis >= 0; axis--) {
        const ptrdiff_t step = index % call->batch_shape[axis];
        index /= call->batch_shape[axis];
        a += step * call->a_batch[axis];
        b += step * call->b_batch[axis];
        c += step * call->c_batch[axis];
        if (call->a_zero && call->a_zero_batch) one.a_zero += step * call->a_zero_batch[axis];
        if (call->b_zero && call->b_zero_batch) one.b_zero += step * call->b_zero_batch[axis];
    }
    one.a.data = (char *)call->a.data + a;
    one.b.data = (char *)call->b.data + b;
    one.c.data = (int32_t *)call->c.data + c;
    one.batch_axes = 0;
    return one;
}

static tw_int_product product(const tw_qgemm_kernels *g, const tw_qgemm_call *call) {
    const tw_int_panels b = tw_int_layout(g, call->k, call->n, call->packed);
    const tw_matrix_unit *matrix = tw_int_matrix(&b, call->m);
    const int is_unsigned = call->a_type == TW_UINT8, flips = g->depth == 4 && is_unsigned != g->a_unsigned && !matrix;
    return (tw_int_product){
        .m = call->m, .b = b, .matrix = matrix,
        .a = call->a.data, .a_row = call->a.row, .a_col = call->a.col, .a_is_unsigned = is_unsigned,
        .flip = flips ? 0x80 : 0,
        .a_zero = call->a_zero, .b_zero = call->b_zero, .a_zero_step = call->a_zero_step, .b_zero_step = call->b_zero_step,
        .a_shift = flips ? (is_unsigned ? -SHIFT : SHIFT) : 0,
        .b_shift = g->depth == 4 && call->b_type == TW_UINT8 ? -SHIFT : 0,
        .c = call->c.data, .c_row = call->c.row,
    };
}

// b packed into the thread's second workspace.
static int pack_now(const tw_qgemm_kernels *g, tw_qgemm_call *call) {
    const size_t bytes = tw_int_bytes(g, call->k, call->n);
    void *packed = bytes ? tw_second_workspace(bytes) : NULL;
    if (!packed)
        return TW_NO_MEMORY;
    tw_int_pack(g, call->b_type, call->k, call->n, call->b, packed);
    call->packed = packed;
    return TW_OK;
}

static void scatter(void *context, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t row) {
    const tw_matrix *c = context;
    int32_t *to = (int32_t *)c->data + i * c->row + j * c->col;
    for (ptrdiff_t r = 0; r < m; r++)
        for (ptrdiff_t s = 0; s < n; s++) to[r * c->row + s * c->col] = sums[r * row + s];
}

static int run(const tw_qgemm_kernels *g, const tw_qgemm_call *call, tw_finish *finish, void *context) {
    tw_qgemm_call packed = *call;
    const int code = call->packed || call->m == 0 ? TW_OK : pack_now(g, &packed);
    if (code != TW_OK)
        return code;
    tw_int_product p = product(g, &packed);
    p.finish = finish, p.context = context;
    if (!finish && call->c.col != 1 && call->n > 1)
        p.finish = scatter, p.context = &packed.c;
    return tw_run_int_product(&p);
}

// A matrix unit is done before the lines of its results have come from beyond L2, which cannot keep so many: 1024x1024x1024, a layer,
// 1.7 Tops/s through the caches and 2.0 past them. Vectors take long enough.
int tw_qgemm_writes_past(ptrdiff_t m, ptrdiff_t bytes) {
    return TW_INT_PICK(tw_qgemm)->matrix && m * bytes >= tw_gemm_tuned()->l2_bytes;
}

// ---- batches

// Leading axes whose rows go on at the stride of the last one join the rows, where b is the same for all of them.
static void fold_batch_into_rows(tw_qgemm_call *call) {
    while (call->batch_axes > 0) {
        const int last = call->batch_axes - 1;
        const ptrdiff_t zeros = call->a_zero_batch ? call->a_zero_batch[last] : 0;
        if (call->m == 1) // the stride of one row is anything
            call->a.row = call->a_batch[last], call->c.row = call->c_batch[last], call->a_zero_step = zeros;
        const int same_b = call->b_batch[last] == 0 && !(call->b_zero && call->b_zero_batch && call->b_zero_batch[last]);
        const int goes_on = call->a_batch[last] == call->m * call->a.row && call->c_batch[last] == call->m * call->c.row &&
                            (!call->a_zero || zeros == call->m * call->a_zero_step);
        if (call->batch_shape[last] != 1 && !(same_b && goes_on))
            return;
        call->m *= call->batch_shape[last];
        call->batch_axes--;
    }
}

typedef struct {
    const tw_qgemm_kernels *kernels;
    const tw_qgemm_call *call;
    atomic_int code;
} job;

static void run_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    job *j = context;
    for (ptrdiff_t index = begin; index < end; index++) {
        const tw_qgemm_call one = tw_qgemm_at(j->call, index);
        const int code = run(j->kernels, &one, NULL, NULL);
        if (code != TW_OK)
            atomic_store_explicit(&j->code, code, memory_order_relaxed);
    }
}

static int run_batch(const tw_qgemm_kernels *g, tw_qgemm_call *call) {
    ptrdiff_t count = 1;
    int same_b = 1;
    for (int axis = 0; axis < call->batch_axes; axis++) {
        count *= call->batch_shape[axis];
        same_b &= call->batch_shape[axis] == 1 || call->b_batch[axis] == 0;
    }
    const int code = count > 1 && same_b && !call->packed ? pack_now(g, call) : TW_OK;
    if (code != TW_OK)
        return code;
    job j = {g, call, TW_OK};
    const double ns = (double)count * (double)call->m * (double)call->n * (double)(call->k + 32) / 256;
    tw_parallel_ranges(count, 1, count > 1 ? ns : 0, run_range, &j);
    return atomic_load_explicit(&j.code, memory_order_relaxed);
}

// ---- public

int tw_matmul_integer(const tw_qgemm_call *call) {
    const tw_qgemm_kernels *g = TW_INT_PICK(tw_qgemm);
    tw_qgemm_call folded = *call;
    if (!is_valid(g, call))
        return TW_INVALID;
    fold_batch_into_rows(&folded);
    return folded.batch_axes == 0 ? run(g, &folded, NULL, NULL) : run_batch(g, &folded);
}

int tw_matmul_integer_describe(const tw_qgemm_call *call, char *text, size_t size) {
    const tw_qgemm_kernels *g = TW_INT_PICK(tw_qgemm);
    tw_qgemm_call folded = *call;
    if (!is_valid(g, call))
        return TW_INVALID;
    fold_batch_into_rows(&folded);
    const tw_int_product p = product(g, &folded);
    const int vectors = (int)(p.b.width / g->lanes), threads = tw_int_threads(&p);
    if (p.m == 0 || vectors == 0)
        snprintf(text, size, "%s, nothing to compute", tw_int8_isa());
    else
        snprintf(text, size, "%s %dx%d%s%s, %d thread%s", tw_int8_isa(), g->rows[vectors - 1], vectors * g->lanes,
                 call->packed ? ", b packed beforehand" : "", tw_int_reads_in_place(&p) ? "" : ", a packed", threads,
                 threads == 1 ? "" : "s");
    return TW_OK;
}

int tw_qgemm_finish(const tw_qgemm_call *call, tw_finish *finish, void *context) {
    const tw_qgemm_kernels *g = TW_INT_PICK(tw_qgemm);
    return is_valid(g, call) && call->batch_axes == 0 ? run(g, call, finish, context) : TW_INVALID;
}
