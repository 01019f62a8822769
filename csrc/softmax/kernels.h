// What each instruction set brings to softmax: one contiguous row of n >= 1 elements of one type. Outputs may be inputs,
// but not where stream asks to write them past the caches.
#ifndef TW_SOFTMAX_KERNELS_H
#define TW_SOFTMAX_KERNELS_H

#include "../isa/isa.h"

typedef struct {
    void (*softmax)(ptrdiff_t n, const void *x, void *y, int stream);
    void (*log_softmax)(ptrdiff_t n, const void *x, void *y, int stream);
    void (*softmax_backward)(ptrdiff_t n, const void *dy, const void *y, void *dx);
    void (*log_softmax_backward)(ptrdiff_t n, const void *dy, const void *y, void *dx);
} tw_softmax_kernels;

#endif
