// What the files of this folder share beside products and plans.
#ifndef TW_GEMM_H
#define TW_GEMM_H

#include "../tilewright.h"

#define TW_MAX_BATCH_AXES 32

// tw_gemm for calls that no product fits: halves, a bias or a residual with a stride, a residual that an activation would
// overwrite, a c whose rows and columns are both strided.
int tw_gemm_through_copies(const tw_gemm_call *call);

#endif
