// Door of maddubs: matmul_maddubs(a, b, out) -> how many sums of pairs were clipped. Matrices in normal form.
#include "door.h"

#define NS_PER_PRODUCT 0.06 // for the decision to release the GIL

static tw_matrix matrix(const tw_view *v) { return (tw_matrix){v->data, v->strides[0] / v->itemsize, v->strides[1] / v->itemsize}; }

static PyObject *door_matmul_maddubs(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view a, b, c;
    int64_t clipped;
    if (nargs != 3 || !tw_read(args[0], &a) || !tw_read(args[1], &b) || !tw_write(args[2], &c) || a.dtype != TW_UINT8 ||
        b.dtype != TW_INT8 || c.dtype != TW_INT32 || a.ndim != 2 || b.ndim != 2 || c.ndim != 2 || a.shape[1] != b.shape[0] ||
        c.shape[0] != a.shape[0] || c.shape[1] != b.shape[1] || tw_overlap(&c, &a) || tw_overlap(&c, &b))
        return tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&c) * (double)(a.shape[1] + 8) * NS_PER_PRODUCT);
    const int code = tw_matmul_maddubs(a.shape[0], b.shape[1], a.shape[1], matrix(&a), matrix(&b), matrix(&c), &clipped);
    tw_take_gil(state);
    return code == TW_OK ? PyLong_FromLongLong(clipped) : tw_result(code, Py_NewRef(Py_None));
}

PyMethodDef tw_doors_maddubs[] = {TW_DOOR(matmul_maddubs), TW_DOOR_END};
