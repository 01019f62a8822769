// Dropout by Philox4x32-10 (Salmon et al. 2011), for one element type and one ISA.
//
// Element i of the array in C order belongs to word i mod 4 of the block with counter (i / 4, 0) and the key `seed`; so any
// piece of the array can be done on its own, in any order, on any machine. Blocks go BLOCKS at a time in plain loops over
// arrays, which compilers turn into vector code.
#include "kernels.h"

#if TW_BITS == 32
typedef float real;
#define TW_TYPED(x) x##_f32
#else
typedef double real;
#define TW_TYPED(x) x##_f64
#endif

enum { BLOCKS = 64, AHEAD = 8 * BLOCKS };

// words[4 b + k]: word k of block number first + b
static void philox(uint64_t first, uint64_t seed, uint32_t *restrict words) {
    uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int b = 0; b < BLOCKS; b++) {
        c0[b] = (uint32_t)(first + b);
        c1[b] = (uint32_t)((first + b) >> 32);
        c2[b] = c3[b] = 0;
    }
    for (int round = 0; round < 10; round++) {
        for (int b = 0; b < BLOCKS; b++) {
            uint64_t p0 = (uint64_t)c0[b] * 0xD2511F53u, p1 = (uint64_t)c2[b] * 0xCD9E8D57u;
            c0[b] = (uint32_t)(p1 >> 32) ^ c1[b] ^ key0;
            c1[b] = (uint32_t)p1;
            c2[b] = (uint32_t)(p0 >> 32) ^ c3[b] ^ key1;
            c3[b] = (uint32_t)p0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int b = 0; b < BLOCKS; b++) {
        words[4 * b] = c0[b];
        words[4 * b + 1] = c1[b];
        words[4 * b + 2] = c2[b];
        words[4 * b + 3] = c3[b];
    }
}

static void map(ptrdiff_t n, uint64_t first, uint64_t seed, uint64_t threshold, double scale_, const void *x_, void *y_) {
    const real *x = x_, scale = (real)scale_;
    real *y = y_;
    const uint32_t keep_all = threshold == 0, last_dropped = (uint32_t)(threshold - 1);
    uint32_t words[4 * BLOCKS];
    while (n > 0) {
        const ptrdiff_t skip = (ptrdiff_t)(first % 4), room = 4 * BLOCKS - skip, count = n < room ? n : room;
        for (ptrdiff_t line = 0; line < 4 * BLOCKS; line += (ptrdiff_t)(64 / sizeof(real))) {
            __builtin_prefetch(x + AHEAD + line);  // the pauses that philox makes stop the hardware's own prefetching
            __builtin_prefetch(y + AHEAD + line, 1);
        }
        philox(first / 4, seed, words);
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = (words[skip + i] > last_dropped) | keep_all ? x[i] * scale : 0;
        x += count;
        y += count;
        first += count;
        n -= count;
    }
}

const tw_dropout_kernels TW_NAME(TW_TYPED(tw_dropout)) = {map};
