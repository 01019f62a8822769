// The loops behind the measured peaks, for one element type (TW_BITS) and one ISA; included by peak_f32.isa.c and peak_f64.isa.c.
//
// CHAINS independent sums stay in registers: enough to hide a latency of 4 to 6 cycles on two units (12) or four (20), and
// with the two factors still fewer than the 16 or 32 registers there are.
#include "../isa/isa.h"
#include "../isa/vec.h"
#include "peak.h"

#if defined __AVX512F__ || defined __aarch64__
enum { CHAINS = 20 };
#else
enum { CHAINS = 12 };
#endif

static double multiply_add(ptrdiff_t steps, double start) {
    const vec a = v_set1((real)0.999), b = v_set1((real)0.001); // c = 0.999 c + 0.001 tends to 1: no overflow, no denormal
    vec c[CHAINS];
    V_UNROLL for (int i = 0; i < CHAINS; i++) c[i] = v_set1((real)(start + i));
    for (ptrdiff_t step = 0; step < steps; step++) V_UNROLL for (int i = 0; i < CHAINS; i++) c[i] = v_fma(c[i], a, b);
    double sum = 0;
    V_UNROLL for (int i = 0; i < CHAINS; i++) sum += v_sum(c[i]);
    return sum;
}

// bytes is a multiple of 256: four vectors of the widest kind.
#define COPY(name, store)                                                    \
    static void name(ptrdiff_t bytes, const char *from, char *to) {          \
        for (ptrdiff_t i = 0; i < bytes; i += 4 * VEC_BYTES)                 \
            V_UNROLL for (int j = 0; j < 4; j++)                             \
                store((real *)(to + i + j * VEC_BYTES), v_load((const real *)(from + i + j * VEC_BYTES))); \
    }
COPY(copy_cached, v_store)
COPY(copy_past, v_stream)

static void copy_stream(ptrdiff_t bytes, const char *from, char *to) {
    copy_past(bytes, from, to);
    v_fence();
}

#define PEAK TW_NAME(TW_TYPED(tw_peak))
extern const tw_peak_kernels PEAK;
const tw_peak_kernels PEAK = {{2.0 * CHAINS * LANES, multiply_add}, {copy_cached, copy_stream}};
