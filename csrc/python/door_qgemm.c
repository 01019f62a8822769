// Doors of the qgemm family: matmul_integer, qlinear_matmul, and what explain asks.
#include <string.h>

#include "numbers.h"
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

// ---- zero points: None, an integer in the range of their matrix; in normal form None, or an array of int32 with the batch axes and
// one number a row of a or column of b. Scales: float32, otherwise the same.

typedef struct {
    tw_view view; // no data: none
    int32_t one;
    float scale;
    npy_intp step, batch[TW_MAX_DIMS];
    const void *data;
} numbers;

// One number for all, as public calls have it; 0: not plain.
static int read_one(PyObject *object, int dtype, numbers *z) {
    const int is_int = Py_TYPE(object) == &PyLong_Type;
    int overflow = 0;
    if (!is_int && !PyArray_IsScalar(object, Integer))
        return 0;
    PyObject *index = is_int ? Py_NewRef(object) : PyNumber_Index(object);
    const long value = index ? PyLong_AsLongAndOverflow(index, &overflow) : 0, low = dtype == TW_INT8 ? -128 : 0;
    Py_XDECREF(index);
    if (!index || overflow || value < low || value > low + 255) {
        PyErr_Clear();
        return 0;
    }
    z->one = (int32_t)value;
    z->data = value ? &z->one : NULL;
    return 1;
}

// One for each of `shape`, as the normal form has it.
static int read_each(PyObject *object, int dtype, int ndim, const npy_intp *shape, npy_intp n, numbers *z) {
    const int last = ndim - 1;
    if (!tw_read(object, &z->view) || z->view.dtype != dtype || z->view.ndim != ndim ||
        memcmp(z->view.shape, shape, (size_t)last * sizeof *shape) || z->view.shape[last] != n)
        return 0;
    batch_strides(&z->view, last, z->batch);
    z->step = z->view.strides[last] / 4;
    z->data = z->view.data;
    return 1;
}

// ---- matmul_integer

typedef struct {
    tw_view a, b, c;
    numbers zero[2]; // of a, of b
    npy_intp shape[TW_MAX_DIMS], a_batch[TW_MAX_DIMS], b_batch[TW_MAX_DIMS], c_batch[TW_MAX_DIMS]; // shape: of the result
    tw_qgemm_call call;
} product;

// a (B..., M, K), b (B..., K, N) or packed, zero points: everything but c; 0 where they do not fit.
static int read_product(PyObject *const *args, int normal_form, product *p) {
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
    for (int i = 0; i < 2; i++) {
        numbers *z = &p->zero[i];
        *z = (numbers){.data = NULL};
        if (args[2 + i] != Py_None && !(normal_form ? read_each(args[2 + i], TW_INT32, axes + 1, p->shape, p->shape[axes + i], z)
                                                    : read_one(args[2 + i], i ? p->b.dtype : p->a.dtype, z)))
            return 0;
    }
    p->call = (tw_qgemm_call){
        .a_type = p->a.dtype, .b_type = p->b.dtype, .m = p->shape[axes], .n = n, .k = k, .a = matrix(&p->a), .b = matrix(&p->b),
        .a_zero = p->zero[0].data, .b_zero = p->zero[1].data, .a_zero_step = p->zero[0].step, .b_zero_step = p->zero[1].step,
        .batch_axes = axes, .batch_shape = p->shape, .a_batch = p->a_batch, .b_batch = p->b_batch, .c_batch = p->c_batch,
        .a_zero_batch = p->zero[0].batch, .b_zero_batch = p->zero[1].batch, .packed = packed};
    return 1;
}

static int is_apart(const product *p) {
    if (tw_overlap(&p->c, &p->a) || (!p->call.packed && tw_overlap(&p->c, &p->b))) // what is packed is read-only
        return 0;
    for (int i = 0; i < 2; i++)
        if (p->zero[i].view.data && tw_overlap(&p->c, &p->zero[i].view))
            return 0;
    return 1;
}

static PyObject *multiply(PyObject *const *args, Py_ssize_t nargs, int normal_form) {
    product p;
    if (nargs != 5 || !read_product(args, normal_form, &p))
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

// matmul_integer(a, b, a_zero, b_zero, out)
static PyObject *door_matmul_integer(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return multiply(args, nargs, 0);
}

// integer_product(a, b, a_zero, b_zero, out): the same in normal form
static PyObject *door_integer_product(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return multiply(args, nargs, 1);
}

// describe_integer_product(a, b, a_zero, b_zero) -> str: how it would be computed into a new array
static PyObject *door_describe_integer_product(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    product p;
    char text[160];
    if (nargs != 4 || !read_product(args, 1, &p))
        return tw_not_plain();
    npy_intp step = p.call.m * p.call.n;
    for (int i = p.a.ndim - 3; i >= 0; step *= p.shape[i--]) p.c_batch[i] = step;
    p.call.c = (tw_matrix){NULL, p.call.n, 1};
    return tw_matmul_integer_describe(&p.call, text, sizeof text) == TW_OK ? PyUnicode_FromString(text) : tw_not_plain();
}

// ---- qlinear_matmul

enum { A_SCALE, B_SCALE, Y_SCALE, Y_ZERO, NUMBERS };

// Of public calls, single numbers; y_zero says which type y has.
static int read_single(PyObject *const *args, int *y_type, numbers *p) {
    for (int i = 0; i < NUMBERS; i++) p[i] = (numbers){.data = i == Y_ZERO ? (void *)&p[i].one : &p[i].scale};
    return tw_read_scale(args[A_SCALE], &p[A_SCALE].scale) && tw_read_scale(args[B_SCALE], &p[B_SCALE].scale) &&
           tw_read_scale(args[Y_SCALE], &p[Y_SCALE].scale) && args[Y_ZERO] != Py_None && !PyLong_Check(args[Y_ZERO]) &&
           tw_read_zero(args[Y_ZERO], 1, y_type, &p[Y_ZERO].one) && (*y_type == TW_INT8 || *y_type == TW_UINT8);
}

static int read_arrays(PyObject *const *args, const product *p, numbers *to) {
    const int ndim = p->a.ndim - 1;
    for (int i = 0; i < NUMBERS; i++)
        if (!read_each(args[i], i == Y_ZERO ? TW_INT32 : TW_FLOAT32, ndim, p->shape, p->shape[ndim - (i != B_SCALE)], &to[i]))
            return 0;
    return 1;
}

static PyObject *multiply_again(PyObject *const *args, Py_ssize_t nargs, int normal_form) {
    tw_view out;
    product p;
    numbers each[NUMBERS];
    if (nargs != 9)
        return tw_not_plain();
    PyObject *const product_args[] = {args[0], args[3], args[2], args[5]}, *const of_result[] = {args[1], args[4], args[6], args[7]};
    int y_type = normal_form && tw_read(args[8], &out) ? out.dtype : TW_UINT8;
    if (!read_product(product_args, normal_form, &p) ||
        !(normal_form ? read_arrays(of_result, &p, each) : read_single(of_result, &y_type, each)))
        return tw_not_plain();
    const int made = tw_output(args[8], y_type, p.a.ndim, p.shape, &p.c);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    int apart = args[8] == Py_None || is_apart(&p);
    for (int i = 0; args[8] != Py_None && i < NUMBERS; i++) apart &= !(each[i].view.data && tw_overlap(&p.c, &each[i].view));
    if (!apart) {
        Py_DECREF(p.c.object);
        return tw_not_plain();
    }
    p.call.c = matrix(&p.c);
    batch_strides(&p.c, p.a.ndim - 2, p.c_batch);
    tw_numbers n[NUMBERS];
    for (int i = 0; i < NUMBERS; i++) n[i] = (tw_numbers){each[i].data, each[i].step, each[i].batch};
    const tw_qlinear_matmul_call call = {p.call, y_type, n[A_SCALE], n[B_SCALE], n[Y_SCALE], n[Y_ZERO]};
    PyThreadState *state = tw_release_gil((double)tw_size(&p.c) * (double)(p.call.k + 8) * NS_PER_PRODUCT);
    const int code = tw_qlinear_matmul(&call);
    tw_take_gil(state);
    return tw_result(code, p.c.object);
}

// qlinear_matmul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, out)
static PyObject *door_qlinear_matmul(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return multiply_again(args, nargs, 0);
}

// requantized_product(the same): in normal form
static PyObject *door_requantized_product(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return multiply_again(args, nargs, 1);
}

PyMethodDef tw_doors_qgemm[] = {TW_DOOR(matmul_integer), TW_DOOR(integer_product),     TW_DOOR(describe_integer_product),
                                TW_DOOR(qlinear_matmul), TW_DOOR(requantized_product), TW_DOOR_END};
