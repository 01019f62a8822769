// What each instruction set brings to cross_entropy: one contiguous row of n >= 1 logits of one type.
#ifndef TW_LOSS_KERNELS_H
#define TW_LOSS_KERNELS_H

#include "../isa/isa.h"

typedef struct {
    double (*loss)(ptrdiff_t n, const void *x, ptrdiff_t label, double smoothing);
    // dx = scale (softmax(x) - (1 - smoothing) onehot(label) - smoothing / n)
    void (*gradient)(ptrdiff_t n, const void *x, ptrdiff_t label, double smoothing, double scale, void *dx);
} tw_loss_kernels;

#endif
