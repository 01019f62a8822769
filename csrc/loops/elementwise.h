// The driver of every kernel that works element by element: strides, tiles, threads.
//
// An operand is a matrix of rows x cols elements with any strides. The kernel is called on contiguous pieces: of rows
// where all operands have contiguous rows, else of tiles that are copied to a buffer on the stack and back. Operands may
// be the same memory where they have the same strides.
#ifndef TW_ELEMENTWISE_H
#define TW_ELEMENTWISE_H

#include "../tilewright.h"

enum { TW_OPERANDS = 4 };

typedef struct tw_elementwise {
    int operands;
    unsigned read, written;  // bit o: operand o is read, is written
    unsigned single;  // bit o: where operand o is one element for all of a piece, that is what chunk gets
    int itemsize;     // of every operand, in bytes: 1, 2, 4 or 8
    int itemsizes[TW_OPERANDS];  // or of each of them, where that is 0
    ptrdiff_t rows, cols;
    tw_matrix operand[TW_OPERANDS];
    double ns;    // about what one element takes, for the number of threads
    int ordered;  // a piece lies within one row, and chunk is told its place
    int stream;   // set by the driver: chunk may write results past the caches; and `single`: those that are one element
    // on n contiguous elements, the first being number `at` in C order if ordered
    void (*chunk)(const struct tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data);
    const void *context;  // for chunk
} tw_elementwise;

void tw_run_elementwise(const tw_elementwise *job);

#endif
