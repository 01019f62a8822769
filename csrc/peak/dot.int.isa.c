// The measured peak of integer dot products for one integer ISA: w_dot in registers.
//
// CHAINS as in loops.h: two vectors of factors, and one for products that are added by another instruction, still fit.
#include "../isa/isa.h"
#include "../isa/dot.h"
#include "peak.h"

#if defined __AVX512BW__ || defined __aarch64__
enum { CHAINS = 20 };
#else
enum { CHAINS = 12 };
#endif

// The same vector, but the compiler cannot know: else it would multiply once and only add in the loop.
INLINE wvec unknown(wvec a) {
#if defined __x86_64__
    __asm__("" : "+v"(a));
#elif defined __aarch64__
    __asm__("" : "+w"(a));
#else
    __asm__("" : "+m"(a));
#endif
    return a;
}

static double dot_products(ptrdiff_t steps, double start) {
    wvec a = w_set1(0x01020304), b = a, c[CHAINS];
    UNROLL for (int i = 0; i < CHAINS; i++) c[i] = w_set1((uint32_t)start + (uint32_t)i);
    for (ptrdiff_t step = 0; step < steps; step++) UNROLL for (int i = 0; i < CHAINS; i++) {
        a = unknown(a);
        c[i] = w_dot(c[i], a, b);
    }
    wvec sum = c[0];
    UNROLL for (int i = 1; i < CHAINS; i++) sum += c[i];
    return sum[0];
}

extern const tw_peak_loop TW_NAME(tw_peak_dot);
const tw_peak_loop TW_NAME(tw_peak_dot) = {2.0 * CHAINS * LANES * DEPTH, dot_products};
