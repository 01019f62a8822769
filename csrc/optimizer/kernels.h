// What each instruction set brings to the optimizer steps: one pass over contiguous arrays of one element type.
#ifndef TW_OPTIMIZER_KERNELS_H
#define TW_OPTIMIZER_KERNELS_H

#include "../isa/isa.h"

// p -= step_size m / (sqrt(v) root_scale + eps), p decayed by `keep` before; decay is added to g instead where not decoupled
typedef struct {
    double beta1, beta2, eps, decay, keep, step_size, root_scale;
} tw_adam_factors;

typedef struct {
    void (*sgd)(ptrdiff_t n, void *p, const void *g, void *b, const tw_sgd_settings *s);  // b may be NULL
    void (*adam)(ptrdiff_t n, void *p, const void *g, void *m, void *v, const tw_adam_factors *f);
    double (*squares)(ptrdiff_t n, const void *x);  // their sum, in double
    void (*scale)(ptrdiff_t n, void *x, double factor);
} tw_optimizer_kernels;

#endif
