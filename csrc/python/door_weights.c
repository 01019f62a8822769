// The doors that pack and describe weights of 8 or 4 bits; quantized_linear (door_qlinear.c) multiplies with them.
#include "door.h"

static int is_c_ordered(const tw_view *v, int dtype, npy_intp rows, npy_intp cols) {
    return v->dtype == dtype && v->ndim == 2 && v->shape[0] == rows && v->shape[1] == cols && tw_is_contiguous(v);
}

// pack_weights(values, scales, zeros or None, bits, group_size, n, k) -> array of bytes; the parts of a QuantizedMatrix
static PyObject *door_pack_weights(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view values, scales, zeros = {0};
    npy_intp numbers[4] = {0}; // bits, group_size, n, k
    if (nargs != 7 || !tw_read(args[0], &values) || !tw_read(args[1], &scales) || (args[2] != Py_None && !tw_read(args[2], &zeros)))
        return tw_not_plain();
    for (int i = 0; i < 4; i++)
        if ((numbers[i] = PyLong_AsSsize_t(args[3 + i])) == -1 && PyErr_Occurred())
            return NULL;
    const npy_intp bits = numbers[0], n = numbers[2], k = numbers[3], group = numbers[1] > 0 ? numbers[1] : 1;
    const npy_intp groups = scales.ndim == 2 ? scales.shape[1] : 0, columns = bits == 4 ? k / 2 + k % 2 : k;
    if (!is_c_ordered(&values, bits == 4 ? TW_UINT8 : TW_INT8, n, columns) || !is_c_ordered(&scales, TW_FLOAT32, n, groups) ||
        (k > 0 && groups != k / group + (k % group > 0)) || (zeros.data && !is_c_ordered(&zeros, TW_INT8, n, groups)))
        return tw_not_plain();
    const tw_weights w = {(int)bits, n, k, group, values.data, (const float *)scales.data, (const int8_t *)zeros.data};
    npy_intp bytes = (npy_intp)tw_pack_weights_bytes(&w);
    PyObject *packed = bytes ? PyArray_SimpleNew(1, &bytes, NPY_INT8) : tw_not_plain();
    if (!packed || !bytes)
        return packed;
    PyThreadState *state = tw_release_gil((double)bytes);
    const int code = tw_pack_weights(&w, PyArray_DATA((PyArrayObject *)packed));
    tw_take_gil(state);
    return tw_result(code, packed);
}

// describe_weights(packed, rows) -> str: how that many rows would be multiplied
static PyObject *door_describe_weights(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view packed;
    char text[160];
    const npy_intp rows = nargs == 2 ? PyLong_AsSsize_t(args[1]) : -1;
    if (PyErr_Occurred())
        return NULL;
    if (rows < 0 || !tw_read(args[0], &packed) || packed.dtype != TW_INT8)
        return tw_not_plain();
    tw_weight_only_describe(packed.data, rows, text, sizeof text);
    return PyUnicode_FromString(text);
}

PyMethodDef tw_doors_weights[] = {TW_DOOR(pack_weights), TW_DOOR(describe_weights), TW_DOOR_END};
