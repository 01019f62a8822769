// Threads for kernels: tasks from an atomic counter to the calling thread and a pool.
//
// Who runs a task is left to chance, so a task must own what it writes and its result must not depend on how many threads
// there are; that is what makes results the same bits at any number of threads.
#ifndef TW_THREADS_H
#define TW_THREADS_H

#include "../tilewright.h"

#define TW_SHARE_NS 3000.0 // a thread's share must be so long: handing it to one that is awake costs 0.2-0.5 us
#define TW_PARALLEL_NS (2 * TW_SHARE_NS) // less than this is done by the calling thread alone

extern _Thread_local int tw_in_task; // the calling thread runs a task: what that calls runs on it alone

typedef void tw_task(void *context, ptrdiff_t task);
typedef void tw_range(void *context, ptrdiff_t begin, ptrdiff_t end);

// Threads worth using for work that one thread does in about `ns` nanoseconds.
int tw_threads_for(double ns);

// run(context, 0 .. tasks-1), each once, by tw_threads_for(ns) threads.
void tw_parallel(ptrdiff_t tasks, double ns, tw_task *run, void *context);

// run(context, begin, end) over disjoint ranges that make up [0, n); all but the last are multiples of `grain` long.
void tw_parallel_ranges(ptrdiff_t n, ptrdiff_t grain, double ns, tw_range *run, void *context);

// At least `bytes` of 64-byte aligned memory that belongs to the calling thread until its next call; NULL when there is
// none. Kept for the next call, freed when the thread ends.
void *tw_workspace(size_t bytes);

// Another such buffer, for who calls functions that use the first.
void *tw_second_workspace(size_t bytes);

#endif
