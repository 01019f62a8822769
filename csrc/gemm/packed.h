// The panels of a matrix that tw_pack has packed.
#ifndef TW_GEMM_PACKED_H
#define TW_GEMM_PACKED_H

#include "../tilewright.h"
#include "kernels.h"

static inline int tw_is_one_panel(const tw_gemm_kernels *g, ptrdiff_t n) { return n <= TW_MAX_NV * g->lanes; }

// The panels that call->packed holds; NULL where it was packed for another size, dtype or instruction set.
const char *tw_packed_panels(const tw_gemm_call *call);

#endif
