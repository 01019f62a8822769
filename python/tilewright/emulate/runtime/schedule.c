/* Who runs next: blocks in turn, warps in turn, the lanes of a warp until each waits for something.

   A warp's lanes run one after another, each until it stops. Then a collective whose lanes have all come is done and they
   go on. When no warp can go on, barriers that are full are opened. When there are none, nobody will ever go on, and
   that is the fault. A seed shuffles blocks, warps and lanes, the latter two each time anew. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>

static const u64 CANARY = 0x5afe57ac6b07703a;  /* at the far end of each stack */
enum { IDLE_ROUNDS = 4 };  /* more of them at the end: what loops waits for something that nobody will do */

static u64 random_below(Launch *l, u64 n) {
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return (l->random >> 11) % n;
}

static void shuffle(Launch *l, u32 *list, u32 n) {
    for (u32 i = n; i > 1; i--) {
        const u32 j = (u32)random_below(l, i), swap = list[j];
        list[j] = list[i - 1];
        list[i - 1] = swap;
    }
}

u32 tick(Launch *l) { return l->now++; }

void set_fault(Launch *l, const Fault *fault) {
    if (l->failed) return;
    l->failed = 1;
    l->fault = *fault;
}

void leave(Thread *t) { emu_switch(&t->stack_pointer, t->launch->scheduler); }

void emu_fail_at(Thread *t, u32 kind, u32 why, u32 space, u64 address, u64 size, u32 site) {
    Fault fault = {.kind = kind, .why = why, .space = space, .site = site, .thread = t->id, .address = address,
                   .size = size};
    memcpy(fault.block, t->launch->at, sizeof fault.block);
    set_fault(t->launch, &fault);
    leave(t);
    abort();  /* nobody goes on with a thread that failed */
}

void emu_fail(Thread *t, u32 kind, u32 why, u32 site) { emu_fail_at(t, kind, why, 0, 0, 0, site); }

void emu_pause(Thread *t, u32 site) {
    Launch *l = t->launch;
    t->loops = 0;
    if ((l->loops += LOOPS) > l->limit)
        emu_fail_at(t, l->idle > IDLE_ROUNDS ? FAULT_DEADLOCK : FAULT_ENDLESS, WHY_SPINNING, 0, l->limit, 0, site);
    t->state = PAUSED;
    t->site = site;
    leave(t);
}

void emu_exit(Thread *t) {
    t->state = DONE;
    leave(t);
    abort();
}

void emu_collective(Thread *t, Collective op, u32 mask, u32 aligned, u32 site) {
    if (!(mask >> t->lane & 1)) emu_fail_at(t, FAULT_DIVERGENT, WHY_NOT_NAMED, 0, mask, 0, site);
    t->op = op;
    t->mask = mask;
    t->aligned = aligned;
    t->site = site;
    t->state = AT_COLLECTIVE;
    leave(t);
}

void fault_in(Launch *l, const Thread *t, u32 kind, u32 why, u64 address, u64 size) {
    Fault fault = {.kind = kind, .why = why, .site = t->site, .thread = t->id, .address = address, .size = size};
    memcpy(fault.block, l->at, sizeof fault.block);
    set_fault(l, &fault);
}

/* ---- collectives ---- */

/* Does the collectives of a warp whose lanes have all come; whether there were any. */
static bool do_collectives(Launch *l, Warp *w) {
    u32 looked = 0, alive = 0;
    bool did = false;
    for (u32 i = 0; i < w->size; i++)
        if (w->lanes[i].state != DONE) alive |= 1u << i;
    for (u32 i = 0; i < w->size && !l->failed; i++) {
        Thread *t = &w->lanes[i];
        if (t->state != AT_COLLECTIVE || looked >> i & 1) continue;
        u32 present = 0;
        for (u32 j = i; j < w->size; j++) {
            const Thread *u = &w->lanes[j];
            if (u->state == AT_COLLECTIVE && u->op == t->op && u->mask == t->mask && (!t->aligned || u->site == t->site))
                present |= 1u << j;
        }
        looked |= present;
        const u32 needed = t->op == op_activemask ? present : t->mask & alive;
        if (present != needed) continue;
        if (t->aligned && present != ~0u) {
            fault_in(l, t, FAULT_DIVERGENT, WHY_LANES, ~0u, present);
            return false;
        }
        t->op(w, present);
        l->collectives++;
        l->events++;
        for (u32 j = 0; j < w->size; j++)
            if (present >> j & 1) w->lanes[j].state = READY;
        did = true;
    }
    return did;
}

/* Nobody can go on: says why. */
static void stuck(Launch *l) {
    const Thread *waiting = NULL;
    for (u32 i = 0; i < l->n_threads; i++) {
        const Thread *t = &l->threads[i];
        if (t->state == AT_COLLECTIVE) {
            u32 present = 0;
            for (u32 j = 0; j < t->warp->size; j++) {
                const Thread *u = &t->warp->lanes[j];
                if (u->state == AT_COLLECTIVE && u->op == t->op && u->mask == t->mask) present |= 1u << j;
            }
            fault_in(l, t, FAULT_DIVERGENT, WHY_LANES, t->mask, present);
            return;
        }
        if (t->state == AT_BARRIER && !waiting) waiting = t;
    }
    for (u32 i = 0; i < l->n_threads; i++) {
        const Thread *t = &l->threads[i];
        if (t->state != DONE && (t->barrier == waiting->barrier)) continue;
        Fault fault = {.kind = t->state == DONE ? FAULT_BARRIER : FAULT_DEADLOCK,
                       .why = t->state == DONE ? WHY_EXITED : WHY_DIFFERENT,
                       .site = waiting->site, .thread = waiting->id, .other = t->id, .other_site = t->site};
        memcpy(fault.block, l->at, sizeof fault.block);
        set_fault(l, &fault);
        return;
    }
    fault_in(l, waiting, FAULT_DEADLOCK, WHY_UNFILLED, waiting->barrier, waiting->expected);
}

/* ---- running ---- */

static void thread_main(void *argument) {
    Thread *t = argument;
    t->launch->kernel(t);
    t->state = DONE;
    leave(t);
    abort();
}

static char *take_stack(Launch *l) {
    if (l->n_stacks) return l->stacks[--l->n_stacks];
    return l->stack_memory + (size_t)l->stack_size * l->stacks_made++;
}

static bool run_thread(Launch *l, Thread *t) {
    if (!t->stack) {
        t->stack = take_stack(l);
        *(u64 *)t->stack = CANARY;
        t->stack_limit = (char *)t->stack + l->stack_size / 2;
        t->stack_pointer = emu_fibre((char *)t->stack + 64, l->stack_size - 64, thread_main, t);
    }
    emu_switch(&l->scheduler, t->stack_pointer);
    if (*(u64 *)t->stack != CANARY) fault_in(l, t, FAULT_STACK, WHY_PLAIN, 0, 0);
    if (t->state == DONE) {
        if (t->n_copies) {
            t->site = t->copies[0].site;
            fault_in(l, t, FAULT_ASYNC, WHY_NEVER_WAITED, t->copies[0].target, 0);
        }
        l->stacks[l->n_stacks++] = t->stack;
        l->events++;
    }
    return !l->failed;
}

static bool run_warp(Launch *l, Warp *w) {
    u32 order[LANES];
    bool any = false;
    for (;;) {
        bool ran = false;
        for (u32 i = 0; i < w->size; i++) order[i] = i;
        if (l->seed) shuffle(l, order, w->size);
        for (u32 i = 0; i < w->size; i++) {
            Thread *t = &w->lanes[order[i]];
            if (t->state != READY) continue;
            ran = true;
            if (!run_thread(l, t)) return false;
        }
        any |= ran;
        if (!do_collectives(l, w) || l->failed) return any;
        any = true;
    }
}

static void start_block(Launch *l) {
    l->synced = tick(l);
    l->born = l->now;
    l->block_born[l->serial] = l->born;
    l->block_fenced[l->serial] = 0;
    l->atomics = l->idle = 0;
    l->loops = 0;
    l->arrivals = 0;
    memset(l->barrier, 0, sizeof l->barrier);
    memset(l->shared, 0xff, l->shared_size);  /* what is read there before it is written is a fault, and not zero */
    for (u32 w = 0; w < l->n_warps; w++) {
        l->warps[w].synced = 0;
        memset(l->warps[w].seen, 0, sizeof l->warps[w].seen);
    }
    for (u32 i = 0; i < l->n_threads; i++) {
        Thread *t = &l->threads[i];
        t->stack = NULL;
        t->local_top = 0;
        t->state = READY;
        t->loops = t->n_copies = t->group = 0;
        memset(t->seen, 0, sizeof t->seen);
    }
}

static void run_block(Launch *l) {
    u32 order[MAX_THREADS / LANES];
    start_block(l);
    while (!l->failed) {
        const u64 events = l->events;
        bool any = false, paused = false, left = false;
        for (u32 w = 0; w < l->n_warps; w++) order[w] = w;
        if (l->seed) shuffle(l, order, l->n_warps);
        for (u32 w = 0; w < l->n_warps; w++) {
            any |= run_warp(l, &l->warps[order[w]]);
            if (l->failed) return;
        }
        any |= open_barriers(l);
        if (l->failed) return;
        for (u32 i = 0; i < l->n_threads; i++) {
            Thread *t = &l->threads[i];
            left |= t->state != DONE;
            if (t->state == PAUSED) {
                paused = true;
                t->state = READY;
            }
        }
        if (!left) break;
        l->idle = l->events == events ? l->idle + 1 : 0;
        if (!any && !paused) stuck(l);
    }
    if (l->trace && !l->failed) trace_block(l);
}

static bool allocate(Launch *l) {
    const u32 n = l->n_threads;
    const u64 blocks = (u64)l->grid[0] * l->grid[1] * l->grid[2];
    l->n_blocks = (u32)blocks;
    l->shared = aligned_alloc(1024, ((size_t)l->shared_size + 2047) / 1024 * 1024);
    l->granules = calloc((l->shared_size >> l->shared_unit) + 2, sizeof *l->granules);
    l->threads = calloc(n, sizeof *l->threads);
    l->warps = calloc(l->n_warps, sizeof *l->warps);
    l->block_born = calloc(blocks + 1, sizeof *l->block_born);
    l->block_fenced = calloc(blocks + 1, sizeof *l->block_fenced);
    l->stacks = calloc(n, sizeof *l->stacks);
    l->accesses = l->trace ? calloc(n, sizeof *l->accesses) : NULL;
    l->stack_memory = mmap(NULL, (size_t)l->stack_size * n, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->stack_memory == MAP_FAILED) l->stack_memory = NULL;
    char *local = l->local_size ? aligned_alloc(1024, (size_t)2 * l->local_size * n) : NULL;
    if (!l->shared || !l->granules || !l->threads || !l->warps || !l->block_born || !l->block_fenced || !l->stacks ||
        !l->stack_memory || (l->trace && !l->accesses) || (l->local_size && !local))
        return false;
    for (u32 i = 0; i < n; i++) {
        Thread *t = &l->threads[i];
        t->launch = l;
        t->id = i;
        t->lane = i % LANES;
        t->warp = &l->warps[i / LANES];
        t->params = l->params;
        t->position[0] = i % l->block[0];
        t->position[1] = i / l->block[0] % l->block[1];
        t->position[2] = i / l->block[0] / l->block[1];
        t->local = local ? (u8 *)local + (size_t)2 * l->local_size * i : NULL;
        t->local_written = local ? t->local + l->local_size : NULL;
    }
    for (u32 w = 0; w < l->n_warps; w++) {
        Warp *warp = &l->warps[w];
        warp->launch = l;
        warp->id = w;
        warp->lanes = &l->threads[w * LANES];
        warp->size = n - w * LANES < LANES ? n - w * LANES : LANES;
    }
    return true;
}

static void release(Launch *l) {
    if (l->threads) free(l->threads[0].local);
    for (u32 i = 0; l->threads && i < l->n_threads; i++) {
        free(l->threads[i].copies);
        if (l->accesses) free(l->accesses[i].list);
    }
    for (u64 i = 0; i < l->n_regions; i++) free(l->regions[i].granules);
    if (l->stack_memory) munmap(l->stack_memory, (size_t)l->stack_size * l->n_threads);
    free(l->shared);
    free(l->granules);
    free(l->threads);
    free(l->warps);
    free(l->block_born);
    free(l->block_fenced);
    free(l->stacks);
    free(l->accesses);
}

static bool can_be_written(const Region *r) {
    for (u64 i = 0; i < r->high - r->low; i++)
        if (r->map[i] & MAY_WRITE) return true;
    return false;
}

u32 emu_has_fma(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("fma") != 0;
#else
    return 0;
#endif
}

u32 emu_launch_size(void) { return sizeof(Launch); }

/* Runs a kernel over its grid; l->failed says whether a fault ended it. */
void emu_launch(Launch *l) {
    l->n_threads = l->block[0] * l->block[1] * l->block[2];
    l->n_warps = (l->n_threads + LANES - 1) / LANES;
    l->last = l->regions;
    l->now = 1;
    l->random = 0x9e3779b97f4a7c15u * ((u64)l->seed + 1);
    u32 *order = NULL;
    bool room = allocate(l) && (order = malloc(sizeof *order * ((size_t)l->n_blocks + 1)));
    for (u64 i = 0; room && l->races && i < l->n_regions; i++) {
        Region *r = &l->regions[i];
        if (!can_be_written(r)) continue;
        r->granules = calloc((r->high >> l->global_unit) - (r->low >> l->global_unit) + 2, sizeof(Granule));
        room = r->granules != NULL;
    }
    if (!room) set_fault(l, &(Fault){.kind = FAULT_MEMORY});
    for (u32 i = 0; room && i < l->n_blocks; i++) order[i] = i;
    if (room && l->seed) shuffle(l, order, l->n_blocks);
    for (u32 i = 0; i < l->n_blocks && !l->failed; i++) {
        l->serial = i;
        l->at[0] = order[i] % l->grid[0];
        l->at[1] = order[i] / l->grid[0] % l->grid[1];
        l->at[2] = order[i] / l->grid[0] / l->grid[1];
        run_block(l);
    }
    free(order);
    release(l);
}
