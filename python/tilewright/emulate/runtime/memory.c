/* Every access to memory: bounds, alignment, values that were never written, races.

   Races: the time (`now`) ends at each barrier and each bar.warp.sync. A granule is the smallest piece that the module's
   instructions access; it remembers when and by whom it was last written and read. A later access is ordered after that
   if its thread has since learned of the other's time: through a barrier of the block (`synced`), of its warp, of some
   lanes or some warps (`seen`). Blocks run one after another, so that what another block did is never ordered before,
   except where that block wrote, then fenced, and this one has begun with an atomic. */
#include "internal.h"

#include <stdlib.h>

enum { THREAD_BITS = 10, STRONG_BIT = 1 << 11, SITE_SHIFT = 12 };
static const u32 IN_FLIGHT = 0xffffffff;  /* a time: the target of a cp.async that nobody has waited for */

static u32 thread_of(Stamp s) { return s.who & ((1 << THREAD_BITS) - 1); }
static bool is_strong(Stamp s) { return s.who & STRONG_BIT; }

static inline bool ordered(const Thread *t, const Launch *l, Stamp s) {
    if (s.time <= l->synced && s.time >= l->born) return true;
    if (s.time < l->born) return s.time == 0;  /* another block's */
    const u32 other = thread_of(s);
    if (other == t->id) return s.time != IN_FLIGHT;
    if (s.time == IN_FLIGHT) return false;
    if (other / LANES == t->id / LANES) return s.time <= t->warp->synced || s.time <= t->seen[other % LANES];
    return s.time <= t->warp->seen[other / LANES];
}

/* Which block was running at a time of this launch. */
static u32 block_at(const Launch *l, u32 time) {
    u32 low = 0, high = l->serial + 1;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (l->block_born[middle] <= time) low = middle;
        else high = middle;
    }
    return low;
}

static bool passed_on(const Launch *l, Stamp s) {
    return s.time < l->born && l->block_fenced[block_at(l, s.time)] > s.time && l->atomics;
}

/* A conflict: fails or notes it. Gives false where it failed. */
static __attribute__((noinline)) bool conflict(Thread *t, Stamp s, u32 why, u32 space, u64 address, u32 size, u32 site,
                                               u32 strong) {
    Launch *l = t->launch;
    Fault fault = {.kind = FAULT_RACE, .why = why, .space = space, .site = site, .thread = t->id, .address = address,
                   .size = size, .other = thread_of(s), .other_site = s.who >> SITE_SHIFT, .count = 1};
    memcpy(fault.block, l->at, sizeof l->at);
    if (s.time == IN_FLIGHT) {
        fault.kind = FAULT_ASYNC;
        fault.why = WHY_IN_FLIGHT;
        set_fault(l, &fault);
        return false;
    }
    if (strong == STRONG && is_strong(s)) return true;
    if (passed_on(l, s)) return true;
    if (s.time < l->born) fault.count = block_at(l, s.time) + 2;  /* 2 and more: the other block, in order of running */
    if (l->races == 0) return true;
    if (l->races == 2) {
        set_fault(l, &fault);
        return false;
    }
    for (u32 i = 0; i < l->n_findings; i++) {
        Fault *f = &l->findings[i];
        if (f->site == site && f->other_site == fault.other_site && f->why == why) {
            f->size++;
            return true;
        }
    }
    fault.size = 1;  /* of a finding: how often */
    if (l->n_findings < MAX_FINDINGS) l->findings[l->n_findings++] = fault;
    return true;
}

static inline bool note_read(Thread *t, Launch *l, Granule *g, u32 strong, u32 space, u64 address, u32 size, u32 site) {
    if (__builtin_expect(!ordered(t, l, g->write), 0) &&
        !conflict(t, g->write, WHY_WRITE_READ, space, address, size, site, strong))
        return false;
    const Stamp stamp = {l->now, site << SITE_SHIFT | (strong == STRONG ? STRONG_BIT : 0) | t->id};
    if (thread_of(g->read) == t->id && (g->read.time >= l->born || !g->read.time)) {
        g->read = stamp;
        return true;
    }
    if (g->read.time >= l->born && thread_of(g->read) / LANES == t->id / LANES) g->mate = g->read;
    else if (g->other.time == 0 || g->other.time >= l->born) g->other = g->read;  /* one of another block stays */
    g->read = stamp;
    return true;
}

static inline bool note_write(Thread *t, Launch *l, Granule *g, u32 strong, u32 space, u64 address, u32 size,
                              u32 site) {
    if (__builtin_expect(!ordered(t, l, g->write), 0) &&
        !conflict(t, g->write, WHY_WRITE_WRITE, space, address, size, site, strong))
        return false;
    const Stamp readers[3] = {g->read, g->mate, g->other};
    for (int i = 0; i < 3; i++)
        if (__builtin_expect(!ordered(t, l, readers[i]), 0) &&
            !conflict(t, readers[i], WHY_READ_WRITE, space, address, size, site, strong))
            return false;
    g->write = (Stamp){l->now, site << SITE_SHIFT | (strong == STRONG ? STRONG_BIT : 0) | t->id};
    return true;
}

static bool fault_at(Thread *t, u32 kind, u32 why, u32 space, u64 address, u64 size, u32 site) {
    Fault fault = {.kind = kind, .why = why, .space = space, .site = site, .thread = t->id, .address = address,
                   .size = size};
    memcpy(fault.block, t->launch->at, sizeof fault.block);
    set_fault(t->launch, &fault);
    return false;
}

/* ---- shared memory ---- */

static inline bool shared_placed(Thread *t, Launch *l, u32 address, u32 size, u32 why, u32 site) {
    if (__builtin_expect(address & (size - 1), 0))
        return fault_at(t, FAULT_MISALIGNED, why, SPACE_SHARED, address, size, site);
    if (__builtin_expect((u64)address + size > l->shared_size, 0))
        return fault_at(t, FAULT_OUT_OF_BOUNDS, why, SPACE_SHARED, address, size, site);
    if (__builtin_expect(l->trace, 0)) trace_access(t, SPACE_SHARED, address, size, site);
    return true;
}

static inline bool shared_read(Thread *t, u32 address, u32 size, u32 strong, u32 site) {
    Launch *l = t->launch;
    if (!shared_placed(t, l, address, size, WHY_READ, site)) return false;
    const u32 end = (address + size - 1) >> l->shared_unit;
    for (u32 i = address >> l->shared_unit; i <= end; i++) {
        Granule *g = &l->granules[i];
        if (__builtin_expect(g->write.time < l->born, 0))
            return fault_at(t, FAULT_UNINITIALISED, WHY_READ, SPACE_SHARED, (u64)i << l->shared_unit, size, site);
        if (!note_read(t, l, g, strong, SPACE_SHARED, address, size, site)) return false;
    }
    return true;
}

static inline bool shared_write(Thread *t, u32 address, u32 size, u32 strong, u32 site) {
    Launch *l = t->launch;
    if (!shared_placed(t, l, address, size, WHY_WRITE, site)) return false;
    const u32 end = (address + size - 1) >> l->shared_unit;
    for (u32 i = address >> l->shared_unit; i <= end; i++) {
        Granule *g = &l->granules[i];
        if (__builtin_expect(g->write.time < l->born, 0)) {  /* readers there are of blocks before */
            *g = (Granule){{l->now, site << SITE_SHIFT | (strong == STRONG ? STRONG_BIT : 0) | t->id}, {0, 0}, {0, 0}, {0, 0}};
            continue;
        }
        if (!note_write(t, l, g, strong, SPACE_SHARED, address, size, site)) return false;
    }
    l->events++;
    return true;
}

const u8 *try_shared_load(Thread *t, u32 address, u32 size, u32 site) {
    return shared_read(t, address, size, PLAIN, site) ? t->launch->shared + address : NULL;
}

const u8 *emu_shared_load(Thread *t, u32 address, u32 size, u32 strong, u32 site) {
    if (!shared_read(t, address, size, strong, site)) leave(t);
    return t->launch->shared + address;
}

u8 *emu_shared_store(Thread *t, u32 address, u32 size, u32 strong, u32 site) {
    if (!shared_write(t, address, size, strong, site)) leave(t);
    return t->launch->shared + address;
}

u8 *emu_shared_atomic(Thread *t, u32 address, u32 size, u32 strong, u32 site) {
    if (!shared_placed(t, t->launch, address, size, WHY_WRITE, site)) leave(t);
    Launch *l = t->launch;
    const u32 end = (address + size - 1) >> l->shared_unit;
    for (u32 i = address >> l->shared_unit; i <= end; i++) {
        Granule *g = &l->granules[i];
        if (g->write.time < l->born) {
            fault_at(t, FAULT_UNINITIALISED, WHY_READ, SPACE_SHARED, (u64)i << l->shared_unit, size, site);
            leave(t);
        }
        if (!note_write(t, l, g, strong, SPACE_SHARED, address, size, site)) leave(t);
    }
    return l->shared + address;
}

/* ---- global memory ---- */

static inline bool holds(const Region *r, u64 address, u64 size) {
    const u64 length = r->high - r->low;
    return size <= length && address - r->low <= length - size;
}

static Region *find_region(Launch *l, u64 address, u64 size) {
    if (holds(l->last, address, size)) return l->last;
    for (u64 i = 0; i < l->n_regions; i++)
        if (holds(&l->regions[i], address, size)) return l->last = &l->regions[i];
    return NULL;
}

/* Whether all bytes of a piece of map have these bits. */
static inline bool all_have(const u8 *map, u32 size, u8 bits) {
    u8 both = 0xff;
    for (u32 i = 0; i < size; i++) both &= map[i];
    return (both & bits) == bits;
}

static Granule *granules_of(Launch *l, Region *r, u64 address) {
    return r->granules ? r->granules + ((address >> l->global_unit) - (r->low >> l->global_unit)) : NULL;
}

static inline Region *global_placed(Thread *t, u64 address, u32 size, u32 why, u32 site) {
    Launch *l = t->launch;
    if (__builtin_expect(address & (size - 1), 0)) {
        fault_at(t, FAULT_MISALIGNED, why, SPACE_GLOBAL, address, size, site);
        return NULL;
    }
    Region *r = find_region(l, address, size);
    if (__builtin_expect(!r, 0)) {
        fault_at(t, FAULT_OUT_OF_BOUNDS, why, SPACE_GLOBAL, address, size, site);
        return NULL;
    }
    if (__builtin_expect(l->trace, 0)) trace_access(t, SPACE_GLOBAL, address, size, site);
    return r;
}

/* The access as such is a fault or not; `read` and `write` say what it does. */
static inline bool global_access(Thread *t, u64 address, u32 size, bool read, bool write, u32 strong, u32 site) {
    Launch *l = t->launch;
    Region *r = global_placed(t, address, size, write ? WHY_WRITE : WHY_READ, site);
    if (!r) return false;
    u8 *map = r->map + (address - r->low);
    const u8 need = (read ? MAY_READ | HAS_VALUE : 0) | (write ? MAY_WRITE : 0);
    if (__builtin_expect(!all_have(map, size, need), 0)) {
        if (!all_have(map, size, MAY_READ) && !all_have(map, size, MAY_WRITE))
            return fault_at(t, FAULT_OUT_OF_BOUNDS, write ? WHY_WRITE : WHY_READ, SPACE_GLOBAL, address, size, site);
        if (write && !all_have(map, size, MAY_WRITE))
            return fault_at(t, FAULT_OUT_OF_BOUNDS, WHY_READ_ONLY, SPACE_GLOBAL, address, size, site);
        if (read && !all_have(map, size, HAS_VALUE)) {
            u32 i = 0;
            while (map[i] & HAS_VALUE) i++;
            return fault_at(t, FAULT_UNINITIALISED, WHY_READ, SPACE_GLOBAL, address + i, size, site);
        }
    }
    if (r->granules) {
        Granule *g = granules_of(l, r, address), *end = granules_of(l, r, address + size - 1);
        for (; g <= end; g++) {
            if (strong == CACHED && g->write.time)
                return fault_at(t, FAULT_UNDEFINED, WHY_CACHED, SPACE_GLOBAL, address, size, site);
            if (!(write ? note_write(t, l, g, strong, SPACE_GLOBAL, address, size, site)
                        : note_read(t, l, g, strong, SPACE_GLOBAL, address, size, site)))
                return false;
        }
    }
    if (write)
        for (u32 i = 0; i < size; i++) map[i] |= HAS_VALUE;
    return true;
}

const u8 *emu_global_load(Thread *t, u64 address, u32 size, u32 strong, u32 site) {
    if (!global_access(t, address, size, true, false, strong, site)) leave(t);
    return (const u8 *)address;
}

u8 *emu_global_store(Thread *t, u64 address, u32 size, u32 strong, u32 site) {
    if (!global_access(t, address, size, false, true, strong, site)) leave(t);
    t->launch->events++;
    return (u8 *)address;
}

u8 *emu_global_atomic(Thread *t, u64 address, u32 size, u32 strong, u32 site) {
    if (!global_access(t, address, size, true, true, strong, site)) leave(t);
    t->launch->atomics = 1;
    return (u8 *)address;
}

void emu_fence(Thread *t) {
    Launch *l = t->launch;
    l->block_fenced[l->serial] = tick(l) + 1;
}

/* ---- local memory ---- */

u64 emu_frame(Thread *t, u32 size, u32 site) {
    size = (size + 63) & ~63u;
    if (t->local_top + size > t->launch->local_size) emu_fail(t, FAULT_STACK, WHY_PLAIN, site);
    const u64 frame = (u64)(t->local + t->local_top);
    memset(t->local_written + t->local_top, 0, size);
    t->local_top += size;
    return frame;
}

static void local_placed(Thread *t, u64 address, u32 size, u32 why, u32 site) {
    if (address & (size - 1)) emu_fail_at(t, FAULT_MISALIGNED, why, SPACE_LOCAL, address, size, site);
    const u64 offset = address - (u64)t->local;
    if (offset > t->local_top || offset + size > t->local_top)
        emu_fail_at(t, FAULT_OUT_OF_BOUNDS, why, SPACE_LOCAL, address, size, site);
}

const u8 *emu_local_load(Thread *t, u64 address, u32 size, u32 strong, u32 site) {
    (void)strong;
    local_placed(t, address, size, WHY_READ, site);
    if (!all_have(t->local_written + (address - (u64)t->local), size, 1))
        emu_fail_at(t, FAULT_UNINITIALISED, WHY_READ, SPACE_LOCAL, address, size, site);
    return (const u8 *)address;
}

u8 *emu_local_store(Thread *t, u64 address, u32 size, u32 strong, u32 site) {
    (void)strong;
    local_placed(t, address, size, WHY_WRITE, site);
    memset(t->local_written + (address - (u64)t->local), 1, size);
    return (u8 *)address;
}

/* ---- generic addresses ---- */

#define GENERIC(result, access, local) \
    result emu_generic_##access(Thread *t, u64 address, u32 size, u32 strong, u32 site) { \
        if (emu_is_shared(t, address)) \
            return emu_shared_##access(t, (u32)(address - (u64)t->launch->shared), size, strong, site); \
        local \
        return emu_global_##access(t, address, size, strong, site); \
    }
GENERIC(const u8 *, load, if (emu_is_local(t, address)) return emu_local_load(t, address, size, strong, site);)
GENERIC(u8 *, store, if (emu_is_local(t, address)) return emu_local_store(t, address, size, strong, site);)
GENERIC(u8 *, atomic, )  /* there are none on local memory */

/* ---- cp.async ---- */

/* Reads the source at once; the target is in flight until waited for, and any access to it a fault until then. */
void emu_copy(Thread *t, u32 target, u64 source, u32 size, u32 read, u32 site) {
    Launch *l = t->launch;
    if (read > size) emu_fail(t, FAULT_UNDEFINED, WHY_PLAIN, site);
    if (source & (size - 1)) emu_fail_at(t, FAULT_MISALIGNED, WHY_READ, SPACE_GLOBAL, source, size, site);
    if (t->n_copies == t->copies_room) {
        t->copies_room = t->copies_room ? 2 * t->copies_room : 16;
        Copy *more = realloc(t->copies, t->copies_room * sizeof *more);
        if (!more) emu_fail(t, FAULT_MEMORY, WHY_PLAIN, site);
        t->copies = more;
    }
    Copy copy = {.target = target, .size = size, .group = t->group, .site = site, .source = source, .read = read};
    u32 at = 0;
    while (at < read) {  /* any number of bytes; accesses have sizes that are powers of two */
        u32 piece = 16;
        while (piece > read - at || ((source + at) & (piece - 1))) piece /= 2;
        if (!global_access(t, source + at, piece, true, false, PLAIN, site)) leave(t);
        memcpy(copy.bytes + at, (const u8 *)(source + at), piece);
        at += piece;
    }
    if (!shared_write(t, target, size, PLAIN, site)) leave(t);
    for (u32 i = target >> l->shared_unit; i <= (target + size - 1) >> l->shared_unit; i++)
        l->granules[i].write.time = IN_FLIGHT;
    t->copies[t->n_copies++] = copy;
}

/* Completes all groups but the last `keep`. */
void emu_copy_wait(Thread *t, u32 keep, u32 site) {
    Launch *l = t->launch;
    u32 left = 0;
    for (u32 n = 0; n < t->n_copies; n++) {
        const Copy *c = &t->copies[n];
        if (c->group + keep >= t->group) {
            t->copies[left++] = *c;
            continue;
        }
        if (memcmp(c->bytes, (const u8 *)c->source, c->read))
            emu_fail_at(t, FAULT_ASYNC, WHY_SOURCE_CHANGED, SPACE_GLOBAL, c->source, c->size, site);
        memcpy(l->shared + c->target, c->bytes, c->size);
        for (u32 i = c->target >> l->shared_unit; i <= (c->target + c->size - 1) >> l->shared_unit; i++)
            l->granules[i].write.time = l->now;
    }
    t->n_copies = left;
    l->events++;
}
