// Products of float rows with weights of 8 or 4 bits, as they come from memory.
//
//                w: one k, NV vectors                  The columns of a panel lie in the lanes. Each step widens NV vectors
//                | v0 | v1 | v2 | v3 |                 of weights to float and multiplies them by m numbers of x, each
//              --+----+----+----+----+                 spread over a vector. The sums of a group stay in registers; its
//     x[i][k] -> | s  | s  | s  | s  |   m x NV        scale is applied once, when they are added to those of the panel.
//
// Registers: m * NV for sums (one row: twice that, for one chain of FMAs a vector would wait for itself), NV of lanes, 1 weight,
// 1 of x, 1 table. Of 32: 6 * 4 + 4 + 1 + 1 + 1 = 31; of 16: 3 * 4 + 1 + 1 = 14.
// With zeros, what they add to a column is zero * (sum of x over the group), which takes no time in the loop over k.
#define TW_BITS 32
#include "../isa/vec.h"
#include "weights.h"

#if defined __AVX512F__ || defined __aarch64__
#define ROWS 6
#else
#define ROWS 3
#endif
enum { NV = 4, WIDTH = NV * LANES, BLOCK = WIDTH * 4 };

// Far enough that a core keeps as many lines under way as it can, near enough that they are still in L1: 8192x8192 of 8 bits
// on one thread takes 1.85 ms with 2 KiB, 1.48 with 4, 1.24 with 8, 1.12 with 16; of 4 bits 1.38, 1.17, 0.94, 0.93.
// From memory that is further away, lines come into L2 first, for L1 waits for few at a time: Granite Rapids, the same product, 4 bits
// 3.1 ms and 2.2, 8 bits 5.9 and 3.7; without FAR 4.4 with 1 KiB AHEAD, 10.6 past the caches.
#define AHEAD 8192
#define FAR (8 * AHEAD)

// Number t of the depth k in a block, for the columns of vector v.
INLINE vec weight(const int bits, const char *block, const int t, const int v) {
    if (bits == 8)
        return v_to_real(v_load_s8((const int8_t *)block + t * WIDTH + v * LANES));
    const ivec lanes = v_load_s32((const int32_t *)block + v * LANES);
#if LOOKUP == 16 // which looks at the low 4 bits alone
    static const real value[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    return v_lookup(value, lanes >> 4 * t, 16);
#else // or-ed into a float whose ones stand at bit `at`; conversion would take one shift more (AVX2 2.9 ms, 2.6; SSE2 7.9, 6.5)
    const int at = t < 5 ? 4 * t : 4 * t - 20;
    const real base = 1 << (23 - at);
    const ivec raised = ((t < 5 ? lanes : lanes >> 20) & (15 << at)) | v_bits(v_set1(base));
    return v_from_bits(raised) - v_set1(base + 8);
#endif
}

// ---- the parts of a panel

typedef struct {
    const real *scales;
    const int8_t *zeros; // or NULL
    const char *blocks;
    ptrdiff_t k;
} group;

// The group that begins at `at`, when `left` k are left.
INLINE group open_group(const tw_weight_layout *w, const char *at, ptrdiff_t left) {
    const char *behind = at + WIDTH * sizeof(real);
    return (group){.scales = (const real *)at, .zeros = w->has_zeros ? (const int8_t *)behind : NULL,
                   .blocks = behind + (w->has_zeros ? WIDTH : 0), .k = left < w->group_size ? left : w->group_size};
}

INLINE void fetch_ahead(const char *block) {
    V_UNROLL for (int at = 0; at < BLOCK; at += 64) {
        __builtin_prefetch(block + AHEAD + at, 0, 3);
        __builtin_prefetch(block + FAR + at, 0, 2);
    }
}

// ---- products

INLINE void step(const int m, const int bits, const char *block, const int t, const real *x, ptrdiff_t x_row, vec (*acc)[NV]) {
    V_UNROLL for (int v = 0; v < NV; v++) {
        const vec w = weight(bits, block, t, v);
        V_UNROLL for (int i = 0; i < m; i++) acc[i][v] = v_fma(w, v_set1(x[i * x_row + t]), acc[i][v]);
    }
}

INLINE void tile(const int m, const int bits, const tw_weight_layout *w, const char *at, const tw_weight_rows *rows, real *sums) {
    const int depth = 32 / bits, chains = m == 1 ? 2 : 1;
    const real *x = rows->x, *x_sums = rows->sums;
    for (int i = 0; i < m * NV; i++) v_store(sums + i * LANES, (vec){0});
    for (ptrdiff_t left = w->k; left > 0; left -= w->group_size, x_sums++) {
        group g = open_group(w, at, left);
        vec acc[2 * ROWS][NV];
        V_UNROLL for (int i = 0; i < chains * m; i++) V_UNROLL for (int v = 0; v < NV; v++) acc[i][v] = (vec){0};
        for (; g.k >= depth; g.k -= depth, x += depth, g.blocks += BLOCK) {
            fetch_ahead(g.blocks);
            V_UNROLL for (int t = 0; t < depth; t++) step(m, bits, g.blocks, t, x, rows->x_row, acc + t % chains);
        }
        if (g.k > 0) {
            for (int t = 0; t < g.k; t++) step(m, bits, g.blocks, t, x, rows->x_row, acc);
            x += g.k;
            g.blocks += BLOCK;
        }
        at = g.blocks;
        V_UNROLL for (int v = 0; v < NV; v++) {
            const vec scale = v_load(g.scales + v * LANES), zero = g.zeros ? v_to_real(v_load_s8(g.zeros + v * LANES)) : (vec){0};
            V_UNROLL for (int i = 0; i < m; i++) {
                real *sum = sums + (i * NV + v) * LANES;
                vec total = chains == 2 ? acc[0][v] + acc[1][v] : acc[i][v];
                if (g.zeros) total = v_fnma(zero, v_set1(x_sums[i * rows->sums_row]), total);
                v_store(sum, v_fma(scale, total, v_load(sum)));
            }
        }
    }
}

static void sum_groups(const tw_weight_layout *w, const real *x, real *sums) {
    for (ptrdiff_t left = w->k; left > 0; left -= w->group_size, x += w->group_size) {
        const ptrdiff_t k = left < w->group_size ? left : w->group_size;
        vec sum = {0};
        V_EACH(k, sum += v_load_left(x + i, left););
        *sums++ = v_sum(sum);
    }
}

// ---- float32 again

INLINE void expand(const int bits, const tw_weight_layout *w, const char *at, real *to, ptrdiff_t row) {
    const int depth = 32 / bits;
    for (ptrdiff_t left = w->k; left > 0; left -= w->group_size) {
        group g = open_group(w, at, left);
        vec scale[NV], zero[NV];
        V_UNROLL for (int v = 0; v < NV; v++) {
            scale[v] = v_load(g.scales + v * LANES);
            zero[v] = g.zeros ? v_to_real(v_load_s8(g.zeros + v * LANES)) : (vec){0};
        }
        for (; g.k > 0; g.k -= depth, g.blocks += BLOCK) {
            fetch_ahead(g.blocks);
            for (int t = 0; t < (g.k < depth ? (int)g.k : depth); t++, to += row)
                V_UNROLL for (int v = 0; v < NV; v++) v_store(to + v * LANES, (weight(bits, g.blocks, t, v) - zero[v]) * scale[v]);
        }
        at = g.blocks;
    }
}

// ---- one function for each number of rows and of bits

#define TILE(m, bits) \
    static void tile_##m##_##bits(const tw_weight_layout *w, const char *panel, const tw_weight_rows *rows, float *sums) { \
        tile(m, bits, w, panel, rows, sums); \
    }
#define EXPAND(bits) \
    static void expand_##bits(const tw_weight_layout *w, const char *panel, float *to, ptrdiff_t row) { \
        expand(bits, w, panel, to, row); \
    }
#if ROWS == 6
#define EACH_ROW(X, bits) X(1, bits) X(2, bits) X(3, bits) X(4, bits) X(5, bits) X(6, bits)
#else
#define EACH_ROW(X, bits) X(1, bits) X(2, bits) X(3, bits)
#endif
EACH_ROW(TILE, 8)
EACH_ROW(TILE, 4)
EXPAND(8)
EXPAND(4)

#define TILE_AT(m, bits) [m - 1] = tile_##m##_##bits,

extern const tw_weight_kernels TW_NAME(tw_weight);
const tw_weight_kernels TW_NAME(tw_weight) = {
    .width = WIDTH, .rows = ROWS, .tile = {{EACH_ROW(TILE_AT, 8)}, {EACH_ROW(TILE_AT, 4)}}, .sum_groups = sum_groups,
    .expand = {expand_8, expand_4}};
