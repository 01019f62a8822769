// float16 and bfloat16 as storage: rows to and from float32.
#ifndef TW_HALF_H
#define TW_HALF_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    void (*widen[2])(ptrdiff_t n, const uint16_t *from, float *to);   // [0] float16, [1] bfloat16; exact
    void (*narrow[2])(ptrdiff_t n, const float *from, uint16_t *to);  // to nearest even, NaN stays NaN
} tw_half_kernels;

#endif
