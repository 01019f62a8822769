// The matrix unit of x86, AMX: eight registers of 16 rows of 64 bytes. Included where __AMX_INT8__ is defined.
//
//     registers          0   1   2   3     4   5     6   7
//     a product          c0  c1  c2  c3    a0  a1    b0  b1      c0 c1    a0    b0 b1
//     rows               high    low       high low  16  16      c2 c3 += a1 ·
#ifndef TW_AMX_H
#define TW_AMX_H
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_AMX_SIDE = 16 }; // rows of a register, and words of a row

#define TW_AMX_BARRIER __asm__ volatile("" ::: "memory") // gcc does not know that loads of registers read memory

// Registers for strips of m rows of c, up to 32. Those of another shape lose what they hold.
static inline void amx_open(ptrdiff_t m) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    const uint8_t high = (uint8_t)(m < TW_AMX_SIDE ? m : TW_AMX_SIDE), low = (uint8_t)(m - high);
    const uint8_t rows[8] = {high, high, low, low, high, low, TW_AMX_SIDE, TW_AMX_SIDE};
    for (int i = 0; i < 8; i++) shape.rows[i] = rows[i], shape.row_bytes[i] = rows[i] ? 4 * TW_AMX_SIDE : 0;
    TW_AMX_BARRIER;
    _tile_loadconfig(&shape);
}

#endif
