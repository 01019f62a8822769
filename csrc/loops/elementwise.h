// The driver of every kernel that works element by element: strides, chunks, threads.
//
// An operand is a matrix of rows x cols elements with any strides. The kernel is called on contiguous chunks: in place
// where the operand is contiguous, through a buffer on the stack where it is not. Operands may be the same memory where
// they have the same strides.
#ifndef TW_ELEMENTWISE_H
#define TW_ELEMENTWISE_H

#include "../tilewright.h"

enum { TW_OPERANDS = 4 };

typedef struct tw_elementwise {
    int operands;
    unsigned written;  // bit o: operand o is written
    int itemsize;      // 4 or 8 bytes, of every operand
    ptrdiff_t rows, cols;
    tw_matrix operand[TW_OPERANDS];
    double ns;  // about what one element takes, for the number of threads
    // on n contiguous elements, the first being number `at` in C order; stream: write past the caches
    void (*chunk)(const struct tw_elementwise *job, ptrdiff_t at, ptrdiff_t n, void *const *data, int stream);
    const void *context;  // for chunk
} tw_elementwise;

void tw_run_elementwise(const tw_elementwise *job);

// n elements of a strided vector <-> a contiguous one; itemsize 4 or 8
void tw_gather(ptrdiff_t n, int itemsize, const void *from, ptrdiff_t stride, void *to);
void tw_scatter(ptrdiff_t n, int itemsize, const void *from, void *to, ptrdiff_t stride);

#endif
