#include "matrices.h"

static int walk(const tw_loop *loop, int operands, const tw_view *const *views, tw_matrix_call *call, void *context) {
    const int last = loop->ndim - 1;
    const npy_intp cols = loop->shape[last], rows = last > 0 ? loop->shape[last - 1] : 1;
    const npy_intp all = tw_size(views[0]) ? tw_rows(loop) : 0;
    for (npy_intp row = 0; row < all; row += rows) {
        char *data[TW_MAX_OPERANDS];
        tw_matrix m[TW_MAX_OPERANDS];
        tw_row(loop, operands, row, data);
        for (int o = 0; o < operands; o++) {
            const npy_intp *strides = loop->strides[o] + last, itemsize = views[o]->itemsize;
            m[o] = (tw_matrix){data[o], last > 0 ? strides[-1] / itemsize : 0, *strides / itemsize};
        }
        const int code = call(context, rows, cols, m);
        if (code != TW_OK)
            return code;
    }
    return TW_OK;
}

int tw_each_matrix(int operands, const tw_view *const *views, tw_matrix_call *call, void *context) {
    tw_matrix m[TW_MAX_OPERANDS];
    tw_loop loop;
    int contiguous = 1;
    for (int o = 0; o < operands; o++) {
        contiguous &= tw_is_contiguous(views[o]);
        m[o] = (tw_matrix){views[o]->data, 0, 1};
    }
    if (contiguous)
        return call(context, 1, tw_size(views[0]), m);
    if (!tw_coalesce(&loop, operands, views))
        return TW_INVALID;
    return walk(&loop, operands, views, call, context);
}

int tw_each_row(int operands, const tw_view *const *views, tw_matrix_call *call, void *context) {
    tw_view leading[TW_MAX_OPERANDS];
    const tw_view *leads[TW_MAX_OPERANDS] = {0};
    tw_loop loop;
    const int axis = views[0]->ndim - 1;
    for (int o = 0; o < operands; o++) {
        leading[o] = *views[o];
        leading[o].ndim = axis;
        leads[o] = &leading[o];
    }
    if (!tw_coalesce(&loop, operands, leads))
        return TW_INVALID;
    const int last = loop.ndim++;  // the columns as one more axis of the loop
    for (int o = 0; o < operands; o++) loop.strides[o][last] = views[o]->strides[axis];
    loop.shape[last] = views[0]->shape[axis];
    return walk(&loop, operands, views, call, context);
}

int tw_read_float(PyObject *object, int dtype, tw_view *view) {
    return tw_read(object, view) && view->dtype <= TW_FLOAT64 && (dtype < 0 || view->dtype == dtype) &&
           view->ndim < TW_MAX_DIMS;
}

int tw_output_apart(PyObject *object, int dtype, int ndim, const npy_intp *shape, tw_view *view, int inputs,
                    const tw_view *const *input, int elementwise) {
    const int made = tw_output(object, dtype, ndim, shape, view);
    for (int i = 0; made > 0 && object != Py_None && i < inputs; i++)
        if (tw_overlap(view, input[i]) && !(elementwise && tw_identical(view, input[i]))) {
            Py_DECREF(view->object);
            return 0;
        }
    return made;
}

int tw_number(PyObject *object, double *value) {
    *value = PyFloat_AsDouble(object);
    if (*value != -1 || !PyErr_Occurred())
        return 1;
    PyErr_Clear();
    return 0;
}
