// A matrix b packed once: what tw_pack_integer writes, as the driver reads it.
//
//     header (64 bytes)   sums of the columns, int32   panel 0: words of 64-byte aligned rows   panel 1   ...
//
// A panel is as wide as a tile, the last one as its columns need; a b of a few vectors is one panel of its own. Widths are whole
// vectors, with zeros beyond n. Each holds all of k. Where three vectors make a panel and one is left, the last four are two
// panels of two: a tile one vector wide waits for its loads (256x256x256: 951 GOP/s with it, 1013 without).
#ifndef TW_QGEMM_PACKED_H
#define TW_QGEMM_PACKED_H

#include "../tilewright.h"
#include "kernels.h"

typedef struct {
    const tw_qgemm_kernels *kernels;
    ptrdiff_t k, n, words;      // words of a column of a panel: beyond k zeros
    ptrdiff_t width, columns;   // of all panels but the last; of all of them
    int32_t *sums;              // `columns` of them
    uint32_t *panels;           // that of column j begins at panels + j * words
    ptrdiff_t units;            // what may be done apart: panels, but that the last unit may have two
} tw_int_panels;

// How b of this size lies at `packed`, which may be NULL.
tw_int_panels tw_int_layout(const tw_qgemm_kernels *kernels, ptrdiff_t k, ptrdiff_t n, const void *packed);

// Columns of the panel that begins at column j.
static inline ptrdiff_t tw_int_width(const tw_int_panels *b, ptrdiff_t j) {
    const ptrdiff_t left = b->columns - j, lanes = b->kernels->lanes;
    return left == b->width + lanes && lanes * 3 == b->width ? 2 * lanes : left < b->width ? left : b->width;
}

// Where a unit begins, and where the one before it ends.
static inline ptrdiff_t tw_int_unit(const tw_int_panels *b, ptrdiff_t unit) { return unit < b->units ? unit * b->width : b->n; }

// Whether call->packed is of this size, type and instruction set.
int tw_int_fits(const tw_qgemm_kernels *kernels, const tw_qgemm_call *call);

// tw_pack_integer_bytes and tw_pack_integer for given kernels.
size_t tw_int_bytes(const tw_qgemm_kernels *kernels, ptrdiff_t k, ptrdiff_t n);
void tw_int_pack(const tw_qgemm_kernels *kernels, int b_type, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed);

static inline int tw_is_int8(int type) { return type == TW_INT8 || type == TW_UINT8; }

#endif
