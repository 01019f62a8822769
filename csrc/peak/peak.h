// What each instruction set brings to the measurement of peaks.
#ifndef TW_PEAK_H
#define TW_PEAK_H

#include <stddef.h>

typedef struct {
    double step_operations;                       // of one step
    double (*run)(ptrdiff_t steps, double start); // returns a number that depends on all of it
} tw_peak_loop;                                   // in registers

typedef struct {
    tw_peak_loop multiply_add;
    void (*copy[2])(ptrdiff_t bytes, const char *from, char *to); // through the caches, past them; both 64-byte aligned
} tw_peak_kernels;

#endif
