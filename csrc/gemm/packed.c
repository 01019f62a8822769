// A matrix b packed once for many products.
//
//     header (64 bytes)   panel 0: k rows of `width` columns   panel 1   ...   zeros beyond n in the last one
//
// A panel holds all of k, so that any block of it lies in one piece whatever the blocks of a product will be. A matrix of
// few vectors is one panel, which direct tiles take whole; others have panels of nr columns.
#include "packed.h"

#include "../isa/isa.h"

TW_KERNELS(tw_gemm_kernels, tw_gemm_f32)
TW_KERNELS(tw_gemm_kernels, tw_gemm_f64)

typedef struct {
    const tw_gemm_kernels *kernels; // says the element type and the instruction set, with which the layout goes
    ptrdiff_t k, n;
} header;

static const tw_gemm_kernels *kernels_of(int dtype) { return dtype == TW_FLOAT64 ? TW_PICK(tw_gemm_f64) : TW_PICK(tw_gemm_f32); }

static ptrdiff_t width_of(const tw_gemm_kernels *g, ptrdiff_t n) {
    return tw_is_one_panel(g, n) ? (n + g->lanes - 1) / g->lanes * g->lanes : g->nr;
}

size_t tw_pack_bytes(int dtype, ptrdiff_t k, ptrdiff_t n) {
    if ((dtype != TW_FLOAT32 && dtype != TW_FLOAT64) || k < 0 || n < 0)
        return 0;
    const tw_gemm_kernels *g = kernels_of(dtype);
    const size_t width = n ? width_of(g, n) : 1;
    size_t columns, bytes;
    if (__builtin_mul_overflow(((size_t)n + width - 1) / width, width, &columns) ||
        __builtin_mul_overflow(columns, (size_t)k, &bytes) || __builtin_mul_overflow(bytes, (size_t)g->size, &bytes) ||
        __builtin_add_overflow(bytes, 2 * TW_LINE, &bytes))
        return 0;
    return bytes;
}

int tw_pack(int dtype, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed) {
    if (!tw_pack_bytes(dtype, k, n))
        return TW_INVALID;
    const tw_gemm_kernels *g = kernels_of(dtype);
    *(header *)tw_packed_start(packed) = (header){g, k, n};
    if (k > 0 && n > 0)
        g->pack(k, n, width_of(g, n), b.data, b.row, b.col, tw_packed_start(packed) + TW_LINE);
    return TW_OK;
}

int tw_packed_fits(const tw_gemm_call *call) {
    const header *h = (const header *)tw_packed_start(call->packed);
    return h->kernels == kernels_of(call->dtype) && h->k == call->k && h->n == call->n;
}
