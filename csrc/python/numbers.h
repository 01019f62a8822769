// Single scales and zero points, as users give them.
#ifndef TW_DOOR_NUMBERS_H
#define TW_DOOR_NUMBERS_H

#include "door.h"

int tw_is_narrow(int type); // an integer of 8 or 16 bits

// The integers of such a type: *low .. *high.
void tw_limits(int type, int32_t *low, int32_t *high);

// A finite positive scale from a float of Python's or NumPy's, or a float32 array of one element.
int tw_read_scale(PyObject *object, float *scale);

// A zero point in the range of *type, from a number or an array of one. NumPy's have a type: with `typed` that is written to
// *type. None: 0.
int tw_read_zero(PyObject *object, int typed, int *type, int32_t *zero);

#endif
