#include "numbers.h"

#include <math.h>
#include <numpy/arrayscalars.h>
#include <string.h>

int tw_is_narrow(int type) { return type == TW_INT8 || type == TW_UINT8 || type == TW_INT16 || type == TW_UINT16; }

void tw_limits(int type, int32_t *low, int32_t *high) {
    const int bits = type == TW_INT8 || type == TW_UINT8 ? 8 : 16, is_signed = type == TW_INT8 || type == TW_INT16;
    *low = is_signed ? -(1 << (bits - 1)) : 0;
    *high = *low + (1 << bits) - 1;
}

int tw_read_scale(PyObject *object, float *scale) {
    tw_view view;
    if (PyFloat_Check(object))
        *scale = (float)PyFloat_AsDouble(object);
    else if (PyArray_IsScalar(object, Float))
        PyArray_ScalarAsCtype(object, scale);
    else if (tw_read(object, &view) && view.dtype == TW_FLOAT32 && tw_size(&view) == 1)
        *scale = *(const float *)view.data;
    else
        return 0;
    return isfinite(*scale) && *scale > 0;
}

// A number of NumPy's and its type, or an array of one; 0: neither.
static int read_typed(PyObject *object, int *type, int32_t *zero) {
    union {
        uint8_t u8;
        int8_t s8;
        uint16_t u16;
        int16_t s16;
    } found;
    tw_view view;
    *type = PyArray_IsScalar(object, UByte)    ? TW_UINT8
            : PyArray_IsScalar(object, Byte)   ? TW_INT8
            : PyArray_IsScalar(object, UShort) ? TW_UINT16
            : PyArray_IsScalar(object, Short)  ? TW_INT16
                                               : -1;
    if (*type >= 0) {
        PyArray_ScalarAsCtype(object, &found);
    } else if (tw_read(object, &view) && tw_size(&view) == 1 && tw_is_narrow(view.dtype)) {
        memcpy(&found, view.data, (size_t)view.itemsize);
        *type = view.dtype;
    } else {
        return 0;
    }
    *zero = *type == TW_UINT8 ? found.u8 : *type == TW_INT8 ? found.s8 : *type == TW_UINT16 ? found.u16 : found.s16;
    return 1;
}

int tw_read_zero(PyObject *object, int typed, int *type, int32_t *zero) {
    int32_t low, high;
    int own, overflow = 0;
    *zero = 0;
    if (object == Py_None)
        return 1;
    if (PyLong_CheckExact(object)) {
        const long value = PyLong_AsLongAndOverflow(object, &overflow);
        tw_limits(*type, &low, &high);
        *zero = (int32_t)value;
        return !overflow && low <= value && value <= high;
    }
    if (!read_typed(object, &own, zero))
        return 0;
    if (typed)
        *type = own;
    tw_limits(*type, &low, &high);
    return low <= *zero && *zero <= high;
}
