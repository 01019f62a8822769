// Tiles of integer products by a matrix unit, AMX; included by tiles.h where there is one.
//
//                    panel: 16 words of k, 2 vectors a row     The unit has eight registers of 16 rows of 64 bytes. Four hold c,
//                        |  b0  |  b1  |                       32 x 32; each step multiplies 64 bytes of 32 rows of a, read
//                      --+------+------+                       where they lie, by 16 rows of words of a panel: four products of
//      16 rows of a0  -> |  c0  |  c1  |                       16 cycles, and four loads of 8 meanwhile. A strip of 16 rows or
//      16 rows of a1  -> |  c2  |  c3  |                       fewer leaves a1, c2 and c3 out.
//
// The panels are those of the vector tiles; packing fills them up with zeros to whole steps, and a's last step comes padded, in
// `tail`. Products start from memory: from one row of numbers for all rows of c (a stride of 0) where that does, else from c.
// Bytes of a are multiplied as what they are, signed or not, so that none of them are flipped.
#include "../isa/amx.h"

#define WORDS TW_MATRIX_WORDS
enum { SIDE = TW_AMX_SIDE, SIDES = 2 * SIDE };
_Static_assert(SIDES <= (int)TW_MAX_STRIP && (int)LANES == (int)SIDE && NV == 2,
               "c is two registers of vectors wide, and a strip high");

static void close_unit(void) {
    _tile_release();
    _mm_sfence(); // what was written past the caches
}

#define PRODUCT(c, a, b) \
    do { \
        if (is_unsigned) _tile_dpbusd(c, a, b); \
        else _tile_dpbssd(c, a, b); \
    } while (0)

INLINE void matrix_step(const int is_unsigned, const int low, const int nv, const char *a, ptrdiff_t a_row, const uint32_t *b) {
    const int b_row = nv * LANES * 4;
    _tile_loadd(4, a, a_row);
    _tile_stream_loadd(6, b, b_row); // past L1, which the rows of a are to stay in: 1024x1024x1536 2.4 Tops/s, 2.7 with it
    PRODUCT(0, 4, 6);
    if (nv > 1) {
        _tile_stream_loadd(7, b + LANES, b_row);
        PRODUCT(1, 4, 7);
    }
    if (!low)
        return;
    _tile_loadd(5, a + SIDE * a_row, a_row);
    PRODUCT(2, 5, 6);
    if (nv > 1) PRODUCT(3, 5, 7);
}

INLINE void matrix_steps(const int is_unsigned, const int low, const int nv, ptrdiff_t words, const char *a, const uint32_t *b,
                         const int32_t *from, ptrdiff_t from_row, int32_t *to, ptrdiff_t to_row, const tw_strip *t) {
    // A store across two lines waits for both: 256x256x256 2.2 Tops/s, with this 2.5 (and 3.6 within lines, which it would slow
    // down). So do many stores: 4096x64x64 0.85, with this 1.1.
    if (words <= 2 * WORDS || ((uintptr_t)to | (uintptr_t)(to_row * 4)) % 64)
        for (int i = 0; i < (low ? SIDES : SIDE); i++) UNROLL for (int j = 0; j < nv; j++)
            __builtin_prefetch(to + i * to_row + j * LANES, 1, 3);
    TW_AMX_BARRIER;
    _tile_loadd(0, from, from_row * 4);
    if (nv > 1) _tile_loadd(1, from + LANES, from_row * 4);
    if (low) _tile_loadd(2, from + SIDE * from_row, from_row * 4);
    if (low && nv > 1) _tile_loadd(3, from + SIDE * from_row + LANES, from_row * 4);
    for (; words >= WORDS; words -= WORDS, a += 4 * WORDS, b += WORDS * nv * LANES)
        matrix_step(is_unsigned, low, nv, a, t->a_row, b);
    if (t->tail) matrix_step(is_unsigned, low, nv, (const char *)t->tail, 4 * WORDS, b);
    _tile_stored(0, to, to_row * 4);
    if (nv > 1) _tile_stored(1, to + LANES, to_row * 4);
    if (low) _tile_stored(2, to + SIDE * to_row, to_row * 4);
    if (low && nv > 1) _tile_stored(3, to + SIDE * to_row + LANES, to_row * 4);
    TW_AMX_BARRIER;
}

INLINE void matrix_tile(const int is_unsigned, const int nv, ptrdiff_t words, const char *a, const uint32_t *b, const int32_t *sums,
                        const int32_t *b_zero, int32_t *c, ptrdiff_t last, const tw_strip *t) {
    const int m = (int)t->m;
    int32_t whole[SIDES * NV * LANES] __attribute__((aligned(64)));  // c where its last vector is cut short
    int32_t row[NV * LANES] __attribute__((aligned(64)));
    const int direct = last == LANES && !t->past;
    int32_t *to = direct ? c : whole;
    const ptrdiff_t to_row = direct ? t->c_row : nv * LANES;
    const int one_row = t->one_zero && !t->goes_on;
    for (int i = 0; !t->goes_on && i < (one_row ? 1 : m); i++) {
        wvec acc[1][TW_MAX_VECTORS];
        start(1, nv, acc, sums, b_zero, t, i);
        UNROLL for (int j = 0; j < nv; j++) w_store((one_row ? row : to + i * to_row) + j * LANES, acc[0][j]);
    }
    if (m > SIDE)
        matrix_steps(is_unsigned, 1, nv, words, a, b, one_row ? row : to, one_row ? 0 : to_row, to, to_row, t);
    else
        matrix_steps(is_unsigned, 0, nv, words, a, b, one_row ? row : to, one_row ? 0 : to_row, to, to_row, t);
    for (int i = 0; t->past && i < m; i++) UNROLL for (int j = 0; j < nv; j++)
        _mm512_stream_si512((void *)(c + i * t->c_row + j * LANES), (__m512i)w_load(whole + (i * nv + j) * LANES));
    for (int i = 0; last != LANES && i < m; i++) UNROLL for (int j = 0; j < nv; j++)
        w_store_n(c + i * t->c_row + j * LANES, w_load(whole + (i * nv + j) * LANES), j < nv - 1 ? LANES : last);
}

#define MATRIX_TILE(sign, nv) \
    static void matrix_##sign##_##nv(ptrdiff_t words, const void *a, const void *panel, const int32_t *sums, const int32_t *b_zero, \
                                     int32_t *c, ptrdiff_t last, const tw_strip *strip) { \
        matrix_tile(sign, nv, words, a, panel, sums, b_zero, c, last, strip); \
    }
MATRIX_TILE(0, 1)
MATRIX_TILE(0, 2)
MATRIX_TILE(1, 1)
MATRIX_TILE(1, 2)
static const tw_matrix_unit matrix_unit = {
    .rows = SIDES, .open = amx_open, .close = close_unit,
    .tile = {{matrix_0_1, matrix_0_2}, {matrix_1_1, matrix_1_2}}};
