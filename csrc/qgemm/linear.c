// tw_qlinear and tw_qlinear_matmul: integer products whose tiles become floats, or small integers again, while they are in L1.
#include "../loops/tile.h"
#include "../threads/threads.h"
#include "layer.h"
#include "qgemm.h"

TW_KERNELS(tw_quantize_kernels, tw_quantize)

#define QUANTIZE_NS 0.12                      // one element of a row, in L2
#define ROWS_BYTES ((ptrdiff_t)4 << 20)       // of quantized rows at a time, about
#define MIN(a, b) ((a) < (b) ? (a) : (b))

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }

static int is_byte(int type) { return type == TW_INT8 || type == TW_UINT8; }

static float *copy_of(ptrdiff_t n, const float *from, ptrdiff_t step, float *to) {
    for (ptrdiff_t i = 0; i < n; i++) to[i] = from[i * step];
    return to;
}

// ---- layers

// What a layer needs beside its product, in the thread's second workspace: nothing else wants that, for w is packed.
typedef struct {
    int32_t *w_zero;
    float *bias;
    float *scale;   // of each row of a block of x, and so on
    int32_t *zero;
    uint8_t *q;
    ptrdiff_t rows, q_row;
} scratch;

static int take_scratch(const tw_qlinear_call *call, scratch *s) {
    const int dynamic = call->x_type == TW_FLOAT32;
    *s = (scratch){.q_row = round_up(call->k, 64) + 64}; // not a power of two, which puts rows into one set of L1
    s->rows = dynamic ? MIN(call->m, round_up(ROWS_BYTES / s->q_row + 1, 64)) : call->m;
    const ptrdiff_t n = round_up(call->n, 16), m = dynamic ? round_up(s->rows, 16) : 0;
    const ptrdiff_t zeros = call->zeros ? n : 0, bias = call->bias && call->bias_step != 1 ? n : 0;
    const ptrdiff_t words = zeros + bias + 2 * m;
    if (words + m == 0)
        return 1;
    char *memory = tw_second_workspace((size_t)words * 4 + (size_t)(dynamic ? s->rows * s->q_row : 0));
    if (!memory)
        return 0;
    s->w_zero = (int32_t *)memory;
    s->bias = (float *)memory + zeros;
    s->scale = s->bias + bias;
    s->zero = (int32_t *)s->scale + m;
    s->q = (uint8_t *)(s->zero + m);
    return 1;
}

typedef struct {
    const tw_qlinear_call *call;
    const scratch *scratch;
    ptrdiff_t first; // row of x
    int failed;
} quantizing;

// Rows of the block; a row that is not contiguous is copied first.
static void quantize_rows(void *context, ptrdiff_t begin, ptrdiff_t end) {
    quantizing *job = context;
    const scratch *s = job->scratch;
    const ptrdiff_t k = job->call->k;
    const tw_matrix x = tw_at(job->call->x, sizeof(float), job->first, 0);
    const tw_quantize_kernels *g = TW_PICK(tw_quantize);
    if (x.col == 1 || k == 1) {
        g->quantize_rows(end - begin, k, tw_at(x, sizeof(float), begin, 0).data, x.row, s->q + begin * s->q_row, s->q_row,
                         s->scale + begin, s->zero + begin);
        return;
    }
    float *rows = tw_workspace((size_t)(TW_TILE_ROWS * k) * sizeof *rows);
    if (!rows) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (ptrdiff_t i = begin; i < end; i += TW_TILE_ROWS) {
        const ptrdiff_t m = MIN(end - i, TW_TILE_ROWS);
        tw_gather(m, k, sizeof *rows, tw_at(x, sizeof *rows, i, 0), rows, k);
        g->quantize_rows(m, k, rows, k, s->q + i * s->q_row, s->q_row, s->scale + i, s->zero + i);
    }
}

static tw_matrix from_row(tw_matrix m, int itemsize, ptrdiff_t row) { return m.data ? tw_at(m, itemsize, row, 0) : m; }

static int is_valid(const tw_qlinear_call *call) {
    const int is_float = call->y_type == TW_FLOAT32;
    return (call->x_type == TW_FLOAT32 || is_byte(call->x_type)) && (is_float || is_byte(call->y_type)) && call->m >= 0 &&
           call->n >= 0 && call->k >= 0 && call->packed && call->activation >= TW_NONE &&
           call->activation <= (is_float ? TW_HARDSWISH : TW_RELU);
}

int tw_qlinear(const tw_qlinear_call *call) {
    scratch s;
    if (!is_valid(call))
        return TW_INVALID;
    if (call->m == 0 || call->n == 0)
        return TW_OK;
    if (!take_scratch(call, &s))
        return TW_NO_MEMORY;
    const int dynamic = call->x_type == TW_FLOAT32, y_size = call->y_type == TW_FLOAT32 ? 4 : 1;
    for (ptrdiff_t j = 0; call->zeros && j < call->n; j++) s.w_zero[j] = call->zeros[j];
    tw_layer layer = {.kernels = TW_PICK(tw_quantize), .row_scale = dynamic ? s.scale : &call->x_scale, .row_step = dynamic,
                      .col_scale = call->scales, .type = call->y_type,
                      .past = tw_qgemm_writes_past(call->m, call->n * y_size), .y_scale = &call->y_scale, .y_zero = &call->y_zero};
    if (call->bias)
        layer.bias = call->bias_step == 1 ? call->bias : copy_of(call->n, call->bias, call->bias_step, s.bias);
    if (call->activation != TW_NONE)
        layer.activation = tw_activation_kernel(TW_FLOAT32, call->activation, &layer.param);
    tw_qgemm_call product = {.a_type = dynamic ? TW_UINT8 : call->x_type, .b_type = TW_INT8, .n = call->n, .k = call->k,
                             .a = dynamic ? (tw_matrix){s.q, s.q_row, 1} : call->x, .packed = call->packed,
                             .a_zero = dynamic ? s.zero : &call->x_zero, .a_zero_step = dynamic,
                             .b_zero = call->zeros ? s.w_zero : NULL, .b_zero_step = 1};
    for (ptrdiff_t i = 0; i < call->m; i += s.rows) {
        product.m = MIN(s.rows, call->m - i);
        layer.y = from_row(call->y, y_size, i);
        layer.residual = from_row(call->residual, 4, i);
        if (dynamic) {
            quantizing job = {call, &s, i, 0};
            tw_parallel_ranges(product.m, TW_TILE_ROWS, (double)product.m * (double)call->k * QUANTIZE_NS, quantize_rows, &job);
            if (job.failed)
                return TW_NO_MEMORY;
        }
        const int code = tw_qgemm_finish(&product, tw_finish_layer, &layer);
        if (code != TW_OK)
            return code;
    }
    return TW_OK;
}

// ---- qlinear_matmul

static ptrdiff_t offset(const tw_qgemm_call *p, ptrdiff_t index, const ptrdiff_t *strides) {
    ptrdiff_t steps = 0;
    for (int axis = p->batch_axes - 1; strides && axis >= 0; index /= p->batch_shape[axis--])
        steps += index % p->batch_shape[axis] * strides[axis];
    return steps;
}

static const void *numbers_at(const tw_qgemm_call *p, ptrdiff_t index, const tw_numbers *numbers) {
    return (const float *)numbers->data + offset(p, index, numbers->batch);  // all are 4 bytes wide
}

// The product at one index of the batch axes. columns: n floats, for scales of b that are not contiguous.
static int multiply_one(const tw_qlinear_matmul_call *call, ptrdiff_t index, float *columns) {
    const tw_qgemm_call *p = &call->product;
    const tw_qgemm_call one = tw_qgemm_at(p, index);
    tw_layer layer = {.kernels = TW_PICK(tw_quantize), .row_scale = numbers_at(p, index, &call->a_scale),
                      .row_step = call->a_scale.step, .col_scale = numbers_at(p, index, &call->b_scale), .type = call->y_type,
                      .y = p->c, .y_scale = numbers_at(p, index, &call->y_scale), .y_scale_step = call->y_scale.step,
                      .y_zero = numbers_at(p, index, &call->y_zero), .y_zero_step = call->y_zero.step};
    layer.y.data = (uint8_t *)p->c.data + offset(p, index, p->c_batch);
    if (call->b_scale.step != 1)
        layer.col_scale = copy_of(p->n, layer.col_scale, call->b_scale.step, columns);
    return tw_qgemm_finish(&one, tw_finish_layer, &layer);
}

int tw_qlinear_matmul(const tw_qlinear_matmul_call *call) {
    const tw_qgemm_call *p = &call->product;
    ptrdiff_t count = 1;
    if (!is_byte(call->y_type) || p->m < 0 || p->n < 0)
        return TW_INVALID;
    for (int axis = 0; axis < p->batch_axes; axis++) count *= p->batch_shape[axis];
    float *columns = tw_third_workspace((size_t)(p->n + 1) * sizeof *columns);
    int code = columns ? TW_OK : TW_NO_MEMORY;
    for (ptrdiff_t index = 0; code == TW_OK && index < count; index++) code = multiply_one(call, index, columns);
    return code;
}
