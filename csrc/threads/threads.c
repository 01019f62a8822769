// The OpenMP team behind tw_parallel, the number of threads, and what fork() needs.
#include "threads.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

// ---- how many
//
// OpenMP keeps the number per calling thread. tw_set_num_threads speaks for all of them: it raises a generation, and a
// thread that has not seen the generation takes the number over once. After that whatever else sets OpenMP's number for
// the thread (threadpoolctl, tw_set_local_threads) counts. Without any call OpenMP's default stands: OMP_NUM_THREADS or
// the CPUs in the affinity mask.

static atomic_int everyone; // the number set for the process
static atomic_uint generation;
static _Thread_local unsigned seen;

int tw_get_num_threads(void) {
    unsigned now = atomic_load_explicit(&generation, memory_order_acquire);
    if (seen != now) {
        omp_set_num_threads(atomic_load_explicit(&everyone, memory_order_relaxed));
        seen = now;
    }
    return omp_get_max_threads();
}

void tw_set_num_threads(int threads) {
    atomic_store_explicit(&everyone, threads < 1 ? 1 : threads, memory_order_relaxed);
    atomic_fetch_add_explicit(&generation, 1, memory_order_release);
}

int tw_set_local_threads(int threads) {
    int before = tw_get_num_threads();
    omp_set_num_threads(threads < 1 ? 1 : threads);
    return before;
}

int tw_threads_for(double ns) { return ns < TW_PARALLEL_NS || omp_in_parallel() ? 1 : tw_get_num_threads(); }

// ---- the team

void tw_parallel(ptrdiff_t tasks, double ns, tw_task *run, void *context) {
    int threads = tw_threads_for(ns);
    if (threads > tasks)
        threads = (int)tasks;
    if (threads <= 1) {
        for (ptrdiff_t task = 0; task < tasks; task++)
            run(context, task);
        return;
    }
    atomic_ptrdiff_t next = 0;
#pragma omp parallel num_threads(threads)
    for (ptrdiff_t task; (task = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed)) < tasks;)
        run(context, task);
}

struct ranges {
    ptrdiff_t n, length;
    tw_range *run;
    void *context;
};

static void run_range(void *context, ptrdiff_t task) {
    const struct ranges *r = context;
    ptrdiff_t begin = task * r->length, end = begin + r->length;
    r->run(r->context, begin, end < r->n ? end : r->n);
}

void tw_parallel_ranges(ptrdiff_t n, ptrdiff_t grain, double ns, tw_range *run, void *context) {
    if (n <= 0)
        return;
    ptrdiff_t threads = tw_threads_for(ns), grains = (n - 1) / grain + 1;
    ptrdiff_t pieces = threads == 1 ? 1 : 3 * threads; // three a thread: an uneven start costs a third of one at most
    if (pieces > grains)
        pieces = grains;
    struct ranges r = {n, ((grains - 1) / pieces + 1) * grain, run, context};
    tw_parallel((n - 1) / r.length + 1, ns, run_range, &r);
}

// ---- fork
//
// A forked child has one thread, but libgomp's team still counts the parent's: the first region in the child would wait
// for them for ever. Letting the team go before the fork cures both sides; the parent's next region starts a new one.

static void before_fork(void) { omp_pause_resource_all(omp_pause_hard); }

__attribute__((constructor)) static void start(void) {
    pthread_atfork(before_fork, NULL, NULL);
    const char *asked = getenv("TILEWRIGHT_NUM_THREADS");
    if (asked && atoi(asked) > 0)
        tw_set_num_threads(atoi(asked));
}
