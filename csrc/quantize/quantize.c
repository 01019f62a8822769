// Public quantization: argument checks, the kernels of the instruction set in use, strides and threads.
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "../loops/elementwise.h"
#include "kernels.h"

TW_KERNELS(tw_quantize_kernels, tw_quantize)

// About what one element takes on AVX-512, in L2.
#define QUANTIZE_NS 0.15
#define DEQUANTIZE_NS 0.08
#define RANGE_NS 0.06

enum { X, SCALE, ZERO, Y };

static int size_of(int type) {
    static const int sizes[] = {[TW_INT8] = 1, [TW_UINT8] = 1, [TW_INT16] = 2, [TW_UINT16] = 2, [TW_INT32] = 4};
    return type < 0 || type >= (int)(sizeof sizes / sizeof *sizes) ? 0 : sizes[type];
}

// Which of scale and zero are one element for all of a piece.
static unsigned ones(const tw_elementwise *job) {
    return (job->single >> SCALE & 1 ? TW_ONE_SCALE : 0) | (job->single >> ZERO & 1 ? TW_ONE_ZERO : 0);
}

// ---- quantize

typedef struct {
    tw_quantize_map *map;
    int32_t low, high;
} quantizing;

static void quantize(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    const quantizing *q = job->context;
    q->map(n, ones(job), q->low, q->high, data[X], data[SCALE], data[ZERO], data[Y]);
}

int tw_quantize_linear(int type, int32_t low, int32_t high, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix scale,
                       tw_matrix zero, tw_matrix y) {
    const int size = size_of(type);
    if (size < 1 || size > 2 || rows < 0 || cols < 0)
        return TW_INVALID;
    const quantizing q = {TW_PICK(tw_quantize)->quantize[size - 1], low, high};
    tw_run_elementwise(&(tw_elementwise){.operands = 4, .read = 1u << X | 1u << SCALE | 1u << ZERO, .written = 1u << Y,
                                         .single = 1u << SCALE | 1u << ZERO, .itemsizes = {4, 4, 4, size}, .rows = rows,
                                         .cols = cols, .operand = {x, scale, zero, y}, .ns = QUANTIZE_NS,
                                         .chunk = quantize, .context = &q});
    return TW_OK;
}

// ---- dequantize

static void dequantize(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    (*(tw_dequantize_map *const *)job->context)(n, ones(job), job->stream, data[X], data[SCALE], data[ZERO], data[Y]);
}

static tw_dequantize_map *dequantize_map(int type) {
    const tw_quantize_kernels *k = TW_PICK(tw_quantize);
    switch (type) {
    case TW_INT8: return k->dequantize_s8;
    case TW_UINT8: return k->dequantize_u8;
    case TW_INT16: return k->dequantize_s16;
    case TW_UINT16: return k->dequantize_u16;
    case TW_INT32: return k->dequantize_s32;
    default: return NULL;
    }
}

int tw_dequantize_linear(int type, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix scale, tw_matrix zero, tw_matrix y) {
    tw_dequantize_map *const map = dequantize_map(type);
    if (!map || rows < 0 || cols < 0)
        return TW_INVALID;
    tw_run_elementwise(&(tw_elementwise){.operands = 4, .read = 1u << X | 1u << SCALE | 1u << ZERO, .written = 1u << Y,
                                         .single = 1u << SCALE | 1u << ZERO, .itemsizes = {size_of(type), 4, 4, 4},
                                         .rows = rows, .cols = cols, .operand = {x, scale, zero, y}, .ns = DEQUANTIZE_NS,
                                         .chunk = dequantize, .context = &map});
    return TW_OK;
}

// ---- the range of floats: integers from +0 on, in the order of the floats that have these bits

typedef struct {
    atomic_int below, above;  // 0 - least, and most
} extremes;

static int32_t bits_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(int32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void raise_to(atomic_int *most, float x) {
    const int32_t bits = bits_of(x);
    int32_t now = atomic_load_explicit(most, memory_order_relaxed);
    while (bits > now && !atomic_compare_exchange_weak(most, &now, bits))
        ;
}

static void widen(const tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data) {
    (void)at;
    extremes *shared = (extremes *)job->context;
    float range[2];
    TW_PICK(tw_quantize)->find_range(n, data[X], range);
    raise_to(&shared->below, range[0]);
    raise_to(&shared->above, range[1]);
}

int tw_widen_range(ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, float *range) {
    extremes shared = {bits_of(0 - range[0]), bits_of(0 + range[1])};
    if (rows < 0 || cols < 0)
        return TW_INVALID;
    tw_run_elementwise(&(tw_elementwise){.operands = 1, .read = 1u << X, .itemsize = 4, .rows = rows, .cols = cols,
                                         .operand = {x}, .ns = RANGE_NS, .chunk = widen, .context = &shared});
    range[0] = 0 - float_of(shared.below);
    range[1] = float_of(shared.above);
    return TW_OK;
}

void tw_dynamic_scale(const float *range, float *scale, int32_t *zero) {
    const float step = (range[1] - range[0]) / 255;
    if (!isfinite(step)) {
        *scale = NAN;
        *zero = 0;
        return;
    }
    *scale = step > 0 ? step : 1;
    *zero = (int32_t)rintf(fminf((0 - range[0]) / *scale, 255));
}
