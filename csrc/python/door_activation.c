// Doors of the activations: name(x, [param,] out) and name_backward(dy, x, [param,] out).
#include "matrices.h"

#define NS_PER_ELEMENT 0.3  // for the decision to release the GIL

typedef struct {
    int code, inputs, dtype;
    double param;
} call;

static int run(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {  // m: out, then x or dy and x
    const call *c = context;
    return c->inputs == 1 ? tw_activation(c->dtype, c->code, c->param, rows, cols, m[1], m[0])
                          : tw_activation_backward(c->dtype, c->code, c->param, rows, cols, m[1], m[2], m[0]);
}

static PyObject *enter(int code, int inputs, int has_param, PyObject *const *args, Py_ssize_t nargs) {
    call c = {code, inputs, -1, 0};
    tw_view view[3];
    const tw_view *views[3] = {view, view + 1, view + 2};
    if (nargs != inputs + has_param + 1 || (has_param && !tw_number(args[inputs], &c.param)))
        return tw_not_plain();
    for (int i = 1; i <= inputs; i++) {
        if (!tw_read_float(args[i - 1], c.dtype, &view[i]) || !tw_same_shape(&view[i], &view[1]))
            return tw_not_plain();
        c.dtype = view[i].dtype;
    }
    const int made = tw_output_apart(args[nargs - 1], c.dtype, view[1].ndim, view[1].shape, &view[0], inputs, views + 1, 1);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&view[0]) * NS_PER_ELEMENT);
    const int result = tw_each_matrix(inputs + 1, views, run, &c);
    tw_take_gil(state);
    return tw_result(result, view[0].object);
}

#define DOORS(X) \
    X(relu, TW_RELU, 0) X(leaky_relu, TW_LEAKY_RELU, 1) X(elu, TW_ELU, 1) X(gelu, TW_GELU, 0) \
    X(gelu_tanh, TW_GELU_TANH, 0) X(silu, TW_SILU, 0) X(sigmoid, TW_SIGMOID, 0) X(tanh, TW_TANH, 0) \
    X(softplus, TW_SOFTPLUS, 0) X(hardswish, TW_HARDSWISH, 0)

#define DEFINE(name, code, has_param) \
    static PyObject *door_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter(code, 1, has_param, args, nargs); \
    } \
    static PyObject *door_##name##_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter(code, 2, has_param, args, nargs); \
    }
DOORS(DEFINE)

#define ROW(name, code, has_param) TW_DOOR(name), TW_DOOR(name##_backward),
PyMethodDef tw_doors_activation[] = {DOORS(ROW) TW_DOOR_END};
