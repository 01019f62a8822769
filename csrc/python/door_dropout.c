// The door of dropout and of its derivative: dropout(x, p, seed, out).
#include "matrices.h"

#define NS_PER_ELEMENT 0.6  // for the decision to release the GIL

typedef struct {
    double p;
    uint64_t seed;
} call;

// The matrices of the last two axes, in C order of the others: an element's number is its place in that order.
static int run(const call *c, const tw_view *x, const tw_view *y) {
    const int axes = x->ndim;
    const npy_intp size = tw_size(x), item = x->itemsize;
    if (tw_is_contiguous(x) && tw_is_contiguous(y))
        return tw_dropout(x->dtype, c->p, c->seed, 0, 1, size, (tw_matrix){x->data, 0, 1}, (tw_matrix){y->data, 0, 1});
    const npy_intp cols = x->shape[axes - 1], rows = axes > 1 ? x->shape[axes - 2] : 1;
    for (npy_intp first = 0; first < size; first += rows * cols) {
        npy_intp left = first / (rows * cols);
        tw_matrix from = {x->data, axes > 1 ? x->strides[axes - 2] / item : 0, x->strides[axes - 1] / item};
        tw_matrix to = {y->data, axes > 1 ? y->strides[axes - 2] / item : 0, y->strides[axes - 1] / item};
        for (int axis = axes - 3; axis >= 0; axis--) {
            from.data = (char *)from.data + left % x->shape[axis] * x->strides[axis];
            to.data = (char *)to.data + left % x->shape[axis] * y->strides[axis];
            left /= x->shape[axis];
        }
        const int code = tw_dropout(x->dtype, c->p, c->seed, (uint64_t)first, rows, cols, from, to);
        if (code != TW_OK)
            return code;
    }
    return TW_OK;
}

static PyObject *door_dropout(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    call c;
    tw_view x, y;
    const tw_view *inputs[] = {&x};
    if (nargs != 4 || !tw_read_float(args[0], -1, &x) || !tw_number(args[1], &c.p) || !(c.p >= 0 && c.p <= 1) ||
        !PyLong_Check(args[2]))
        return tw_not_plain();
    c.seed = PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return tw_not_plain();
    }
    const int made = tw_output_apart(args[3], x.dtype, x.ndim, x.shape, &y, 1, inputs, 1);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&x) * NS_PER_ELEMENT);
    const int code = run(&c, &x, &y);
    tw_take_gil(state);
    return tw_result(code, y.object);
}

PyMethodDef tw_doors_dropout[] = {TW_DOOR(dropout), TW_DOOR_END};
