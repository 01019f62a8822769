// tilewright.PackedMatrix (core/packed.py) as doors read it.
#ifndef TW_DOOR_PACKED_H
#define TW_DOOR_PACKED_H

#include "door.h"

// The matrix (K, N) of a PackedMatrix and its panels for this side, which are made now if need be; 0: it is none.
int tw_read_packed(PyObject *object, int transpose, tw_view *view, const void **panels);

#endif
