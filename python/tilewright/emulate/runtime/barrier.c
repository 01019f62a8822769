/* bar.sync, bar.arrive, bar.red: who waits where, when a barrier opens, and what its threads then know of each other. */
#include "internal.h"

/* Lanes that a partial last warp lacks count as come with its last lane. */
static u32 weight(const Thread *t) { return t->lane + 1 == t->warp->size ? LANES - t->lane : 1; }

static u32 everyone(const Launch *l) { return l->n_warps * LANES; }

void emu_barrier(Thread *t, u32 id, u32 expected, u32 reduction, u32 value, u32 aligned, u32 site) {
    if (id >= BARRIERS || expected % LANES) emu_fail_at(t, FAULT_BARRIER, WHY_COUNTS, 0, id, expected, site);
    t->barrier = id;
    t->expected = expected ? expected : everyone(t->launch);
    t->reduction = reduction;
    t->value = value;
    t->aligned = aligned;
    t->site = site;
    t->arrival = t->launch->arrivals++;
    t->state = AT_BARRIER;
    leave(t);
}

void emu_arrive(Thread *t, u32 id, u32 expected, u32 site) {
    if (id >= BARRIERS || !expected || expected % LANES)
        emu_fail_at(t, FAULT_BARRIER, WHY_COUNTS, 0, id, expected, site);
    Launch *l = t->launch;
    l->barrier[id].arrived += weight(t);
    l->barrier[id].time[t->warp->id] = tick(l);
    l->events++;
}

/* Warps all of whose lanes wait at barrier `id`, in order of arrival; fails where one waits at two places. */
static u32 waiting_warps(Launch *l, u32 id, Warp **found) {
    u32 n = 0, when[MAX_THREADS / LANES];
    for (u32 w = 0; w < l->n_warps; w++) {
        Warp *warp = &l->warps[w];
        u32 lane = 0, last = 0;
        while (lane < warp->size && warp->lanes[lane].state == AT_BARRIER && warp->lanes[lane].barrier == id) {
            if (warp->lanes[lane].arrival > last) last = warp->lanes[lane].arrival;
            lane++;
        }
        if (lane < warp->size) continue;
        u32 i = n++;
        for (; i && when[i - 1] > last; i--) {
            found[i] = found[i - 1];
            when[i] = when[i - 1];
        }
        found[i] = warp;
        when[i] = last;
    }
    return n;
}

static void open_barrier(Launch *l, u32 id, Warp **warps, u32 n, u32 expected) {
    Barrier *barrier = &l->barrier[id];
    u32 count = 0, all = 1, any = 0;
    const u32 time = tick(l);
    for (u32 w = 0; w < n; w++) {
        const Thread *first = warps[w]->lanes;
        for (u32 i = 0; i < warps[w]->size; i++) {
            const Thread *t = &first[i];
            if (t->expected != expected || t->reduction != first->reduction) {
                fault_in(l, t, FAULT_BARRIER, WHY_COUNTS, id, t->expected);
                return;
            }
            if (t->aligned && t->site != first->site) {
                Fault fault = {.kind = FAULT_BARRIER, .why = WHY_DIFFERENT, .site = t->site, .thread = t->id,
                               .other = first->id, .other_site = first->site};
                memcpy(fault.block, l->at, sizeof fault.block);
                set_fault(l, &fault);
                return;
            }
            count += t->value != 0;
            any |= t->value != 0;
            all &= t->value != 0;
        }
    }
    if (n == l->n_warps) {
        l->synced = time;
    } else {
        for (u32 a = 0; a < n; a++) {
            for (u32 b = 0; b < n; b++) {
                if (a == b) continue;
                for (u32 c = 0; c < l->n_warps; c++)  /* what those knew that came here too */
                    if (warps[b]->seen[c] > warps[a]->seen[c]) warps[a]->seen[c] = warps[b]->seen[c];
            }
        }
        for (u32 a = 0; a < n; a++) {
            for (u32 b = 0; b < n; b++) warps[a]->seen[warps[b]->id] = time;
            for (u32 c = 0; c < l->n_warps; c++)
                if (barrier->arrived && barrier->time[c] > warps[a]->seen[c]) warps[a]->seen[c] = barrier->time[c];
            warps[a]->synced = time;
        }
    }
    for (u32 w = 0; w < n; w++)
        for (u32 i = 0; i < warps[w]->size; i++) {
            Thread *t = &warps[w]->lanes[i];
            t->out[0] = t->reduction == BARRIER_POPC ? count : t->reduction == BARRIER_AND ? all : any;
            t->state = READY;
        }
    memset(barrier, 0, sizeof *barrier);
    l->barriers++;
    l->events++;
}

bool open_barriers(Launch *l) {
    bool opened = false;
    for (u32 id = 0; id < BARRIERS && !l->failed; id++) {
        Warp *warps[MAX_THREADS / LANES];
        const u32 n = waiting_warps(l, id, warps);
        if (!n) continue;
        const u32 expected = warps[0]->lanes->expected, here = l->barrier[id].arrived;
        if (here >= expected) {
            fault_in(l, warps[0]->lanes, FAULT_BARRIER, WHY_COUNTS, id, here);
        } else if (here + n * LANES >= expected) {
            open_barrier(l, id, warps, (expected - here) / LANES, expected);
            opened = true;
        }
    }
    return opened;
}
