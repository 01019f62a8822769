// Doors of weights of 8 or 4 bits under float32 rows: pack_weights, weight_only_linear.
#include "door.h"

#define NS_PER_WEIGHT 0.02 // for the decision to release the GIL

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

static tw_matrix matrix(const tw_view *v) {
    return (tw_matrix){v->data, v->strides[0] / v->itemsize, v->strides[1] / v->itemsize};
}

// weight_only_linear(x, packed, n, bias, residual, activation, out): x (R, K), bias (N,) or None, residual (R, N) or None
static PyObject *door_weight_only_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view x, packed, bias = {0}, residual = {0}, y;
    if (nargs != 7 || !tw_read(args[0], &x) || x.dtype != TW_FLOAT32 || x.ndim != 2 || !tw_read(args[1], &packed) ||
        packed.dtype != TW_INT8)
        return tw_not_plain();
    const npy_intp n = PyLong_AsSsize_t(args[2]), shape[2] = {x.shape[0], n};
    const long activation = PyLong_AsLong(args[5]);
    if (PyErr_Occurred())
        return NULL;
    if ((args[3] != Py_None && (!tw_read(args[3], &bias) || bias.dtype != TW_FLOAT32 || bias.ndim != 1 || bias.shape[0] != n)) ||
        (args[4] != Py_None && (!tw_read(args[4], &residual) || residual.dtype != TW_FLOAT32 || residual.ndim != 2 ||
                                residual.shape[0] != shape[0] || residual.shape[1] != n)))
        return tw_not_plain();
    const int made = tw_output(args[6], TW_FLOAT32, 2, shape, &y);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (tw_overlap(&y, &x) || (bias.data && tw_overlap(&y, &bias)) ||
        (residual.data && !tw_identical(&y, &residual) && tw_overlap(&y, &residual))) {
        Py_DECREF(y.object);
        return tw_not_plain();
    }
    tw_weight_only_call call = {.activation = (int)activation, .m = shape[0], .n = n, .k = x.shape[1], .x = matrix(&x),
                                .y = matrix(&y), .packed = packed.data, .bias = (const float *)bias.data};
    if (bias.data)
        call.bias_step = bias.strides[0] / bias.itemsize;
    if (residual.data)
        call.residual = matrix(&residual);
    PyThreadState *state = tw_release_gil((double)call.m * (double)n * (double)call.k * NS_PER_WEIGHT);
    const int code = tw_weight_only_linear(&call);
    tw_take_gil(state);
    return tw_result(code, y.object);
}

PyMethodDef tw_doors_weights[] = {TW_DOOR(pack_weights), TW_DOOR(weight_only_linear), TW_DOOR_END};
