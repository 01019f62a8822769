/* What the C made from a PTX module and the runtime share: threads, faults, memory, collectives.

   One block runs at a time. Each of its CUDA threads is a fibre with a stack of its own (fibre.h) that runs until it
   waits at a barrier or a collective, ends, or has looped for long; schedule.c decides who goes next. Nothing here is
   global: all that a launch changes hangs on its Launch. */
#ifndef EMULATE_H
#define EMULATE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef int8_t s8;
typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;
typedef float f32;
typedef double f64;
typedef unsigned __int128 u128;
typedef __int128 s128;

enum { LANES = 32, MAX_THREADS = 1024, BARRIERS = 16, MAX_FINDINGS = 256 };

/* Kinds of faults: the order of KINDS in errors.py. */
enum {
    FAULT_NONE, FAULT_OUT_OF_BOUNDS, FAULT_MISALIGNED, FAULT_RACE, FAULT_BARRIER, FAULT_UNINITIALISED, FAULT_DIVERGENT,
    FAULT_DEADLOCK, FAULT_ASYNC, FAULT_UNDEFINED, FAULT_STACK, FAULT_TRAP, FAULT_MEMORY,
    FAULT_ENDLESS
};

/* What a fault's numbers mean: the order of the constants in report.py. */
enum {
    WHY_PLAIN, WHY_READ, WHY_WRITE, WHY_READ_ONLY, WHY_WRITE_WRITE, WHY_READ_WRITE, WHY_WRITE_READ, WHY_EXITED,
    WHY_DIFFERENT, WHY_NOT_NAMED, WHY_LANES, WHY_SOURCE_LANE, WHY_IN_FLIGHT, WHY_NEVER_WAITED, WHY_SOURCE_CHANGED,
    WHY_DIVISION, WHY_SPINNING, WHY_UNFILLED, WHY_COUNTS, WHY_CACHED, WHY_BRANCH
};

enum { SPACE_SHARED = 1, SPACE_GLOBAL, SPACE_LOCAL };

typedef struct Launch Launch;
typedef struct Warp Warp;
typedef struct Thread Thread;

/* A fault or a finding. `other` is the second thread of a race, or a mask of lanes. */
typedef struct {
    u32 kind, why, space, site, thread, block[3];
    u32 other, other_site;
    u64 address, size, count;
} Fault;

/* When, by whom and where something was accessed. Times grow through a whole launch; 0 is never. */
typedef struct {
    u32 time;
    u32 who;  /* site << 12 | strong << 11 | thread */
} Stamp;

/* The last write, and three readers: the last, the last other one of its warp, the last of another warp. */
typedef struct {
    Stamp write, read, mate, other;
} Granule;

/* Bits of a region's map, one byte for each byte of memory. */
enum { MAY_READ = 1, MAY_WRITE = 2, HAS_VALUE = 4 };

/* Memory of the host that a kernel may touch: [low, high), with a map of what each byte allows. */
typedef struct {
    u64 low, high;
    u8 *map;
    Granule *granules;  /* made by the launch where the region can be written */
} Region;

typedef struct {
    u32 target, size, group, site;
    u64 source;
    u32 read;
    u8 bytes[16];
} Copy;

typedef void (*Collective)(Warp *, u32 present);

enum { READY, PAUSED, AT_BARRIER, AT_COLLECTIVE, DONE };
enum { BARRIER_PLAIN, BARRIER_POPC, BARRIER_AND, BARRIER_OR };

struct Thread {
    Launch *launch;
    Warp *warp;
    const u8 *params;
    void *stack, *stack_pointer;
    char *stack_limit;
    u8 *local, *local_written;
    u32 local_top;
    u32 id, lane, position[3];
    u32 state, site, loops;
    /* at a collective */
    Collective op;
    u32 mask, aligned, in[16], out[8];
    /* at a barrier */
    u32 barrier, expected, arrival, reduction, value;
    /* the time up to which this thread knows what each lane of its warp did */
    u32 seen[LANES];
    Copy *copies;
    u32 n_copies, copies_room, group, clock;
};

struct Warp {
    Launch *launch;
    Thread *lanes;
    u32 id, size;
    u32 synced;                        /* all lanes know what each other did until then */
    u32 seen[MAX_THREADS / LANES];     /* the same of other warps, through barriers of some warps only */
};

typedef struct {
    u32 arrived, time[MAX_THREADS / LANES], before[MAX_THREADS / LANES];
} Barrier;

typedef struct {
    u64 requests[2], moved[2], ideal[2];  /* of shared memory: wavefronts; of global memory: sectors of 32 bytes */
} Site;

typedef struct {
    u64 address;
    u32 site;
    u16 size, space;
} Access;

typedef struct {
    Access *list;
    u64 count, room;
} Accesses;

struct Launch {
    /* filled in by module.py; the order there is this one */
    void (*kernel)(Thread *);
    const u8 *params;
    u8 *globals;        /* the module's own variables */
    Region *regions;
    u64 n_regions;
    u64 *counts;        /* executions of each basic block, where traced */
    Site *sites;
    u32 n_sites, trace;
    u32 grid[3], block[3];
    u32 shared_size, shared_fixed, shared_unit, global_unit;  /* units: log2 of the smallest access in bytes */
    u32 local_size, stack_size;
    u32 races, seed;    /* races: 0 ignored, 1 reported, 2 raised */
    u64 limit;          /* of backward branches, by all threads of a block */
    u64 barriers, collectives;
    u32 n_findings, failed;
    Fault fault;
    Fault findings[MAX_FINDINGS];
    /* the launch's own */
    u8 *shared;
    Granule *granules;
    Thread *threads;
    Warp *warps;
    void *scheduler;
    Region *last;
    u32 n_threads, n_warps, at[3], serial;
    u32 now, born, synced;
    u32 arrivals;
    u64 random, events, ticks, loops;
    u32 idle;           /* rounds in which nobody stored, came to a barrier or ended */
    u32 *block_born, *block_fenced, atomics, n_blocks;
    void **stacks;
    u32 n_stacks;
    char *stack_memory;
    u32 stacks_made;
    Barrier barrier[BARRIERS];
    Accesses *accesses;
};

/* ---- faults ---- */
_Noreturn void emu_fail(Thread *, u32 kind, u32 why, u32 site);
_Noreturn void emu_fail_at(Thread *, u32 kind, u32 why, u32 space, u64 address, u64 size, u32 site);

/* ---- memory: checked, recorded, and given as a pointer of the host ---- */
/* strong: volatile, relaxed, acquire, release and atomics; two of them never race. cached: ld.global.nc. */
enum { PLAIN = 0, STRONG = 1, CACHED = 2 };
const u8 *emu_shared_load(Thread *, u32 address, u32 size, u32 strong, u32 site);
u8 *emu_shared_store(Thread *, u32 address, u32 size, u32 strong, u32 site);
const u8 *emu_global_load(Thread *, u64 address, u32 size, u32 strong, u32 site);
u8 *emu_global_store(Thread *, u64 address, u32 size, u32 strong, u32 site);
const u8 *emu_local_load(Thread *, u64 address, u32 size, u32 strong, u32 site);
u8 *emu_local_store(Thread *, u64 address, u32 size, u32 strong, u32 site);
const u8 *emu_generic_load(Thread *, u64 address, u32 size, u32 strong, u32 site);
u8 *emu_generic_store(Thread *, u64 address, u32 size, u32 strong, u32 site);
u8 *emu_shared_atomic(Thread *, u32 address, u32 size, u32 strong, u32 site);
u8 *emu_global_atomic(Thread *, u64 address, u32 size, u32 strong, u32 site);
u8 *emu_generic_atomic(Thread *, u64 address, u32 size, u32 strong, u32 site);
void emu_fence(Thread *);
u64 emu_frame(Thread *, u32 size, u32 site);
void emu_copy(Thread *, u32 target, u64 source, u32 size, u32 read, u32 site);
void emu_copy_wait(Thread *, u32 keep, u32 site);

static inline bool emu_is_shared(const Thread *t, u64 address) {
    return address - (u64)t->launch->shared < t->launch->shared_size;
}
static inline bool emu_is_local(const Thread *t, u64 address) {
    return address - (u64)t->local < t->local_top;
}

/* ---- waiting ---- */
void emu_barrier(Thread *, u32 id, u32 expected, u32 reduction, u32 value, u32 aligned, u32 site);
void emu_arrive(Thread *, u32 id, u32 expected, u32 site);
void emu_collective(Thread *, Collective, u32 mask, u32 aligned, u32 site);
void emu_pause(Thread *, u32 site);
_Noreturn void emu_exit(Thread *);

enum { LOOPS = 4096 };  /* backward branches that a thread takes before others get their turn */
static inline void emu_loop(Thread *t, u32 site) {
    if (__builtin_expect(++t->loops == LOOPS, 0)) emu_pause(t, site);
}

void op_syncwarp(Warp *, u32), op_shfl_idx(Warp *, u32), op_shfl_up(Warp *, u32), op_shfl_down(Warp *, u32),
    op_shfl_bfly(Warp *, u32), op_vote_ballot(Warp *, u32), op_vote_any(Warp *, u32), op_vote_all(Warp *, u32),
    op_vote_uni(Warp *, u32), op_match_any(Warp *, u32), op_match_all(Warp *, u32), op_activemask(Warp *, u32),
    op_elect(Warp *, u32), op_redux_add(Warp *, u32), op_redux_min_s32(Warp *, u32), op_redux_max_s32(Warp *, u32),
    op_redux_min_u32(Warp *, u32), op_redux_max_u32(Warp *, u32), op_redux_and(Warp *, u32), op_redux_or(Warp *, u32),
    op_redux_xor(Warp *, u32);
void op_ldmatrix_x1(Warp *, u32), op_ldmatrix_x2(Warp *, u32), op_ldmatrix_x4(Warp *, u32),
    op_ldmatrix_x1_trans(Warp *, u32), op_ldmatrix_x2_trans(Warp *, u32), op_ldmatrix_x4_trans(Warp *, u32),
    op_movmatrix(Warp *, u32);
void op_mma_m16n8k16_f32_f16(Warp *, u32), op_mma_m16n8k16_f32_bf16(Warp *, u32), op_mma_m16n8k16_f16_f16(Warp *, u32),
    op_mma_m16n8k8_f32_f16(Warp *, u32), op_mma_m16n8k8_f32_bf16(Warp *, u32), op_mma_m16n8k8_f16_f16(Warp *, u32),
    op_mma_m16n8k8_f32_tf32(Warp *, u32), op_mma_m16n8k4_f32_tf32(Warp *, u32);
void op_mma_m16n8k16_s32(Warp *, u32), op_mma_m16n8k32_s32(Warp *, u32), op_mma_m8n8k16_s32(Warp *, u32);

#include "numeric.h"

#endif
