// Doors of the gemm family: matmul, gemm, linear, linear_backward(_weights), and what explain asks.
#include "door.h"

#define NS_PER_PRODUCT 0.0125 // 160 GFLOP/s: for the decision to release the GIL

static tw_matrix matrix(const tw_view *v) { // the last two axes
    const npy_intp *strides = v->strides + v->ndim - 2;
    return (tw_matrix){v->data, strides[0] / v->itemsize, strides[1] / v->itemsize};
}

static tw_matrix transposed(tw_matrix x) { return (tw_matrix){x.data, x.col, x.row}; }

static int run(const tw_gemm_call *call, int (*gemm)(const tw_gemm_call *)) {
    double products = (double)call->m * (double)call->n * (double)call->k;
    for (int i = 0; i < call->batch_axes; i++) products *= (double)call->batch_shape[i];
    PyThreadState *state = tw_release_gil(products * NS_PER_PRODUCT);
    const int code = gemm(call);
    tw_take_gil(state);
    return code;
}

static int clear_of(const tw_view *out, const tw_view *x) { return !tw_overlap(out, x); }

static PyObject *refuse(const tw_view *out) {
    Py_DECREF(out->object);
    return tw_not_plain();
}

// ---- matmul

typedef struct {
    npy_intp shape[TW_MAX_DIMS], a[TW_MAX_DIMS], b[TW_MAX_DIMS], c[TW_MAX_DIMS];
} batch_axes;

// a (B..., M, K), b (B..., K, N): everything of the call but c; 0 where they do not fit.
static int read_product(PyObject *const *args, tw_view *a, tw_view *b, npy_intp *shape, tw_gemm_call *call) {
    if (!tw_read(args[0], a) || !tw_read(args[1], b) || a->dtype != b->dtype || a->dtype > TW_BFLOAT16 || a->ndim != b->ndim ||
        a->ndim < 2 || a->ndim > TW_MAX_DIMS)
        return 0;
    const int axes = a->ndim - 2;
    for (int i = 0; i < axes; i++)
        if ((shape[i] = a->shape[i]) != b->shape[i])
            return 0;
    shape[axes] = a->shape[axes];
    shape[axes + 1] = b->shape[axes + 1];
    if (a->shape[axes + 1] != b->shape[axes])
        return 0;
    *call = (tw_gemm_call){.dtype = a->dtype, .m = shape[axes], .n = shape[axes + 1], .k = b->shape[axes], .a = matrix(a),
                           .b = matrix(b), .alpha = 1, .batch_axes = axes};
    return 1;
}

static PyObject *multiply(PyObject *const *args, Py_ssize_t nargs, int (*gemm)(const tw_gemm_call *)) {
    tw_view a, b, c;
    tw_gemm_call call;
    batch_axes s;
    npy_intp shape[TW_MAX_DIMS];
    if (nargs != 3 || !read_product(args, &a, &b, shape, &call))
        return tw_not_plain();
    const int made = tw_output(args[2], a.dtype, a.ndim, shape, &c);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (args[2] != Py_None && !(clear_of(&c, &a) && clear_of(&c, &b)))
        return refuse(&c);
    call.c = matrix(&c);
    if (call.batch_axes) {
        for (int i = 0; i < call.batch_axes; i++) {
            s.a[i] = a.strides[i] / a.itemsize;
            s.b[i] = b.strides[i] / b.itemsize;
            s.c[i] = c.strides[i] / c.itemsize;
        }
        call.batch_shape = c.shape;
        call.a_batch = s.a, call.b_batch = s.b, call.c_batch = s.c;
    }
    return tw_result(run(&call, gemm), c.object);
}

// matmul(a, b, out)
static PyObject *door_matmul(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return multiply(args, nargs, tw_gemm);
}

// matmul_naive(a, b, out): the same by three loops; float32 and float64 only
static PyObject *door_matmul_naive(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view a;
    if (nargs != 3 || !tw_read(args[0], &a) || a.dtype > TW_FLOAT64)
        return tw_not_plain();
    return multiply(args, nargs, tw_gemm_naive);
}

// describe_matmul(a, b) -> str: how the product would be computed into a new array
static PyObject *door_describe_matmul(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view a, b;
    tw_gemm_call call;
    npy_intp shape[TW_MAX_DIMS], strides[TW_MAX_DIMS], step = 1;
    batch_axes s;
    char text[160];
    if (nargs != 2 || !read_product(args, &a, &b, shape, &call))
        return tw_not_plain();
    for (int i = a.ndim - 1; i >= 0; step *= shape[i--]) strides[i] = step;
    for (int i = 0; i < call.batch_axes; i++) {
        s.a[i] = a.strides[i] / a.itemsize;
        s.b[i] = b.strides[i] / b.itemsize;
    }
    call.c = (tw_matrix){NULL, call.n, 1};
    call.batch_shape = shape;
    call.a_batch = s.a, call.b_batch = s.b, call.c_batch = strides;
    if (tw_gemm_describe(&call, text, sizeof text) != TW_OK)
        return tw_not_plain();
    return PyUnicode_FromString(text);
}

// ---- gemm

static int read_double(PyObject *object, double *value) {
    *value = PyFloat_AsDouble(object);
    if (*value != -1.0 || !PyErr_Occurred())
        return 1;
    PyErr_Clear();
    return 0;
}

// gemm(a, b, c, alpha, beta, trans_a, trans_b, out); c (M, N) or None
static PyObject *door_gemm(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view a, b, c, out;
    double alpha, beta;
    if (nargs != 8 || !tw_read(args[0], &a) || !tw_read(args[1], &b) || a.dtype != b.dtype || a.dtype > TW_FLOAT64 ||
        a.ndim != 2 || b.ndim != 2 || !read_double(args[3], &alpha) || !read_double(args[4], &beta))
        return tw_not_plain();
    const int trans_a = PyObject_IsTrue(args[5]), trans_b = PyObject_IsTrue(args[6]);
    if (trans_a < 0 || trans_b < 0)
        return NULL;
    const npy_intp shape[2] = {a.shape[trans_a], b.shape[!trans_b]}, k = a.shape[!trans_a];
    if (k != b.shape[trans_b])
        return tw_not_plain();
    const int reads_c = args[2] != Py_None && beta != 0;
    if (args[2] != Py_None &&
        (!tw_read(args[2], &c) || c.dtype != a.dtype || c.ndim != 2 || c.shape[0] != shape[0] || c.shape[1] != shape[1]))
        return tw_not_plain();
    const int made = tw_output(args[7], a.dtype, 2, shape, &out);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    const int in_place = reads_c && tw_identical(&c, &out);
    if (!(clear_of(&out, &a) && clear_of(&out, &b)) || (reads_c && !in_place && !clear_of(&out, &c)))
        return refuse(&out);
    if (reads_c && !in_place && PyArray_CopyInto((PyArrayObject *)out.object, (PyArrayObject *)c.object) < 0) {
        Py_DECREF(out.object);
        return NULL;
    }
    const tw_gemm_call call = {.dtype = a.dtype, .m = shape[0], .n = shape[1], .k = k,
                               .a = trans_a ? transposed(matrix(&a)) : matrix(&a),
                               .b = trans_b ? transposed(matrix(&b)) : matrix(&b),
                               .c = matrix(&out), .alpha = alpha, .beta = reads_c ? beta : 0};
    return tw_result(run(&call, tw_gemm), out.object);
}

// ---- linear

// linear(x, w, bias, residual, activation, out): x (M, K), w (N, K), bias (N,) or None, residual (M, N) or None, activation a
// code of tilewright.h
static PyObject *door_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view x, w, bias = {0}, residual = {0}, y;
    if (nargs != 6 || !tw_read(args[0], &x) || !tw_read(args[1], &w) || x.dtype != w.dtype || x.dtype > TW_BFLOAT16 ||
        x.ndim != 2 || w.ndim != 2 || x.shape[1] != w.shape[1])
        return tw_not_plain();
    if (args[2] != Py_None &&
        (!tw_read(args[2], &bias) || bias.dtype != x.dtype || bias.ndim != 1 || bias.shape[0] != w.shape[0]))
        return tw_not_plain();
    const npy_intp shape[2] = {x.shape[0], w.shape[0]};
    if (args[3] != Py_None && (!tw_read(args[3], &residual) || residual.dtype != x.dtype || residual.ndim != 2 ||
                               residual.shape[0] != shape[0] || residual.shape[1] != shape[1]))
        return tw_not_plain();
    const long activation = PyLong_AsLong(args[4]);
    if (activation == -1 && PyErr_Occurred())
        return NULL;
    const int made = tw_output(args[5], x.dtype, 2, shape, &y);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (args[5] != Py_None && !(clear_of(&y, &x) && clear_of(&y, &w) && (!bias.data || clear_of(&y, &bias)) &&
                                (!residual.data || tw_identical(&y, &residual) || clear_of(&y, &residual))))
        return refuse(&y);
    const tw_gemm_call call = {.dtype = x.dtype, .activation = (int)activation, .m = shape[0], .n = shape[1], .k = x.shape[1],
                               .a = matrix(&x), .b = transposed(matrix(&w)), .c = matrix(&y), .alpha = 1, .bias = bias.data,
                               .bias_step = bias.data ? bias.strides[0] / bias.itemsize : 0,
                               .residual = residual.data ? matrix(&residual) : (tw_matrix){0}};
    return tw_result(run(&call, tw_gemm), y.object);
}

// linear_backward(dy, x, w, dx, dw, dbias) -> (dx, dw, dbias)
static PyObject *door_linear_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view in[3], out[3];
    if (nargs != 6)
        return tw_not_plain();
    for (int i = 0; i < 3; i++)
        if (!tw_read(args[i], &in[i]) || in[i].ndim != 2 || in[i].dtype != in[0].dtype || in[i].dtype > TW_FLOAT64)
            return tw_not_plain();
    const tw_view *dy = &in[0], *x = &in[1], *w = &in[2];
    const npy_intp m = dy->shape[0], n = dy->shape[1], k = x->shape[1];
    if (x->shape[0] != m || w->shape[0] != n || w->shape[1] != k)
        return tw_not_plain();
    const npy_intp shapes[3][2] = {{m, k}, {n, k}, {n, 0}};
    PyObject *result = PyTuple_New(3);
    if (!result)
        return NULL;
    for (int i = 0; i < 3; i++) {
        const int made = tw_output(args[3 + i], dy->dtype, i == 2 ? 1 : 2, shapes[i], &out[i]);
        if (made > 0)
            PyTuple_SetItem(result, i, out[i].object);
        int plain = made > 0;
        for (int j = 0; plain && args[3 + i] != Py_None && j < 3 + i; j++)
            plain = clear_of(&out[i], j < 3 ? &in[j] : &out[j - 3]);
        if (!plain) {
            Py_DECREF(result);
            return made < 0 ? NULL : tw_not_plain();
        }
    }
    PyThreadState *state = tw_release_gil(2.0 * (double)m * (double)n * (double)k * NS_PER_PRODUCT);
    const int code = tw_linear_backward(dy->dtype, m, n, k, matrix(dy), matrix(x), matrix(w), matrix(&out[0]), matrix(&out[1]),
                                        out[2].data, out[2].strides[0] / out[2].itemsize);
    tw_take_gil(state);
    return tw_result(code, result);
}

// linear_backward_weights(dy, x, dw, dbias or None, beta): dw and dbias in place
static PyObject *door_linear_backward_weights(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view dy, x, dw, dbias = {0};
    double beta;
    if (nargs != 5 || !tw_read(args[0], &dy) || !tw_read(args[1], &x) || !tw_write(args[2], &dw) || dy.dtype > TW_FLOAT64 ||
        x.dtype != dy.dtype || dw.dtype != dy.dtype || dy.ndim != 2 || x.ndim != 2 || dw.ndim != 2 ||
        !read_double(args[4], &beta))
        return tw_not_plain();
    const npy_intp m = dy.shape[0], n = dy.shape[1], k = x.shape[1];
    if (x.shape[0] != m || dw.shape[0] != n || dw.shape[1] != k || !clear_of(&dw, &dy) || !clear_of(&dw, &x))
        return tw_not_plain();
    if (args[3] != Py_None &&
        (!tw_write(args[3], &dbias) || dbias.dtype != dy.dtype || dbias.ndim != 1 || dbias.shape[0] != n ||
         !(clear_of(&dbias, &dy) && clear_of(&dbias, &x) && clear_of(&dbias, &dw))))
        return tw_not_plain();
    PyThreadState *state = tw_release_gil((double)m * (double)n * (double)k * NS_PER_PRODUCT);
    const int code = tw_linear_backward_weights(dy.dtype, m, n, k, matrix(&dy), matrix(&x), beta, matrix(&dw), dbias.data,
                                                dbias.data ? dbias.strides[0] / dbias.itemsize : 0);
    tw_take_gil(state);
    return tw_result(code, Py_NewRef(Py_None));
}

PyMethodDef tw_doors_gemm[] = {
    TW_DOOR(matmul),          TW_DOOR(matmul_naive), TW_DOOR(describe_matmul), TW_DOOR(gemm), TW_DOOR(linear),
    TW_DOOR(linear_backward), TW_DOOR(linear_backward_weights), TW_DOOR_END,
};
