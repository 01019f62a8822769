// When results are written past the caches.
#ifndef TW_STREAM_H
#define TW_STREAM_H

#include "../tilewright.h"

// Whether the results (bit o of written: operand o) of an operation on so many bytes of operands are better written past
// the caches.
int tw_wants_stream(int operands, unsigned written, const tw_matrix *operand, double bytes);

#endif
