// Doors of softmax over the last axis: name(x, out) and name_backward(dy, y, out).
#include "matrices.h"

#define NS_PER_ELEMENT 0.4  // for the decision to release the GIL

typedef struct {
    int logarithm, inputs, dtype;
} call;

static int run(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const call *c = context;
    return c->inputs == 1 ? tw_softmax(c->dtype, c->logarithm, rows, cols, m[1], m[0])
                          : tw_softmax_backward(c->dtype, c->logarithm, rows, cols, m[1], m[2], m[0]);
}

static PyObject *enter(int logarithm, int inputs, PyObject *const *args, Py_ssize_t nargs) {
    call c = {logarithm, inputs, -1};
    tw_view view[3];
    const tw_view *views[3] = {view, view + 1, view + 2};
    if (nargs != inputs + 1)
        return tw_not_plain();
    for (int i = 1; i <= inputs; i++) {
        if (!tw_read_float(args[i - 1], c.dtype, &view[i]) || view[i].ndim == 0 || !tw_same_shape(&view[i], &view[1]))
            return tw_not_plain();
        c.dtype = view[i].dtype;
    }
    const int made = tw_output_apart(args[inputs], c.dtype, view[1].ndim, view[1].shape, &view[0], inputs, views + 1, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&view[0]) * NS_PER_ELEMENT);
    const int result = tw_each_row(inputs + 1, views, run, &c);
    tw_take_gil(state);
    return tw_result(result, view[0].object);
}

#define DEFINE(name, logarithm) \
    static PyObject *door_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter(logarithm, 1, args, nargs); \
    } \
    static PyObject *door_##name##_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        (void)self; \
        return enter(logarithm, 2, args, nargs); \
    }
DEFINE(softmax, 0)
DEFINE(log_softmax, 1)

PyMethodDef tw_doors_softmax[] = {TW_DOOR(softmax), TW_DOOR(softmax_backward), TW_DOOR(log_softmax),
                                  TW_DOOR(log_softmax_backward), TW_DOOR_END};
