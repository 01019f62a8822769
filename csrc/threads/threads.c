// The number of threads: of the process, of the calling thread, and worth using for a piece of work.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // sched_getaffinity
#endif
#include "threads.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

// ---- how many
//
// tw_set_num_threads speaks for all threads of the process: it raises a generation, and whoever has not seen that
// generation drops the number of its own that tw_set_local_threads may have given it.

static atomic_int everyone = 1; // the number for the process
static atomic_uint generation;
static _Thread_local unsigned seen;
static _Thread_local int mine;    // the calling thread's own number, or 0
_Thread_local int tw_in_task;

int tw_get_num_threads(void) {
    const unsigned now = atomic_load_explicit(&generation, memory_order_acquire);
    if (seen != now) {
        seen = now;
        mine = 0;
    }
    return mine ? mine : atomic_load_explicit(&everyone, memory_order_relaxed);
}

void tw_set_num_threads(int threads) {
    atomic_store_explicit(&everyone, threads < 1 ? 1 : threads, memory_order_relaxed);
    atomic_fetch_add_explicit(&generation, 1, memory_order_release);
}

int tw_set_local_threads(int threads) {
    tw_get_num_threads(); // drops a number that a later tw_set_num_threads has overruled
    const int before = mine;
    mine = threads < 0 ? 0 : threads;
    return before;
}

int tw_threads_for(double ns) {
    if (ns < TW_PARALLEL_NS || tw_in_task) return 1;
    const int threads = tw_get_num_threads();
    return ns < threads * TW_SHARE_NS ? (int)(ns / TW_SHARE_NS) : threads;
}

static int default_threads(void) {
    static const char *const names[] = {"TILEWRIGHT_NUM_THREADS", "OMP_NUM_THREADS"};
    for (int i = 0; i < 2; i++) {
        const char *asked = getenv(names[i]);
        if (asked && atoi(asked) > 0) return atoi(asked);
    }
#ifdef __linux__
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return CPU_COUNT(&cpus);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int)online;
}

__attribute__((constructor)) static void start(void) { atomic_store(&everyone, default_threads()); }
