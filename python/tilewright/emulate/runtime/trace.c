/* Bank conflicts and sectors, where asked for: each thread lists its accesses, and at the end of a block the n-th
   executions of an instruction by the lanes of a warp are taken as one request. */
#include "internal.h"

#include <stdlib.h>

void trace_access(Thread *t, u32 space, u64 address, u32 size, u32 site) {
    Accesses *a = &t->launch->accesses[t->id];
    if (a->count == a->room) {
        a->room = a->room ? 2 * a->room : 256;
        Access *list = realloc(a->list, a->room * sizeof *list);
        if (!list) {
            set_fault(t->launch, &(Fault){.kind = FAULT_MEMORY});
            return;
        }
        a->list = list;
    }
    a->list[a->count++] = (Access){address, site, (u16)size, (u16)space};
}

/* Adds to a list without repetitions; its new length. */
static u32 add(u64 *list, u32 n, u64 value) {
    for (u32 i = 0; i < n; i++)
        if (list[i] == value) return n;
    list[n] = value;
    return n + 1;
}

/* Lanes whose accesses fill 128 bytes go together; of those, as many times as the fullest of 32 banks has words. */
static void count_wavefronts(Site *site, const Access **lanes, u32 n) {
    const u32 together = lanes[0]->size <= 4 ? 32 : 128 / lanes[0]->size;
    for (u32 first = 0; first < n; first += together) {
        u64 words[32][LANES], most = 0;
        u32 counts[32] = {0};
        for (u32 i = first; i < n && i < first + together; i++)
            for (u64 word = lanes[i]->address / 4; word <= (lanes[i]->address + lanes[i]->size - 1) / 4; word++) {
                u32 *count = &counts[word % 32];
                *count = add(words[word % 32], *count, word);
                if (*count > most) most = *count;
            }
        site->moved[0] += most;
        site->ideal[0]++;
    }
    site->requests[0]++;
}

static void count_sectors(Site *site, const Access **lanes, u32 n) {
    u64 sectors[2 * LANES], addresses[LANES];
    u32 n_sectors = 0, n_addresses = 0;
    for (u32 i = 0; i < n; i++) {
        n_addresses = add(addresses, n_addresses, lanes[i]->address);
        n_sectors = add(sectors, n_sectors, lanes[i]->address / 32);
        n_sectors = add(sectors, n_sectors, (lanes[i]->address + lanes[i]->size - 1) / 32);
    }
    site->moved[1] += n_sectors;
    site->ideal[1] += (n_addresses * lanes[0]->size + 31) / 32;
    site->requests[1]++;
}

static int by_site(const void *x, const void *y) {
    const Access *const *a = x, *const *b = y;
    if ((*a)->site != (*b)->site) return (*a)->site < (*b)->site ? -1 : 1;
    if ((*a)->space != (*b)->space) return (*a)->space < (*b)->space ? -1 : 1;
    return *a < *b ? -1 : *a > *b;
}

static void trace_warp(Launch *l, const Warp *w) {
    const Access **sorted[LANES] = {NULL}, **at[LANES];
    for (u32 i = 0; i < w->size; i++) {
        const Accesses *a = &l->accesses[w->lanes[i].id];
        at[i] = sorted[i] = malloc((a->count + 1) * sizeof *sorted[i]);
        if (!sorted[i]) {
            set_fault(l, &(Fault){.kind = FAULT_MEMORY});
            goto end;
        }
        for (u64 k = 0; k < a->count; k++) sorted[i][k] = &a->list[k];
        qsort(sorted[i], a->count, sizeof *sorted[i], by_site);
        sorted[i][a->count] = NULL;
    }
    for (;;) {
        const Access *least = NULL, *request[LANES];
        for (u32 i = 0; i < w->size; i++)
            if (*at[i] && (!least || (*at[i])->site < least->site ||
                           ((*at[i])->site == least->site && (*at[i])->space < least->space)))
                least = *at[i];
        if (!least) break;
        u32 n = 0;
        for (u32 i = 0; i < w->size; i++)
            if (*at[i] && (*at[i])->site == least->site && (*at[i])->space == least->space) request[n++] = *at[i]++;
        (least->space == SPACE_SHARED ? count_wavefronts : count_sectors)(&l->sites[least->site], request, n);
    }
end:
    for (u32 i = 0; i < w->size; i++) {
        free(sorted[i]);
        l->accesses[w->lanes[i].id].count = 0;
    }
}

void trace_block(Launch *l) {
    for (u32 w = 0; w < l->n_warps; w++) trace_warp(l, &l->warps[w]);
}
