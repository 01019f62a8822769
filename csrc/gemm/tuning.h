// The numbers by which plan.c chooses; what each of them means stands in tilewright.h, beside tw_gemm_tuning.
#ifndef TW_GEMM_TUNING_H
#define TW_GEMM_TUNING_H

#include "../tilewright.h"

// The numbers in force, one consistent set; it stays as it is for as long as the process lives.
const tw_gemm_tuning *tw_gemm_tuned(void);

#endif
