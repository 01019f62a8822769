// A matrix b packed once: what tw_pack_integer writes, as the driver reads it.
//
//     header (64 bytes)   sums of the columns, int32   panel 0: words of 64-byte aligned rows   panel 1   ...
//
// A panel is as wide as a tile, the last one as its columns need; a b of a few vectors is one panel of its own. Widths are whole
// vectors, with zeros beyond n. Each holds all of k.
#ifndef TW_QGEMM_PACKED_H
#define TW_QGEMM_PACKED_H

#include "../tilewright.h"
#include "kernels.h"

typedef struct {
    const tw_qgemm_kernels *kernels;
    ptrdiff_t k, n, words;      // words of a column
    ptrdiff_t width, columns;   // of all panels but the last; of all of them
    int32_t *sums;              // `columns` of them
    uint32_t *panels;           // that of column j, j a multiple of width, begins at panels + j * words
} tw_int_panels;

// How b of this size lies at `packed`, which may be NULL.
tw_int_panels tw_int_layout(const tw_qgemm_kernels *kernels, ptrdiff_t k, ptrdiff_t n, const void *packed);

// Columns of the panel that begins at column j.
static inline ptrdiff_t tw_int_width(const tw_int_panels *b, ptrdiff_t j) {
    return b->columns - j < b->width ? b->columns - j : b->width;
}

// Whether call->packed is of this size, type and instruction set.
int tw_int_fits(const tw_qgemm_kernels *kernels, const tw_qgemm_call *call);

// tw_pack_integer_bytes and tw_pack_integer for given kernels.
size_t tw_int_bytes(const tw_qgemm_kernels *kernels, ptrdiff_t k, ptrdiff_t n);
void tw_int_pack(const tw_qgemm_kernels *kernels, int b_type, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed);

static inline int tw_is_int8(int type) { return type == TW_INT8 || type == TW_UINT8; }

#endif
