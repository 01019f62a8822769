// Weights of 8 or 4 bits in the layout that their kernels read, and what each instruction set brings to them.
#ifndef TW_QGEMM_WEIGHTS_H
#define TW_QGEMM_WEIGHTS_H

#include "../isa/isa.h"

enum { TW_WEIGHT_ROWS = 6, TW_WEIGHT_WIDTH = 64 }; // rows of x and columns that a tile has at most, on any ISA

typedef struct tw_weight_kernels tw_weight_kernels;

// Panels of `width` columns of y, one after the other; in a panel group after group:
//
//     scales          width float32
//     zeros           width int8, if there are zeros
//     blocks          depth k each, the last one filled up with zeros: width * 4 bytes
//
//     8 bits: depth 4    k0: width bytes   k1   k2   k3          one load widens to a vector
//     4 bits: depth 8    width lanes of 32 bits, each the 8 successive k of a column, the first lowest, raised by 8
typedef struct {
    const tw_weight_kernels *kernels; // the instruction set, with which the layout goes
    ptrdiff_t n, k, group_size;
    int bits, depth, has_zeros;
    ptrdiff_t panel_bytes;
} tw_weight_layout;

// Rows of x, contiguous along k and x_row apart; with zeros, also their sums over each group.
typedef struct {
    const float *x, *sums;
    ptrdiff_t x_row, sums_row;
} tw_weight_rows;

// sums (m, width), m by the table's index, of rows of x times the columns of one panel.
typedef void tw_weight_tile(const tw_weight_layout *w, const char *panel, const tw_weight_rows *rows, float *sums);

// The sums of one row of x over each group.
typedef void tw_weight_sum_groups(const tw_weight_layout *w, const float *x, float *sums);

// One panel as float32 (k, width), the rows `row` apart.
typedef void tw_weight_expand(const tw_weight_layout *w, const char *panel, float *to, ptrdiff_t row);

struct tw_weight_kernels {
    int width;                               // columns of a panel: 4 vectors
    int rows;                                // of a tile at most
    tw_weight_tile *tile[2][TW_WEIGHT_ROWS]; // [bits == 4][m - 1]
    tw_weight_sum_groups *sum_groups;
    tw_weight_expand *expand[2];             // [bits == 4]
};

#endif
