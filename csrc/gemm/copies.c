// The calls that run through copies: float16 and bfloat16 become float32 and back, a strided c is gathered into rows and
// scattered again. One batch element at a time.
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../isa/isa.h"
#include "../threads/threads.h"
#include "batch.h"
#include "gemm.h"
#include "half.h"

TW_KERNELS(tw_half_kernels, tw_half)

static const ptrdiff_t sizes[] = {[TW_FLOAT32] = 4, [TW_FLOAT64] = 8, [TW_FLOAT16] = 2, [TW_BFLOAT16] = 2};

static int is_half(int dtype) { return dtype > TW_FLOAT64; }

static void copy_element(ptrdiff_t size, const char *from, char *to) {
    if (size == 4)
        memcpy(to, from, 4);
    else
        memcpy(to, from, 8);
}

static uint16_t *half_at(const tw_matrix *x, ptrdiff_t i, ptrdiff_t j) { return (uint16_t *)x->data + i * x->row + j * x->col; }

typedef struct {
    int dtype, scatter; // scatter: from the copy back to the strided matrix
    ptrdiff_t n;
    tw_matrix strided;
    char *rows; // n elements each, contiguous; float32 for a half dtype
} copying;

#define STAGE 256 // halves pass through a buffer of this many where their rows are strided

static void copy_half_row(const copying *s, ptrdiff_t i, float *row) {
    const tw_half_kernels *h = TW_PICK(tw_half);
    const int form = s->dtype == TW_BFLOAT16;
    if (s->strided.col == 1) {
        if (s->scatter)
            h->narrow[form](s->n, row, half_at(&s->strided, i, 0));
        else
            h->widen[form](s->n, half_at(&s->strided, i, 0), row);
        return;
    }
    uint16_t stage[STAGE];
    for (ptrdiff_t j = 0; j < s->n; j += STAGE) {
        const ptrdiff_t n = s->n - j < STAGE ? s->n - j : STAGE;
        if (s->scatter) {
            h->narrow[form](n, row + j, stage);
            for (ptrdiff_t q = 0; q < n; q++) *half_at(&s->strided, i, j + q) = stage[q];
        } else {
            for (ptrdiff_t q = 0; q < n; q++) stage[q] = *half_at(&s->strided, i, j + q);
            h->widen[form](n, stage, row + j);
        }
    }
}

static void copy_rows(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const copying *s = context;
    const ptrdiff_t size = sizes[s->dtype];
    for (ptrdiff_t i = begin; i < end; i++) {
        if (is_half(s->dtype)) {
            copy_half_row(s, i, (float *)s->rows + i * s->n);
            continue;
        }
        char *row = s->rows + i * s->n * size, *strided = (char *)s->strided.data + i * s->strided.row * size;
        for (ptrdiff_t j = 0; j < s->n; j++) {
            char *there = strided + j * s->strided.col * size;
            copy_element(size, s->scatter ? row + j * size : there, s->scatter ? there : row + j * size);
        }
    }
}

static void copy(int dtype, int scatter, ptrdiff_t m, ptrdiff_t n, tw_matrix strided, void *rows) {
    copying s = {dtype, scatter, n, strided, rows};
    tw_parallel_ranges(m, 16, (double)m * (double)n * 0.5, copy_rows, &s);
}

// ---- one product

#define KEPT_BYTES ((size_t)16 << 20) // copies up to this size live in a buffer that the thread keeps
#define NO_BYTES SIZE_MAX

static size_t align64(size_t bytes) { return bytes > NO_BYTES - 63 ? NO_BYTES : (bytes + 63) / 64 * 64; }

// The bytes of an m x n copy, rounded up to cache lines; NO_BYTES when a size_t cannot say it.
static size_t bytes_of(ptrdiff_t m, ptrdiff_t n, size_t size) {
    size_t count, bytes;
    if (__builtin_mul_overflow((size_t)m, (size_t)n, &count) || __builtin_mul_overflow(count, size, &bytes)) return NO_BYTES;
    return align64(bytes);
}

enum { COPIES = 5 }; // c, a, b, bias, residual

// The call with everything that needs it replaced by a copy in rows.
static int run_one(tw_gemm_call call) {
    const int half = is_half(call.dtype), dtype = call.dtype, reads_ab = call.alpha != 0 && call.k > 0;
    const size_t size = half ? 4 : sizes[dtype];
    const int copies_residual = call.residual.data && (half || call.residual.col != 1);
    const int widens_a = half && reads_ab, widens_b = widens_a && !call.packed;
    const size_t bytes[COPIES] = {bytes_of(call.m, call.n, size), widens_a ? bytes_of(call.m, call.k, size) : 0,
                                  widens_b ? bytes_of(call.k, call.n, size) : 0,
                                  call.bias ? bytes_of(1, call.n, size) : 0,
                                  copies_residual ? bytes_of(call.m, call.n, size) : 0};
    size_t total = 64;
    for (int i = 0; i < COPIES; i++)
        if (__builtin_add_overflow(total, bytes[i], &total)) return TW_NO_MEMORY;
    char *space = total <= KEPT_BYTES ? tw_second_workspace(total) : malloc(total), *next = space, *copies[COPIES];
    if (!space) return TW_NO_MEMORY;
    for (int i = 0; i < COPIES; i++) {
        copies[i] = next;
        next += bytes[i];
    }
    const tw_matrix c = call.c;
    if (widens_a) {
        copy(dtype, 0, call.m, call.k, call.a, copies[1]);
        call.a = (tw_matrix){copies[1], call.k, 1};
        if (!widens_b)
            call.b.data = NULL; // its panels are float32 already
        else if (call.b.row == 1 && call.b.col != 1) { // keep b's columns as rows: reading along them is what is fast
            copy(dtype, 0, call.n, call.k, (tw_matrix){call.b.data, call.b.col, call.b.row}, copies[2]);
            call.b = (tw_matrix){copies[2], 1, call.k};
        } else {
            copy(dtype, 0, call.k, call.n, call.b, copies[2]);
            call.b = (tw_matrix){copies[2], call.n, 1};
        }
    }
    if (call.bias) {
        copy(dtype, 0, 1, call.n, (tw_matrix){(void *)call.bias, 0, call.bias_step}, copies[3]);
        call.bias = copies[3];
        call.bias_step = 1;
    }
    if (copies_residual) {
        copy(dtype, 0, call.m, call.n, call.residual, copies[4]);
        call.residual = (tw_matrix){copies[4], call.n, 1};
    }
    if (call.beta != 0) copy(dtype, 0, call.m, call.n, c, copies[0]);
    call.c = (tw_matrix){copies[0], call.n, 1};
    call.dtype = half ? TW_FLOAT32 : dtype;
    const int code = tw_gemm(&call);
    if (code == TW_OK) copy(dtype, 1, call.m, call.n, c, copies[0]);
    if (total > KEPT_BYTES) free(space);
    return code;
}

// ---- halves with few rows: b is most of the work, and goes through the caches slab of columns by slab of columns

#define FEW_ROWS 32
#define SLAB_ELEMENTS (64 << 10) // of b: 256 KiB as float32

typedef struct {
    const tw_gemm_call *call;
    ptrdiff_t width;
    atomic_int code;
} slabs;

static void run_slab(void *context, ptrdiff_t slab) {
    slabs *s = context;
    tw_gemm_call part = *s->call;
    const ptrdiff_t j = slab * s->width, size = sizes[part.dtype];
    part.n = s->call->n - j < s->width ? s->call->n - j : s->width;
    part.b.data = (char *)part.b.data + j * part.b.col * size;
    part.c.data = (char *)part.c.data + j * part.c.col * size;
    if (part.bias) part.bias = (const char *)part.bias + j * part.bias_step * size;
    if (part.residual.data) part.residual.data = (char *)part.residual.data + j * part.residual.col * size;
    const int code = run_one(part);
    if (code) atomic_store_explicit(&s->code, code, memory_order_relaxed);
}

static int run_in_slabs(const tw_gemm_call *call) {
    if (!is_half(call->dtype) || call->packed || call->m > FEW_ROWS || call->k == 0 || call->n <= SLAB_ELEMENTS / call->k) return run_one(*call);
    const ptrdiff_t least = call->b.col == 1 ? 256 : 32; // columns: of rows worth reading, or of vectors
    slabs s = {call, SLAB_ELEMENTS / call->k / 16 * 16, TW_OK};
    if (s.width < least) s.width = least;
    tw_parallel((call->n - 1) / s.width + 1, (double)call->k * (double)call->n * 0.2, run_slab, &s);
    return atomic_load_explicit(&s.code, memory_order_relaxed);
}

// ---- batches

int tw_gemm_through_copies(const tw_gemm_call *call) {
    tw_gemm_call one = *call;
    const ptrdiff_t size = sizes[call->dtype];
    one.batch_axes = 0;
    for (ptrdiff_t index = 0, count = tw_batch_count(call); index < count; index++) {
        const tw_batch_place at = tw_batch_at(call, index);
        one.a.data = (char *)call->a.data + at.a * size;
        one.b.data = (char *)call->b.data + at.b * size;
        one.c.data = (char *)call->c.data + at.c * size;
        const int code = run_in_slabs(&one);
        if (code)
            return code;
    }
    return TW_OK;
}
