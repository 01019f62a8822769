// The pool behind tw_parallel, and what fork() needs of it.
//
//   caller    puts its job on the list, takes tasks until none is left, takes the job off the list, and waits for the
//             workers inside it, if any
//   worker    takes the first job on the list that wants help, takes tasks until none is left, and looks again:
//
//       looks for a job ──IDLE_NS──> sleeps ──woken by a caller──> looks for a job
//
// The caller waits for no worker that has not begun: on a machine whose CPUs are busy with something else it does all
// of the work, in the time that one thread takes.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // pthread_setaffinity_np
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

// A worker that is awake begins 0.2 us after the call. Waking one takes the caller 10 us (40 where both have slept for
// long), and the worker 15 to 60 more (Zen 5, in a virtual machine). So workers stay awake for the next call of a training
// step, and work that would be done by then does not wake them, unless such calls follow upon each other so fast that they
// would have stayed awake. (AMX, integer products of 512x512x512, 90 us on one thread, in bursts of a few: 2.2 Tops/s where 100 us
// woke workers, 3.2 with 50.)
#define IDLE_NS 100e3
#define WAKE_NS 50e3
#define LAST_NS 50e3 // so long the caller waits awake for the last tasks

typedef struct job {
    tw_task *run;
    void *context;
    ptrdiff_t tasks;
    atomic_ptrdiff_t next;
    int wanted;        // workers that may still join; above 0 while the job is on the list
    int wakes;         // is worth waking sleepers for
    atomic_int inside; // workers that have joined and not left
    struct job *later;
} job;

typedef struct member {
    pthread_t thread;
    pthread_cond_t wake;
    int asleep; // and in the list of those
    int barred; // the CPU that it keeps away from, or -1
    struct member *next;
} member;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static job *jobs; // those that want workers
static member *sleepers;
static int workers;
static atomic_int listed, idle, waiting; // jobs; workers that look for one; callers asleep

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void pause_briefly(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#endif
}

static void acquire(void) { // held for less time than it takes to sleep and be woken
    for (int i = 0; i < 100; i++, pause_briefly())
        if (pthread_mutex_trylock(&lock) == 0) return;
    pthread_mutex_lock(&lock);
}

static void release(void) { pthread_mutex_unlock(&lock); }

// A thread that is woken often starts on the CPU of the one who woke it, and waits there for milliseconds while another
// CPU stands idle. So whoever wakes a worker bars its own CPU to it.
static void bar_this_cpu(pthread_t thread, int *barred) {
#ifdef __linux__
    cpu_set_t cpus;
    const int here = sched_getcpu();
    if (here == *barred || here < 0 || here >= CPU_SETSIZE) return;
    if (sched_getaffinity(getpid(), sizeof cpus, &cpus)) return; // of the main thread: what the process may use
    CPU_CLR(here, &cpus);
    if (CPU_COUNT(&cpus) && pthread_setaffinity_np(thread, sizeof cpus, &cpus) == 0) *barred = here;
#else
    (void)thread, (void)barred;
#endif
}

// ---- workers

static void take_tasks(job *j) {
    tw_in_task = 1;
    for (ptrdiff_t task; (task = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->tasks;)
        j->run(j->context, task);
    tw_in_task = 0;
}

static void unlist(job *j) { // with the lock held
    job **at = &jobs;
    while (*at != j) at = &(*at)->later;
    *at = j->later;
    j->wanted = 0;
    atomic_fetch_sub_explicit(&listed, 1, memory_order_relaxed);
}

static job *join(void) { // with the lock held
    job *j = jobs;
    if (!j) return NULL;
    atomic_fetch_sub_explicit(&idle, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->inside, 1, memory_order_relaxed);
    if (j->wanted == 1)
        unlist(j);
    else
        j->wanted--;
    return j;
}

static void leave(job *j) {
    atomic_fetch_add_explicit(&idle, 1, memory_order_relaxed);
    const int last = atomic_fetch_sub(&j->inside, 1) == 1; // from here on *j may be gone
    if (!last || !atomic_load(&waiting)) return;
    acquire(); // a caller that counted the worker inside is asleep by now
    pthread_cond_broadcast(&left);
    release();
}

// A sleeper that j has use for; with the lock held.
static member *choose_sleeper(const job *j) {
    member *m = sleepers;
    if (!j || !j->wakes || !m || atomic_load_explicit(&idle, memory_order_relaxed) >= j->wanted) return NULL;
    sleepers = m->next;
    m->asleep = 0;
    atomic_fetch_add_explicit(&idle, 1, memory_order_relaxed);
    return m;
}

static void wake(member *m) {
    if (!m) return;
    bar_this_cpu(m->thread, &m->barred);
    pthread_cond_signal(&m->wake);
}

static void sleep_until_woken(member *self) { // with the lock held
    atomic_fetch_sub_explicit(&idle, 1, memory_order_relaxed);
    self->asleep = 1;
    self->next = sleepers;
    sleepers = self;
    while (self->asleep) pthread_cond_wait(&self->wake, &lock);
}

static int is_quiet_until(double until) { // looks at the clock, which takes a pause itself, now and then
    for (int i = 0; !atomic_load_explicit(&listed, memory_order_relaxed); i++, pause_briefly())
        if (i % 32 == 0 && now() > until) return 1;
    return 0;
}

static void *worker(void *unused) {
    member self = {.thread = pthread_self(), .wake = PTHREAD_COND_INITIALIZER, .barred = -1};
    for (;;) {
        const int tired = is_quiet_until(now() + IDLE_NS);
        acquire();
        job *j = join();
        member *next = choose_sleeper(j); // each who is awake wakes one more
        if (!j && tired) sleep_until_woken(&self);
        release();
        wake(next);
        if (j) {
            take_tasks(j);
            leave(j);
        }
    }
    return unused;
}

static void start_workers(int wanted) { // with the lock held; fewer start where the system has no more
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the threads of the program
    for (pthread_t thread; workers < wanted && pthread_create(&thread, NULL, worker, NULL) == 0; workers++) {
        atomic_fetch_add_explicit(&idle, 1, memory_order_relaxed);
        bar_this_cpu(thread, &(int){-1});
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// ---- callers

static int is_worth_waking(double ns) { // with the lock held
    static double last; // when such a call last went without the sleepers
    if (ns >= WAKE_NS) return 1;
    if (!sleepers) return 0;
    const double before = last;
    last = now();
    return last - before < IDLE_NS + 2 * ns; // a call like this one, done by one thread in up to twice the time, and a pause
}

static int is_done(const job *j) { return atomic_load(&j->inside) == 0; }

static void wait_for_workers(const job *j) {
    if (is_done(j)) return;
    for (double until = now() + LAST_NS; now() < until; pause_briefly())
        if (is_done(j)) return;
    acquire();
    atomic_fetch_add(&waiting, 1);
    while (!is_done(j)) pthread_cond_wait(&left, &lock);
    atomic_fetch_sub(&waiting, 1);
    release();
}

void tw_parallel(ptrdiff_t tasks, double ns, tw_task *run, void *context) {
    int threads = tw_threads_for(ns);
    if (threads > tasks) threads = (int)tasks;
    if (threads <= 1) {
        for (ptrdiff_t task = 0; task < tasks; task++) run(context, task);
        return;
    }
    job j = {.run = run, .context = context, .tasks = tasks, .wanted = threads - 1};

    acquire();
    if (workers < j.wanted) start_workers(j.wanted);
    j.wakes = is_worth_waking(ns);
    member *woken = choose_sleeper(&j);
    j.later = jobs;
    jobs = &j;
    atomic_fetch_add_explicit(&listed, 1, memory_order_relaxed);
    release();
    wake(woken);

    take_tasks(&j);

    acquire();
    if (j.wanted) unlist(&j);
    release();
    wait_for_workers(&j);
}

// An uneven start or end costs a piece at most; more pieces than this do not even out what happens in so short a time.
#define PIECE_NS 10e3
#define MIN_PIECES 3 // a thread
#define MAX_PIECES 16

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
    const ptrdiff_t threads = tw_threads_for(ns), grains = (n - 1) / grain + 1;
    double pieces = ns / threads / PIECE_NS;
    pieces = threads == 1 ? 1 : threads * (pieces < MIN_PIECES ? MIN_PIECES : pieces > MAX_PIECES ? MAX_PIECES : pieces);
    const ptrdiff_t count = pieces < grains ? (ptrdiff_t)pieces : grains;
    struct ranges r = {n, ((grains - 1) / count + 1) * grain, run, context};
    tw_parallel((n - 1) / r.length + 1, ns, run_range, &r);
}

// ---- fork
//
// A forked child has the forking thread only: it begins with an empty pool and starts workers of its own.

static void before_fork(void) { pthread_mutex_lock(&lock); }

static void in_parent(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&left, NULL);
    jobs = NULL;
    sleepers = NULL;
    workers = 0;
    atomic_store(&listed, 0);
    atomic_store(&idle, 0);
    atomic_store(&waiting, 0);
}

__attribute__((constructor)) static void start(void) { pthread_atfork(before_fork, in_parent, in_child); }
