// Doors of the norms over the last axis: layer_norm(x, weight, bias, eps, out), rms_norm(x, weight, eps, out) and
// layer_norm_backward(dy, x, weight, eps, dx, dweight, dbias), rms_norm_backward(dy, x, weight, eps, dx, dweight).
#include "matrices.h"

#define NS_PER_ELEMENT 0.3  // for the decision to release the GIL

typedef struct {
    int centre, dtype;
    double eps;
    const void *weight, *bias;
    void *dweight, *dbias;
} call;

// weight or bias: None, or a vector of n elements, contiguous. *data stays NULL for None.
static int read_vector(PyObject *object, int dtype, npy_intp n, tw_view *view, const void **data) {
    *data = NULL;
    if (object == Py_None)
        return 1;
    if (!tw_read_float(object, dtype, view) || view->ndim != 1 || view->shape[0] != n ||
        (n > 1 && view->strides[0] != view->itemsize))
        return 0;
    *data = view->data;
    return 1;
}

static int run(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const call *c = context;
    return tw_norm(c->dtype, c->centre, rows, cols, m[1], c->weight, c->bias, c->eps, m[0]);
}

static PyObject *forward(int centre, PyObject *const *args, Py_ssize_t nargs) {
    call c = {.centre = centre};
    tw_view out, x, w, b;
    const tw_view *views[] = {&out, &x, &w, &b}, *inputs[] = {&x, NULL, NULL};
    if (nargs != 4 + centre || !tw_read_float(args[0], -1, &x) || x.ndim == 0 || !tw_number(args[nargs - 2], &c.eps) ||
        !(c.eps >= 0))
        return tw_not_plain();
    c.dtype = x.dtype;
    const npy_intp n = x.shape[x.ndim - 1];
    int count = 1;
    if (!read_vector(args[1], x.dtype, n, &w, &c.weight) || (centre && !read_vector(args[2], x.dtype, n, &b, &c.bias)))
        return tw_not_plain();
    if (c.weight)
        inputs[count++] = &w;
    if (c.bias)
        inputs[count++] = &b;
    const int made = tw_output_apart(args[nargs - 1], x.dtype, x.ndim, x.shape, &out, count, inputs, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&x) * NS_PER_ELEMENT);
    const int code = tw_each_row(2, views, run, &c);
    tw_take_gil(state);
    return tw_result(code, out.object);
}

static int run_backward(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const call *c = context;
    return tw_norm_backward(c->dtype, c->centre, rows, cols, m[1], m[2], c->weight, c->eps, m[0], c->dweight, c->dbias);
}

// Counts the matrices: dweight and dbias are sums over all rows, which must therefore make up one.
static int count_matrix(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    (void)rows, (void)cols, (void)m;
    ++*(int *)context;
    return TW_OK;
}

static PyObject *backward(int centre, PyObject *const *args, Py_ssize_t nargs) {
    call c = {.centre = centre};
    tw_view dx, dy, x, w, dw, db;
    const tw_view *views[] = {&dx, &dy, &x}, *inputs[] = {&dy, &x, &w};
    if (nargs != 6 + centre || !tw_read_float(args[0], -1, &dy) || !tw_read_float(args[1], dy.dtype, &x) || x.ndim == 0 ||
        !tw_same_shape(&dy, &x) || !tw_number(args[3], &c.eps) || !(c.eps >= 0))
        return tw_not_plain();
    c.dtype = x.dtype;
    const npy_intp *shape = x.shape + x.ndim - 1;
    if (!read_vector(args[2], x.dtype, *shape, &w, &c.weight))
        return tw_not_plain();
    PyObject *made[3] = {NULL};
    tw_view *outs[] = {&dx, &dw, &db};
    int code = 1, matrices = 0;
    for (int o = 0; code > 0 && o < 2 + centre; o++) {
        code = tw_output_apart(args[4 + o], x.dtype, o ? 1 : x.ndim, o ? shape : x.shape, outs[o], c.weight ? 3 : 2, inputs,
                               0);
        if (code > 0)
            made[o] = outs[o]->object;
        if (code > 0 && o && *shape > 1 && outs[o]->strides[0] != outs[o]->itemsize)
            code = 0;
        for (int other = 0; code > 0 && other < o; other++)
            if (tw_overlap(outs[o], outs[other]))
                code = 0;
    }
    if (code > 0 && tw_size(&x))
        tw_each_row(3, views, count_matrix, &matrices);
    if (code <= 0 || matrices > 1) {
        for (int o = 0; o < 3; o++) Py_XDECREF(made[o]);
        return code < 0 ? NULL : tw_not_plain();
    }
    c.dweight = dw.data;
    c.dbias = centre ? db.data : NULL;
    PyThreadState *state = tw_release_gil((double)tw_size(&x) * NS_PER_ELEMENT);
    const tw_matrix none[3] = {{0}};
    code = matrices ? tw_each_row(3, views, run_backward, &c) : run_backward(&c, 0, *shape, none);
    tw_take_gil(state);
    PyObject *tuple = code == TW_OK ? PyTuple_New(2 + centre) : NULL;
    for (int o = 0; o < 2 + centre; o++)
        if (tuple)
            PyTuple_SetItem(tuple, o, made[o]);
        else
            Py_DECREF(made[o]);
    return code == TW_OK ? tuple : tw_result(code, NULL);
}

#define DEFINE(name, centre) \
    static PyObject *door_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return forward(centre, args, nargs); \
    } \
    static PyObject *door_##name##_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return backward(centre, args, nargs); \
    }
DEFINE(layer_norm, 1)
DEFINE(rms_norm, 0)

PyMethodDef tw_doors_norm[] = {TW_DOOR(layer_norm), TW_DOOR(layer_norm_backward), TW_DOOR(rms_norm),
                               TW_DOOR(rms_norm_backward), TW_DOOR_END};
