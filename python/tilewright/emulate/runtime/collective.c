/* What the lanes of a warp do together: exchange, vote, match, reduce. `present` are the lanes that came, all of them. */
#include "internal.h"

#define EACH(lane, present) \
    for (u32 lane = 0; lane < LANES; lane++) \
        if ((present) >> lane & 1)

void op_syncwarp(Warp *w, u32 present) {
    const u32 time = tick(w->launch);
    if (present == (w->size == LANES ? ~0u : (1u << w->size) - 1)) {
        w->synced = time;
        return;
    }
    u32 known[LANES] = {0};  /* what any of them knew, all of them know now */
    EACH(i, present)
        for (u32 j = 0; j < LANES; j++)
            if (w->lanes[i].seen[j] > known[j]) known[j] = w->lanes[i].seen[j];
    EACH(i, present) known[i] = time;
    EACH(i, present) memcpy(w->lanes[i].seen, known, sizeof known);
}

enum { IDX, UP, DOWN, BFLY };

/* in: value, lane or distance, clamp and segment; out: value, whether the source was in range. */
static void shuffle_lanes(Warp *w, u32 present, int mode) {
    EACH(i, present) {
        Thread *t = &w->lanes[i];
        const s32 lane = (s32)i, b = t->in[1] & 31, clamp = t->in[2] & 31, segment = t->in[2] >> 8 & 31;
        const s32 first = lane & segment, bound = first | (clamp & ~segment);
        s32 from = mode == UP ? lane - b : mode == DOWN ? lane + b : mode == BFLY ? lane ^ b : first | (b & ~segment);
        const bool in_range = mode == UP ? from >= bound : from <= bound;
        if (!in_range) from = lane;
        if (!(present >> from & 1)) {
            Fault fault = {.kind = FAULT_DIVERGENT, .why = WHY_SOURCE_LANE, .site = t->site, .thread = t->id,
                           .address = (u64)from, .size = present};
            memcpy(fault.block, w->launch->at, sizeof fault.block);
            set_fault(w->launch, &fault);
            return;
        }
        t->out[0] = w->lanes[from].in[0];
        t->out[1] = in_range;
    }
}

void op_shfl_idx(Warp *w, u32 present) { shuffle_lanes(w, present, IDX); }
void op_shfl_up(Warp *w, u32 present) { shuffle_lanes(w, present, UP); }
void op_shfl_down(Warp *w, u32 present) { shuffle_lanes(w, present, DOWN); }
void op_shfl_bfly(Warp *w, u32 present) { shuffle_lanes(w, present, BFLY); }

static void give(Warp *w, u32 present, u32 value) { EACH(i, present) w->lanes[i].out[0] = value; }

static u32 ballot(const Warp *w, u32 present) {
    u32 mask = 0;
    EACH(i, present) mask |= (u32)(w->lanes[i].in[0] != 0) << i;
    return mask;
}

void op_vote_ballot(Warp *w, u32 present) { give(w, present, ballot(w, present)); }
void op_vote_any(Warp *w, u32 present) { give(w, present, ballot(w, present) != 0); }
void op_vote_all(Warp *w, u32 present) { give(w, present, ballot(w, present) == present); }
void op_vote_uni(Warp *w, u32 present) {
    const u32 mask = ballot(w, present);
    give(w, present, mask == present || mask == 0);
}

static u32 matching(const Warp *w, u32 present, u32 lane) {
    u32 mask = 0;
    EACH(i, present)
        if (w->lanes[i].in[0] == w->lanes[lane].in[0] && w->lanes[i].in[1] == w->lanes[lane].in[1]) mask |= 1u << i;
    return mask;
}

void op_match_any(Warp *w, u32 present) { EACH(i, present) w->lanes[i].out[0] = matching(w, present, i); }
void op_match_all(Warp *w, u32 present) {
    const u32 all = matching(w, present, (u32)__builtin_ctz(present)) == present;
    EACH(i, present) {
        w->lanes[i].out[0] = all ? present : 0;
        w->lanes[i].out[1] = all;
    }
}

void op_activemask(Warp *w, u32 present) { give(w, present, present); }

void op_elect(Warp *w, u32 present) {
    const u32 leader = (u32)__builtin_ctz(present);
    EACH(i, present) {
        w->lanes[i].out[0] = leader;
        w->lanes[i].out[1] = i == leader;
    }
}

#define REDUX(name, type, expression) \
    void op_redux_##name(Warp *w, u32 present) { \
        type x = (type)w->lanes[__builtin_ctz(present)].in[0]; \
        EACH(i, present & (present - 1)) { \
            const type y = (type)w->lanes[i].in[0]; \
            x = expression; \
        } \
        give(w, present, (u32)x); \
    }
REDUX(add, u32, x + y)
REDUX(min_s32, s32, x < y ? x : y)
REDUX(max_s32, s32, x > y ? x : y)
REDUX(min_u32, u32, x < y ? x : y)
REDUX(max_u32, u32, x > y ? x : y)
REDUX(and, u32, x &y)
REDUX(or, u32, x | y)
REDUX(xor, u32, x ^ y)
