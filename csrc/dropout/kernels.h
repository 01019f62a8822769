// What each instruction set brings to dropout: maps over contiguous arrays of one element type.
#ifndef TW_DROPOUT_KERNELS_H
#define TW_DROPOUT_KERNELS_H

#include "../isa/isa.h"

// y[i] = word(first + i) >= threshold ? x[i] * scale : 0; threshold <= 2^32; y may be x.
typedef void tw_dropout_map(ptrdiff_t n, uint64_t first, uint64_t seed, uint64_t threshold, double scale, const void *x,
                            void *y);

typedef struct {
    tw_dropout_map *map;
} tw_dropout_kernels;

#endif
