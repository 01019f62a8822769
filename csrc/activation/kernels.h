// What each instruction set brings to the activations: maps over contiguous arrays of one element type.
//
// Rows are activation codes (TW_RELU ...). y may be x; dx may be dy or x. param: slope of leaky_relu, alpha of elu.
#ifndef TW_ACTIVATION_KERNELS_H
#define TW_ACTIVATION_KERNELS_H

#include "../isa/isa.h"

enum { TW_ACTIVATIONS = TW_HARDSWISH + 1 };

typedef void tw_activate(ptrdiff_t n, const void *x, void *y, double param);
typedef void tw_activate_backward(ptrdiff_t n, const void *dy, const void *x, void *dx, double param);

typedef struct {
    tw_activate *forward[TW_ACTIVATIONS];
    tw_activate *forward_stream[TW_ACTIVATIONS];  // y is written past the caches
    tw_activate_backward *backward[TW_ACTIVATIONS];
} tw_activation_kernels;

// The forward map for contiguous chunks, as linear fuses it with its default parameter: f(n, x, y, *param).
tw_activate *tw_activation_kernel(int dtype, int activation, double *param);

#endif
