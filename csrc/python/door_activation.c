// Doors of the activations: name(x, [param,] out) and name_backward(dy, x, [param,] out).
#include "door.h"

#define NS_PER_ELEMENT 0.3  // for the decision to release the GIL

typedef struct {
    int code, operands;  // operands: out, then x or dy and x
    double param;
} call;

static tw_matrix matrix(const tw_loop *loop, char *data, int operand, npy_intp itemsize) {
    const npy_intp *strides = loop->strides[operand] + loop->ndim - 1;
    return (tw_matrix){data, loop->ndim > 1 ? strides[-1] / itemsize : 0, *strides / itemsize};
}

static int run_matrix(const call *c, int dtype, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    return c->operands == 2 ? tw_activation(dtype, c->code, c->param, rows, cols, m[1], m[0])
                            : tw_activation_backward(dtype, c->code, c->param, rows, cols, m[1], m[2], m[0]);
}

static int run(const call *c, const tw_view *const *views) {
    const tw_view *out = views[0];
    tw_matrix m[3];
    tw_loop loop;
    int contiguous = 1;
    for (int o = 0; o < c->operands; o++) {
        contiguous &= tw_is_contiguous(views[o]);
        m[o] = (tw_matrix){views[o]->data, 0, 1};
    }
    if (contiguous)
        return run_matrix(c, out->dtype, 1, tw_size(out), m);
    if (!tw_coalesce(&loop, c->operands, views))
        return TW_INVALID;
    npy_intp cols = loop.shape[loop.ndim - 1], rows = loop.ndim > 1 ? loop.shape[loop.ndim - 2] : 1;
    npy_intp all = tw_size(out) ? tw_rows(&loop) : 0;
    for (npy_intp row = 0; row < all; row += rows) {
        char *data[3];
        tw_row(&loop, c->operands, row, data);
        for (int o = 0; o < c->operands; o++) m[o] = matrix(&loop, data[o], o, out->itemsize);
        int code = run_matrix(c, out->dtype, rows, cols, m);
        if (code != TW_OK)
            return code;
    }
    return TW_OK;
}

// args: c.operands - 1 inputs, the parameter if has_param, out
static PyObject *enter(call c, int has_param, PyObject *const *args, Py_ssize_t nargs) {
    const int inputs = c.operands - 1;
    tw_view view[3];
    const tw_view *views[3] = {view, view + 1, view + 2};
    if (nargs != inputs + has_param + 1)
        return tw_not_plain();
    for (int i = 0; i < inputs; i++)
        if (!tw_read(args[i], &view[i + 1]) || view[i + 1].dtype > TW_FLOAT64 || view[i + 1].dtype != view[1].dtype ||
            view[i + 1].ndim > TW_MAX_DIMS || !tw_same_shape(&view[i + 1], &view[1]))
            return tw_not_plain();
    if (has_param) {
        c.param = PyFloat_AsDouble(args[inputs]);
        if (c.param == -1 && PyErr_Occurred()) {
            PyErr_Clear();
            return tw_not_plain();
        }
    }
    PyObject *given = args[inputs + has_param];
    const int made = tw_output(given, view[1].dtype, view[1].ndim, view[1].shape, &view[0]);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    for (int i = 1; given != Py_None && i <= inputs; i++)
        if (tw_overlap(&view[0], &view[i]) && !tw_identical(&view[0], &view[i])) {
            Py_DECREF(view[0].object);
            return tw_not_plain();
        }
    PyThreadState *state = tw_release_gil((double)tw_size(&view[0]) * NS_PER_ELEMENT);
    const int code = run(&c, views);
    tw_take_gil(state);
    return tw_result(code, view[0].object);
}

#define DOORS(X) \
    X(relu, TW_RELU, 0) X(leaky_relu, TW_LEAKY_RELU, 1) X(elu, TW_ELU, 1) X(gelu, TW_GELU, 0) X(gelu_tanh, TW_GELU_TANH, 0) \
    X(silu, TW_SILU, 0) X(sigmoid, TW_SIGMOID, 0) X(tanh, TW_TANH, 0) X(softplus, TW_SOFTPLUS, 0) X(hardswish, TW_HARDSWISH, 0)

#define DEFINE(name, code, has_param) \
    static PyObject *door_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter((call){code, 2, 0}, has_param, args, nargs); \
    } \
    static PyObject *door_##name##_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter((call){code, 3, 0}, has_param, args, nargs); \
    }
DOORS(DEFINE)

#define ROW(name, code, has_param) TW_DOOR(name), TW_DOOR(name##_backward),
PyMethodDef tw_doors_activation[] = {DOORS(ROW) TW_DOOR_END};
