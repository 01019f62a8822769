/* Doors of the gemm family. */
#include "door.h"

/* matmul(a, b, out) */
static PyObject *door_matmul(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    tw_view a, b, c;
    if (nargs != 3 || !tw_read(args[0], &a) || !tw_read(args[1], &b) || a.dtype != b.dtype || a.dtype > TW_FLOAT64 ||
        a.ndim != 2 || b.ndim != 2 || a.shape[1] != b.shape[0])
        return tw_not_plain();
    npy_intp shape[2] = {a.shape[0], b.shape[1]}, size = a.itemsize;
    int made = tw_output(args[2], a.dtype, 2, shape, &c);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (tw_overlap(&c, &a) || tw_overlap(&c, &b)) {
        Py_DECREF(c.object);
        return tw_not_plain();
    }
    int code;
    if (a.dtype == TW_FLOAT32)
        code = tw_gemm_f32(shape[0], shape[1], a.shape[1], 1, (void *)a.data, a.strides[0] / size, a.strides[1] / size,
                           (void *)b.data, b.strides[0] / size, b.strides[1] / size, 0, (void *)c.data, c.strides[0] / size, c.strides[1] / size);
    else
        code = tw_gemm_f64(shape[0], shape[1], a.shape[1], 1, (void *)a.data, a.strides[0] / size, a.strides[1] / size,
                           (void *)b.data, b.strides[0] / size, b.strides[1] / size, 0, (void *)c.data, c.strides[0] / size, c.strides[1] / size);
    return tw_result(code, c.object);
}

PyMethodDef tw_doors_gemm[] = {TW_DOOR(matmul), TW_DOOR_END};
