// Products by vpmaddubsw, for one ISA: sums of two neighbours a b along k are held to 16 bits, then added up in 32.
//
//     word of a   a3 a2 a1 a0          pairs   [a3 b3 + a2 b2] [a1 b1 + a0 b0]   each held to -32768 ... 32767
//     word of b   b3 b2 b1 b0          sum  += both
//
// A product of uint8 and int8 fits 16 bits, so that a pair is clipped exactly where its sum taken modulo 2^16 is another number.
// Where there is no such instruction the same comes of that sum. Registers: 4 sums, 4 counts, the halves of b, of a, temporaries.
#include "../isa/dot.h"
#include "../isa/isa.h"
#include "kernels.h"

typedef uint16_t uvec __attribute__((vector_size(WVEC_BYTES)));
typedef int16_t svec __attribute__((vector_size(WVEC_BYTES)));

INLINE svec saturated(wvec a, wvec b, svec even, svec odd, svec sum) {
    (void)a, (void)b, (void)even, (void)odd, (void)sum; // each branch needs some of them
#if defined __AVX512BW__
    return (svec)_mm512_maddubs_epi16((__m512i)a, (__m512i)b);
#elif defined __AVX2__
    return (svec)_mm256_maddubs_epi16((__m256i)a, (__m256i)b);
#else
    const svec beyond = ((even ^ sum) & (odd ^ sum)) >> 15, end = (even >> 15) ^ 0x7fff; // both terms have the other sign
    return (end & beyond) | (sum & ~beyond);
#endif
}

// c + both halves of each word, as int16.
INLINE wvec add_pairs(wvec c, wvec pairs) {
#if defined __x86_64__
    return w_dot(c, pairs, w_set1(0x00010001)); // vpmaddwd: the flags of this file know no other dot product
#else
    typedef int32_t ivec __attribute__((vector_size(WVEC_BYTES)));
    return c + (wvec)((ivec)(pairs << 16) >> 16) + (wvec)((ivec)pairs >> 16);
#endif
}

INLINE int64_t rows(const int m, ptrdiff_t words, const uint32_t *a, const uint32_t *panel, int32_t *sums) {
    wvec sum[TW_MADDUBS_ROWS] = {{0}}, kept[TW_MADDUBS_ROWS] = {{0}}; // kept: minus the pairs that were clipped
    for (ptrdiff_t p = 0; p < words; p++, panel += LANES) {
        const wvec b = w_load(panel);
        const svec b_even = (svec)((uvec)b << 8) >> 8, b_odd = (svec)b >> 8;
        UNROLL for (int i = 0; i < m; i++) {
            const wvec av = w_set1(a[i * words + p]);
            const uvec even = ((uvec)av & 0xff) * (uvec)b_even, odd = ((uvec)av >> 8) * (uvec)b_odd, exact = even + odd;
            const svec pairs = saturated(av, b, (svec)even, (svec)odd, (svec)exact);
            sum[i] = add_pairs(sum[i], (wvec)pairs);
            kept[i] = add_pairs(kept[i], (wvec)(pairs != (svec)exact));
        }
    }
    int64_t clipped = 0;
    UNROLL for (int i = 0; i < m; i++) {
        w_store(sums + i * LANES, sum[i]);
        for (int lane = 0; lane < LANES; lane++) clipped -= (int32_t)kept[i][lane];
    }
    return clipped;
}

static int64_t tile(int m, ptrdiff_t words, const uint32_t *a, const uint32_t *panel, int32_t *sums) {
    switch (m) {
    case 1: return rows(1, words, a, panel, sums);
    case 2: return rows(2, words, a, panel, sums);
    case 3: return rows(3, words, a, panel, sums);
    default: return rows(TW_MADDUBS_ROWS, words, a, panel, sums);
    }
}

extern const tw_maddubs_kernels TW_NAME(tw_maddubs);
const tw_maddubs_kernels TW_NAME(tw_maddubs) = {LANES, tile};
