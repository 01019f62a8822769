// What each instruction set brings to products by vpmaddubsw.
#ifndef TW_MADDUBS_KERNELS_H
#define TW_MADDUBS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { TW_MADDUBS_ROWS = 4 };

typedef struct {
    int lanes; // columns of a panel
    // sums[i * lanes + j] of m <= TW_MADDUBS_ROWS rows; returns how many sums of pairs were clipped. a: rows of words; panel: word
    // (p, j) at p * lanes + j. A word is four neighbours along k, the first in its lowest byte, zeros beyond k.
    int64_t (*tile)(int m, ptrdiff_t words, const uint32_t *a, const uint32_t *panel, int32_t *sums);
} tw_maddubs_kernels;

#endif
