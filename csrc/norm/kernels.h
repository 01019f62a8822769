// What each instruction set brings to the norms: one contiguous row of n >= 1 elements of one type.
//
// weight and bias have n elements or are NULL. The backward functions add their row's share to dweight and dbias (n
// elements). stream: write y past the caches. centre: layer_norm, which subtracts the mean; otherwise rms_norm, which has neither mean nor bias.
#ifndef TW_NORM_KERNELS_H
#define TW_NORM_KERNELS_H

#include "../isa/isa.h"

typedef struct {
    void (*forward)(ptrdiff_t n, int centre, double eps, const void *x, const void *weight, const void *bias, void *y,
                    int stream);
    void (*backward)(ptrdiff_t n, int centre, double eps, const void *dy, const void *x, const void *weight, void *dx,
                     void *dweight, void *dbias);
    void (*add)(ptrdiff_t n, const void *x, void *sum);  // sum += x
} tw_norm_kernels;

#endif
