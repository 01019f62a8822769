// The panels of a matrix that tw_pack has packed.
#ifndef TW_GEMM_PACKED_H
#define TW_GEMM_PACKED_H

#include <stdint.h>

#include "../tilewright.h"
#include "kernels.h"

enum { TW_LINE = 64 }; // bytes of a cache line: no load of a panel crosses two

static inline int tw_is_one_panel(const tw_gemm_kernels *g, ptrdiff_t n) { return n <= TW_MAX_NV * g->lanes; }

// Where what tw_pack wrote begins: with a header of a line, then the panels.
static inline char *tw_packed_start(const void *packed) {
    return (char *)(((uintptr_t)packed + TW_LINE - 1) / TW_LINE * TW_LINE);
}
static inline const char *tw_panels(const void *packed) { return packed ? tw_packed_start(packed) + TW_LINE : NULL; }

// Whether call->packed is of this size, dtype and instruction set.
int tw_packed_fits(const tw_gemm_call *call);

#endif
