// Threads for kernels: tasks from an atomic counter to the calling thread and a pool. tw_parallel, tw_parallel_ranges and
// tw_workspace are public: see tilewright.h.
//
// Who runs a task is left to chance, so a task must own what it writes and its result must not depend on how many threads
// there are; that is what makes results the same bits at any number of threads.
#ifndef TW_THREADS_H
#define TW_THREADS_H

#include "../tilewright.h"

#define TW_SHARE_NS 3000.0 // a thread's share must be so long: handing it to one that is awake costs 0.2-0.5 us
#define TW_PARALLEL_NS (2 * TW_SHARE_NS) // less than this is done by the calling thread alone

extern _Thread_local int tw_in_task; // the calling thread runs a task: what that calls runs on it alone

// Threads worth using for work that one thread does in about `ns` nanoseconds.
int tw_threads_for(double ns);

// Another workspace, for who calls functions that use the first; and one for who calls functions that use both.
void *tw_second_workspace(size_t bytes);
void *tw_third_workspace(size_t bytes);

#endif
