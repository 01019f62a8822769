// What this machine can do at most, measured: multiply-adds and integer dot products in registers, and copies of a given
// size. Benchmarks put their rates in relation to these.
#include "peak.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../isa/isa.h"
#include "../threads/threads.h"

TW_KERNELS(tw_peak_kernels, tw_peak_f32)
TW_KERNELS(tw_peak_kernels, tw_peak_f64)
TW_INT_KERNELS(tw_peak_loop, tw_peak_dot)

#define TRIAL 5e-4       // seconds that a trial should last: long beside the start of a team, short beside a time slice
#define BYTES_PER_NS 20. // a guess, to decide whether threads pay
enum { TRIALS = 16 };    // at least, on a machine so busy that few fit into the time

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- multiply-adds, dot products

typedef struct {
    const tw_peak_loop *loop;
    ptrdiff_t steps;
    double start;
    volatile double sink; // keeps the loop from being dropped
} loop_trial;

static void loop_task(void *context, ptrdiff_t task) {
    loop_trial *t = context;
    t->sink = t->loop->run(t->steps, t->start + (double)task);
}

// Steps that take one thread about TRIAL; where others use the CPU too, its shortest trial counts.
static ptrdiff_t steps_of_a_trial(loop_trial *t) {
    double best = 1;
    for (int i = 0; i < TRIALS; i++) {
        const double begin = now();
        loop_task(t, 0);
        const double took = now() - begin;
        best = took < best ? took : best;
    }
    return (ptrdiff_t)((double)t->steps * TRIAL / best) + 1;
}

static double loop_rate(const tw_peak_loop *loop, double seconds) {
    loop_trial t = {loop, 10000, 0.5, 0};
    t.steps = steps_of_a_trial(&t);
    const int threads = tw_get_num_threads(); // one task each
    double best = 0;
    int trials = 0;
    for (double start = now(), begin = start, end; begin - start < seconds || trials < TRIALS; begin = end, trials++) {
        tw_parallel(threads, 1e9 * TRIAL, loop_task, &t);
        end = now();
        const double rate = threads * (double)t.steps * loop->step_operations / (end - begin);
        if (rate > best)
            best = rate;
    }
    return best;
}

double tw_measure_fma(int dtype, double seconds) {
    if (dtype != TW_FLOAT32 && dtype != TW_FLOAT64)
        return 0;
    const tw_peak_kernels *k = dtype == TW_FLOAT32 ? TW_PICK(tw_peak_f32) : TW_PICK(tw_peak_f64);
    return loop_rate(&k->multiply_add, seconds);
}

double tw_measure_dot(double seconds) { return loop_rate(TW_INT_PICK(tw_peak_dot), seconds); }

// ---- copies

typedef struct {
    void (*copy)(ptrdiff_t bytes, const char *from, char *to);
    char *from, *to;
} copy_trial;

enum { GRAIN = 4096 };

static void copy_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const copy_trial *t = context;
    t->copy(end - begin, t->from + begin, t->to + begin);
}

static double copy_rate(copy_trial *t, ptrdiff_t bytes, double seconds) {
    const double once = (double)bytes * 2 / BYTES_PER_NS; // nanoseconds
    const ptrdiff_t times = (ptrdiff_t)(1e9 * TRIAL / once) + 1;
    double best = 0;
    int trials = 0;
    for (double start = now(), begin = start, end; begin - start < seconds || trials < TRIALS; begin = end, trials++) {
        for (ptrdiff_t i = 0; i < times; i++) tw_parallel_ranges(bytes, GRAIN, once, copy_range, t);
        end = now();
        const double rate = 2.0 * (double)bytes * (double)times / (end - begin);
        if (rate > best)
            best = rate;
    }
    return best;
}

double tw_measure_copy(size_t bytes, double seconds) {
    const size_t half = (bytes / 2 + GRAIN - 1) / GRAIN * GRAIN;
    char *memory = half ? aligned_alloc(GRAIN, 2 * half) : NULL;
    if (!memory)
        return 0;
    memset(memory, 1, 2 * half);
    double best = 0;
    for (int past = 0; past < 2; past++) {
        copy_trial t = {TW_PICK(tw_peak_f32)->copy[past], memory, memory + half};
        const double rate = copy_rate(&t, (ptrdiff_t)half, seconds / 2);
        if (rate > best)
            best = rate;
    }
    free(memory);
    return best;
}
