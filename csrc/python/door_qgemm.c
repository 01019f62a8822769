// Doors of the qgemm family: matmul_integer, and what explain asks.
#include <string.h>

#include "packed.h"

#define NS_PER_PRODUCT 0.003 // 700 GOP/s: for the decision to release the GIL

static tw_matrix matrix(const tw_view *v) { // the last two axes
    const npy_intp *strides = v->strides + v->ndim - 2;
    return (tw_matrix){v->data, strides[0] / v->itemsize, strides[1] / v->itemsize};
}

static int is_int8(const tw_view *v) { return v->dtype == TW_INT8 || v->dtype == TW_UINT8; }

static void batch_strides(const tw_view *v, int axes, npy_intp *strides) {
    for (int i = 0; i < axes; i++) strides[i] = v->strides[i] / v->itemsize;
}

// ---- zero points: None, an int in the range of their matrix, or an array of int32 with the batch axes and one number a row of a or
// column of b

typedef struct {
    tw_view view; // no data: none
    int32_t one;
    npy_intp step, batch[TW_MAX_DIMS];
    const int32_t *data;
} zeros;

static int read_one(PyObject *object, int dtype, zeros *z) {
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(object, &overflow);
    const long low = dtype == TW_INT8 ? -128 : 0;
    if (overflow || value < low || value > low + 255)
        return 0;
    z->one = (int32_t)value;
    z->data = value ? &z->one : NULL;
    return 1;
}

// `of` is their matrix, the numbers are along its axis ndim - 2 + across; 0: not plain.
static int read_zeros(PyObject *object, const tw_view *of, int across, const npy_intp *shape, zeros *z) {
    const int axes = of->ndim - 2;
    z->data = NULL, z->step = 0, z->view.data = NULL;
    memset(z->batch, 0, (size_t)axes * sizeof *z->batch);
    if (object == Py_None)
        return 1;
    if (Py_TYPE(object) == &PyLong_Type)
        return read_one(object, of->dtype, z);
    if (!tw_read(object, &z->view) || z->view.dtype != TW_INT32 || z->view.ndim != axes + 1 ||
        memcmp(z->view.shape, shape, (size_t)axes * sizeof *shape) || z->view.shape[axes] != shape[axes + across])
        return 0;
    batch_strides(&z->view, axes, z->batch);
    z->step = z->view.strides[axes] / 4;
    z->data = (const int32_t *)z->view.data;
    return 1;
}

// ---- matmul_integer

typedef struct {
    tw_view a, b, c;
    zeros a_zero, b_zero;
    npy_intp shape[TW_MAX_DIMS], a_batch[TW_MAX_DIMS], b_batch[TW_MAX_DIMS], c_batch[TW_MAX_DIMS]; // shape: of the result
    tw_qgemm_call call;
} product;

// a (B..., M, K), b (B..., K, N) or packed, zero points: everything but c; 0 where they do not fit.
static int read_product(PyObject *const *args, product *p) {
    const void *packed = NULL;
    if (!tw_read(args[0], &p->a) || !is_int8(&p->a) || p->a.ndim < 2 || p->a.ndim > TW_MAX_DIMS)
        return 0;
    const int axes = p->a.ndim - 2;
    if (tw_read(args[1], &p->b)) {
        if (p->b.ndim != p->a.ndim || memcmp(p->a.shape, p->b.shape, (size_t)axes * sizeof *p->shape))
            return 0;
        batch_strides(&p->b, axes, p->b_batch);
    } else if (tw_read_packed(args[1], 0, &p->b, &packed)) {
        memset(p->b_batch, 0, (size_t)axes * sizeof *p->b_batch);
    } else {
        return 0;
    }
    const npy_intp k = p->b.shape[p->b.ndim - 2], n = p->b.shape[p->b.ndim - 1];
    if (!is_int8(&p->b) || p->a.shape[axes + 1] != k)
        return 0;
    memcpy(p->shape, p->a.shape, (size_t)(axes + 1) * sizeof *p->shape);
    p->shape[axes + 1] = n;
    batch_strides(&p->a, axes, p->a_batch);
    tw_view b = p->b;
    b.ndim = p->a.ndim; // of a packed one, too
    if (!read_zeros(args[2], &p->a, 0, p->shape, &p->a_zero) || !read_zeros(args[3], &b, 1, p->shape, &p->b_zero))
        return 0;
    p->call = (tw_qgemm_call){
        .a_type = p->a.dtype, .b_type = p->b.dtype, .m = p->shape[axes], .n = n, .k = k, .a = matrix(&p->a), .b = matrix(&p->b),
        .a_zero = p->a_zero.data, .b_zero = p->b_zero.data, .a_zero_step = p->a_zero.step, .b_zero_step = p->b_zero.step,
        .batch_axes = axes, .batch_shape = p->shape, .a_batch = p->a_batch, .b_batch = p->b_batch, .c_batch = p->c_batch,
        .a_zero_batch = p->a_zero.batch, .b_zero_batch = p->b_zero.batch, .packed = packed};
    return 1;
}

static int is_apart(const product *p) {
    return !tw_overlap(&p->c, &p->a) && (p->call.packed || !tw_overlap(&p->c, &p->b)) && // what is packed is read-only
           !(p->a_zero.view.data && tw_overlap(&p->c, &p->a_zero.view)) &&
           !(p->b_zero.view.data && tw_overlap(&p->c, &p->b_zero.view));
}

// matmul_integer(a, b, a_zero, b_zero, out)
static PyObject *door_matmul_integer(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    product p;
    if (nargs != 5 || !read_product(args, &p))
        return tw_not_plain();
    const int made = tw_output(args[4], TW_INT32, p.a.ndim, p.shape, &p.c);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (args[4] != Py_None && !is_apart(&p)) {
        Py_DECREF(p.c.object);
        return tw_not_plain();
    }
    p.call.c = matrix(&p.c);
    batch_strides(&p.c, p.a.ndim - 2, p.c_batch);
    PyThreadState *state = tw_release_gil((double)tw_size(&p.c) * (double)(p.call.k + 8) * NS_PER_PRODUCT);
    const int code = tw_matmul_integer(&p.call);
    tw_take_gil(state);
    return tw_result(code, p.c.object);
}

// describe_matmul_integer(a, b, a_zero, b_zero) -> str: how it would be computed into a new array
static PyObject *door_describe_matmul_integer(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    product p;
    char text[160];
    if (nargs != 4 || !read_product(args, &p))
        return tw_not_plain();
    npy_intp step = p.call.m * p.call.n;
    for (int i = p.a.ndim - 3; i >= 0; step *= p.shape[i--]) p.c_batch[i] = step;
    p.call.c = (tw_matrix){NULL, p.call.n, 1};
    return tw_matmul_integer_describe(&p.call, text, sizeof text) == TW_OK ? PyUnicode_FromString(text) : tw_not_plain();
}

PyMethodDef tw_doors_qgemm[] = {TW_DOOR(matmul_integer), TW_DOOR(describe_matmul_integer), TW_DOOR_END};
