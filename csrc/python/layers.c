#include "layers.h"

#include <string.h>

// An array as rows of its last axis, the others merged; 0: their strides do not allow that.
static int as_rows(const tw_view *v, tw_matrix *rows) {
    const int last = v->ndim - 1;
    npy_intp step = 0, count = 1; // rows so far, and from one to the next
    for (int i = last - 1; i >= 0; i--) {
        if (v->shape[i] == 1)
            continue;
        if (count == 1)
            step = v->strides[i];
        else if (v->strides[i] != step * count && tw_size(v))
            return 0;
        count *= v->shape[i];
    }
    *rows = (tw_matrix){v->data, step / v->itemsize, v->strides[last] / v->itemsize};
    return 1;
}

int tw_read_layer(PyObject *bias, PyObject *residual, PyObject *activation, int dtype, npy_intp n, npy_intp k, tw_layer_arrays *l) {
    const int axes = l->x.ndim;
    l->bias.data = l->residual.data = NULL;
    l->added = (tw_matrix){0};
    if (axes < 1 || axes > TW_MAX_DIMS || l->x.shape[axes - 1] != k || !as_rows(&l->x, &l->rows))
        return 0;
    if (bias != Py_None && (!tw_read(bias, &l->bias) || l->bias.dtype != dtype || l->bias.ndim != 1 || l->bias.shape[0] != n))
        return 0;
    l->m = 1;
    for (int i = 0; i < axes - 1; i++) l->m *= l->shape[i] = l->x.shape[i];
    l->shape[axes - 1] = n;
    if (residual != Py_None && (!tw_read(residual, &l->residual) || l->residual.dtype != dtype || l->residual.ndim != axes ||
                                memcmp(l->residual.shape, l->shape, (size_t)axes * sizeof *l->shape) ||
                                !as_rows(&l->residual, &l->added)))
        return 0;
    l->activation = (int)PyLong_AsLong(activation);
    if (l->activation >= 0)
        return 1;
    PyErr_Clear();
    return 0;
}

static int is_apart(const tw_layer_arrays *l, const tw_view *w) {
    const tw_view *y = &l->y;
    return !tw_overlap(y, &l->x) && !(w && tw_overlap(y, w)) && !(l->bias.data && tw_overlap(y, &l->bias)) &&
           !(l->residual.data && !tw_identical(y, &l->residual) && tw_overlap(y, &l->residual));
}

int tw_layer_output(PyObject *out, int dtype, const tw_view *w, tw_layer_arrays *l) {
    const int made = tw_output(out, dtype, l->x.ndim, l->shape, &l->y);
    if (made <= 0 || (as_rows(&l->y, &l->result) && (out == Py_None || is_apart(l, w))))
        return made;
    Py_DECREF(l->y.object);
    return 0;
}
