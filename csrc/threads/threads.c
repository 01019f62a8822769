// The pool behind tw_parallel, the number of threads, and what fork() needs.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // sched_getaffinity
#endif
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
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
static _Thread_local int in_task; // the calling thread runs a task: what that calls runs on it alone

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

int tw_threads_for(double ns) { return ns < TW_PARALLEL_NS || in_task ? 1 : tw_get_num_threads(); }

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

// ---- the pool
//
//   caller    puts its job on the list, takes tasks until none is left, takes the job off the list, and waits for the
//             workers inside it, if any
//   worker    takes the first job on the list that wants help, takes tasks until none is left, and looks again
//
// The caller waits for no worker that has not begun: on a machine whose CPUs are busy with something else it does all
// of the work, in the time that one thread takes. Both spin for a moment before they sleep, since the next call of a
// training step comes within microseconds, and waking a thread takes tens of them.

#define IDLE_SPINS 4000 // pauses; some 100 us
#define LAST_SPINS 1000

typedef struct job {
    tw_task *run;
    void *context;
    ptrdiff_t tasks;
    atomic_ptrdiff_t next;
    int wanted;        // workers that may still join; above 0 while the job is on the list
    atomic_int inside; // workers that have joined and not left
    int cpu;           // where the caller runs, or -1
    struct job *later;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, left = PTHREAD_COND_INITIALIZER;
static job *jobs; // those that want workers
static atomic_int listed;
static int workers, asleep;

// A thread that is woken often starts on the CPU of the one who woke it, and the two then share it for milliseconds while
// another stands idle. A worker that finds itself there leaves that CPU to the caller.

static int current_cpu(void) {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

static void leave_cpu(int cpu) {
#ifdef __linux__
    cpu_set_t cpus;
    if (sched_getaffinity(getpid(), sizeof cpus, &cpus)) return; // of the main thread: what the process may use
    CPU_CLR(cpu, &cpus);
    if (CPU_COUNT(&cpus)) sched_setaffinity(0, sizeof cpus, &cpus);
#else
    (void)cpu;
#endif
}

static void pause_briefly(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#endif
}

static void take_tasks(job *j) {
    in_task = 1;
    for (ptrdiff_t task; (task = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->tasks;)
        j->run(j->context, task);
    in_task = 0;
}

static void unlist(job *j) {
    job **at = &jobs;
    while (*at != j) at = &(*at)->later;
    *at = j->later;
    j->wanted = 0;
    atomic_fetch_sub_explicit(&listed, 1, memory_order_relaxed);
}

static void *worker(void *unused) {
    for (;;) {
        for (int i = 0; i < IDLE_SPINS && !atomic_load_explicit(&listed, memory_order_relaxed); i++) pause_briefly();
        pthread_mutex_lock(&lock);
        while (!jobs) {
            asleep++;
            pthread_cond_wait(&work, &lock);
            asleep--;
        }
        job *j = jobs;
        atomic_fetch_add_explicit(&j->inside, 1, memory_order_relaxed);
        if (j->wanted == 1)
            unlist(j);
        else
            j->wanted--;
        pthread_mutex_unlock(&lock);

        if (j->cpu >= 0 && j->cpu == current_cpu()) leave_cpu(j->cpu);
        take_tasks(j);

        pthread_mutex_lock(&lock);
        if (atomic_fetch_sub_explicit(&j->inside, 1, memory_order_release) == 1) // from here on *j may be gone
            pthread_cond_broadcast(&left);
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void start_workers(int wanted) { // with the lock held; fewer start where the system has no more
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the threads of the program
    for (pthread_t thread; workers < wanted && pthread_create(&thread, NULL, worker, NULL) == 0; workers++)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void tw_parallel(ptrdiff_t tasks, double ns, tw_task *run, void *context) {
    int threads = tw_threads_for(ns);
    if (threads > tasks) threads = (int)tasks;
    if (threads <= 1) {
        for (ptrdiff_t task = 0; task < tasks; task++) run(context, task);
        return;
    }
    job j = {.run = run, .context = context, .tasks = tasks, .wanted = threads - 1, .cpu = current_cpu()};

    pthread_mutex_lock(&lock);
    if (workers < j.wanted) start_workers(j.wanted);
    j.later = jobs;
    jobs = &j;
    atomic_fetch_add_explicit(&listed, 1, memory_order_relaxed);
    for (int i = 0; i < j.wanted && i < asleep; i++) pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);

    take_tasks(&j);

    pthread_mutex_lock(&lock);
    if (j.wanted) unlist(&j);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < LAST_SPINS && atomic_load_explicit(&j.inside, memory_order_acquire); i++) pause_briefly();
    if (!atomic_load_explicit(&j.inside, memory_order_acquire)) return;
    pthread_mutex_lock(&lock);
    while (atomic_load_explicit(&j.inside, memory_order_acquire)) pthread_cond_wait(&left, &lock);
    pthread_mutex_unlock(&lock);
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
    if (n <= 0) return;
    ptrdiff_t threads = tw_threads_for(ns), grains = (n - 1) / grain + 1;
    ptrdiff_t pieces = threads == 1 ? 1 : 3 * threads; // three a thread: an uneven start costs a third of one at most
    if (pieces > grains) pieces = grains;
    struct ranges r = {n, ((grains - 1) / pieces + 1) * grain, run, context};
    tw_parallel((n - 1) / r.length + 1, ns, run_range, &r);
}

// ---- fork
//
// A forked child has the forking thread only: it begins with an empty pool and starts workers of its own.

static void before_fork(void) { pthread_mutex_lock(&lock); }

static void in_parent(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&work, NULL);
    pthread_cond_init(&left, NULL);
    jobs = NULL;
    atomic_store(&listed, 0);
    workers = asleep = 0;
}

__attribute__((constructor)) static void start(void) {
    pthread_atfork(before_fork, in_parent, in_child);
    atomic_store(&everyone, default_threads());
}
