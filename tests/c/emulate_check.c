/* The emulator's runtime without Python: kernels as the translator would write them, run on this processor. Prints how
   many complaints there are. test_emulate_hosts.py builds it for several processors and ways of switching fibres. */
#include "emulate.h"

#include <stdio.h>
#include <stdlib.h>

void emu_launch(Launch *);

static int complaints;
#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            complaints++; \
            printf("line %d: %s\n", __LINE__, #condition); \
        } \
    } while (0)

enum { BLOCKS = 3, THREADS = 80 };
static u32 out[BLOCKS * THREADS];

/* out[i] = what the thread one to the right in the block put into shared memory, plus a vote and a fused product */
static void exchange(Thread *t) {
    f32 x = 1 + 0x1p-12f;
    put32(emu_shared_store(t, 4 * t->id, 4, PLAIN, 1), 100 + t->id);
    for (u32 i = 0; i < 3 * LOOPS; i++) {  /* longer than a turn */
        emu_loop(t, 2);
        x = fma32(x, 1, 0);
    }
    emu_barrier(t, 0, 0, BARRIER_POPC, t->id % 2, 1, 3);
    const u32 odd = t->out[0];
    t->in[0] = t->lane < 3;
    emu_collective(t, op_vote_ballot, t->id < 64 ? ~0u : 0xffff, 0, 4);
    const u32 ballot = t->out[0];
    const u32 right = get32(emu_shared_load(t, 4 * ((t->id + 1) % THREADS), 4, PLAIN, 5));
    const u32 fused = fma32(x, x, -1 - 0x1p-11f) == 0x1p-24f && fma64(1 + 0x1p-30, 1 + 0x1p-30, -1 - 0x1p-29) == 0x1p-60;
    const u32 index = t->launch->at[0] * THREADS + t->id;
    put32(emu_global_store(t, (u64)&out[index], 4, PLAIN, 6), right + 1000 * odd + 100000 * ballot + 10000000 * fused);
}

static void strays(Thread *t) { put32(emu_global_store(t, (u64)&out[BLOCKS * THREADS] + 4 * t->id, 4, PLAIN, 7), 1); }

static void ends_early(Thread *t) {
    if (t->id != 5) emu_barrier(t, 0, 0, BARRIER_PLAIN, 0, 1, 8);
}

static void deep(Thread *t, u32 n) {
    volatile u8 frame[256];
    frame[n % 256] = 1;
    if ((char *)__builtin_frame_address(0) < t->stack_limit) emu_fail(t, FAULT_STACK, WHY_PLAIN, 9);
    if (n < 1u << 30) deep(t, n + frame[n % 256]);
    frame[0] = 2;
}
static void recursive(Thread *t) { deep(t, 0); }

static const Launch *launch(void (*kernel)(Thread *), u32 seed) {
    static Launch l;
    static u8 map[sizeof out];
    Region region = {(u64)out, (u64)(out + BLOCKS * THREADS), map, NULL};
    memset(map, MAY_READ | MAY_WRITE, sizeof map);
    memset(&l, 0, sizeof l);
    l.kernel = kernel;
    l.regions = &region;
    l.n_regions = 1;
    l.grid[0] = BLOCKS, l.grid[1] = l.grid[2] = l.block[1] = l.block[2] = 1;
    l.block[0] = THREADS;
    l.shared_size = l.shared_fixed = 4 * THREADS;
    l.shared_unit = l.global_unit = 2;
    l.stack_size = 1 << 16;
    l.races = 2;
    l.seed = seed;
    l.limit = 1 << 30;
    emu_launch(&l);
    return &l;
}

int main(void) {
    for (u32 seed = 0; seed < 4; seed++) {
        const Launch *l = launch(exchange, seed);
        EXPECT(!l->failed);
        EXPECT(l->barriers == BLOCKS);
        for (u32 i = 0; i < BLOCKS * THREADS; i++)
            EXPECT(out[i] == 100 + (i % THREADS + 1) % THREADS + 1000 * THREADS / 2 + 100000 * 7 + 10000000);
    }
    const Launch *l = launch(strays, 0);
    EXPECT(l->failed && l->fault.kind == FAULT_OUT_OF_BOUNDS && l->fault.site == 7 && l->fault.thread == 0);
    l = launch(ends_early, 1);
    EXPECT(l->failed && l->fault.kind == FAULT_BARRIER && l->fault.why == WHY_EXITED && l->fault.other == 5);
    l = launch(recursive, 0);
    EXPECT(l->failed && l->fault.kind == FAULT_STACK && l->fault.site == 9);
    EXPECT(to_f16(65520) == 0x7c00 && to_f16(65519) == 0x7bff && from_f16(1) == 0x1p-24f && to_bf16(1 + 0x1p-8) == 0x3f80);
    EXPECT(emu_add32(1, 0x1p-30f, RP) == 1 + 0x1p-23f && emu_add32(1, 0x1p-30f, RM) == 1);
    EXPECT(emu_fma_odd(1 + 0x1p-23f, 1 + 0x1p-23f, 0x1p100f) == 0x1p100 + 0x1p48);
    printf("complaints %d\n", complaints);
    return complaints != 0;
}
