// The measured peak of integer dot products for one integer ISA: w_dot in registers, or the products of a matrix unit.
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

#ifdef __AMX_INT8__
#include "../isa/amx.h"
#define STEP_OPERATIONS (4 * 2.0 * TW_AMX_SIDE * TW_AMX_SIDE * 4 * TW_AMX_SIDE)

static double dot_products(ptrdiff_t steps, double start) {
    int32_t c[TW_AMX_SIDE * TW_AMX_SIDE];
    for (int i = 0; i < TW_AMX_SIDE * TW_AMX_SIDE; i++) c[i] = (int32_t)start + i;
    amx_open(2 * TW_AMX_SIDE);
    _tile_loadd(0, c, 64);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, c, 64);
    _tile_loadd(5, c, 64);
    _tile_loadd(6, c, 64);
    _tile_loadd(7, c, 64);
    for (ptrdiff_t step = 0; step < steps; step++) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(3, c, 64);
    _tile_release();
    return c[0];
}
#else
#define STEP_OPERATIONS (2.0 * CHAINS * LANES * DEPTH)

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
#endif

extern const tw_peak_loop TW_NAME(tw_peak_dot);
const tw_peak_loop TW_NAME(tw_peak_dot) = {STEP_OPERATIONS, dot_products};
