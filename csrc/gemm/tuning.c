// What was measured for each instruction set, what the caches of this machine make of it, and tw_set_gemm_tuning.
#include "tuning.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../isa/isa.h"
#include "../threads/threads.h"

// ---- one row an instruction set; 0 where the caches decide, below
//
// Measured on one Zen 5 core (48 KiB of L1, 1 MiB of L2) with float32, in GFLOP/s:
//   stream_rows   in slabs, packed:  64x768x1000 244, 238 (AVX2 125, 123)   16x1024x1024 219, 185   64x3072x768 192, 240
//   stream_depth  32, 64, 128, 256:  8x1000x1000 189, 210, 224, 226         32x1024x1024 199, 225, 235, 234
//   column_bytes  3072, 4096:         1024x1024x1024 260, 264    128x512x784 on 2 threads 449, 466    2048x2048x2048 257, 254
//   vector_ns     the reciprocal of 5 multiply-adds a nanosecond, which is 160 of float32 with 16 lanes
#define TUNING_avx512 {.stream_rows = 64, .stream_depth = 128, .column_bytes = 4096, .vector_ns = 0.2}
#define TUNING_avx2 TUNING_avx512
#define TUNING_baseline TUNING_avx512 // not measured
#define TUNING_neon TUNING_avx512     // not measured

#define ROW_(isa, unused) TUNING_##isa,
static const tw_gemm_tuning by_isa[] = {TW_ISAS(ROW_, )};

// ---- this machine

// A cache of the first CPU: by sysconf, which knows x86, or from sysfs, which knows Arm; else what most cores have.
static ptrdiff_t cache_bytes(int name, const char *file, ptrdiff_t otherwise) {
    long bytes = name < 0 ? 0 : sysconf(name);
    FILE *sys = bytes > 0 ? NULL : fopen(file, "r");
    if (sys) {
        bytes = fscanf(sys, "%ldK", &bytes) == 1 ? bytes << 10 : 0;
        fclose(sys);
    }
    return bytes > 0 ? bytes : otherwise;
}

#ifdef _SC_LEVEL2_CACHE_SIZE
enum { L1 = _SC_LEVEL1_DCACHE_SIZE, L2 = _SC_LEVEL2_CACHE_SIZE };
#else
enum { L1 = -1, L2 = -1 };
#endif
#define SYS_CACHE "/sys/devices/system/cpu/cpu0/cache/"

static tw_gemm_tuning ours;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_ours(void) {
    ours = by_isa[tw_isa_index];
    ours.l1_bytes = cache_bytes(L1, SYS_CACHE "index0/size", 32 << 10);
    ours.l2_bytes = cache_bytes(L2, SYS_CACHE "index2/size", 512 << 10);
    ours.direct_bytes = ours.l2_bytes / 2; // 64 KiB, 512 KiB: 256x256x256 241, 253; 8x256x512 179, 258 (AVX2 106, 130)
    ours.stream_bytes = ours.l1_bytes / 3; // the rows of b that pass want the rest of L1
    ours.block_bytes = ours.l2_bytes / 2;  // a and c pass through the other half; from 0.25 to 0.75 all alike
    ours.parallel_ns = TW_PARALLEL_NS;
}

// ---- what is in force

static _Atomic(const tw_gemm_tuning *) asked_for; // NULL: ours

const tw_gemm_tuning *tw_gemm_tuned(void) {
    const tw_gemm_tuning *set = atomic_load_explicit(&asked_for, memory_order_acquire);
    if (set)
        return set;
    pthread_once(&once, make_ours);
    return &ours;
}

void tw_get_gemm_tuning(tw_gemm_tuning *tuning) { *tuning = *tw_gemm_tuned(); }

static int within(ptrdiff_t value, ptrdiff_t least, ptrdiff_t most) { return least <= value && value <= most; }

static int is_valid(const tw_gemm_tuning *t) {
    const ptrdiff_t most = (ptrdiff_t)1 << 30;
    return within(t->l1_bytes, 1, most) && within(t->l2_bytes, 1, most) && within(t->direct_bytes, 0, most) &&
           within(t->stream_rows, 0, 4096) && within(t->stream_bytes, 1024, most) && within(t->stream_depth, 1, 1024) &&
           within(t->column_bytes, 64, 1 << 20) && within(t->block_bytes, 4096, most) && isfinite(t->vector_ns) &&
           t->vector_ns > 0 && isfinite(t->parallel_ns) && t->parallel_ns >= 0;
}

int tw_set_gemm_tuning(const tw_gemm_tuning *tuning) {
    if (tuning && !is_valid(tuning))
        return TW_INVALID;
    tw_gemm_tuning *kept = NULL; // never freed: a product on another thread may be reading the set before it
    if (tuning) {
        kept = malloc(sizeof *kept);
        if (!kept)
            return TW_NO_MEMORY;
        *kept = *tuning;
    }
    atomic_store_explicit(&asked_for, kept, memory_order_release);
    return TW_OK;
}
