// Doors of the gemm family: matmul, gemm, linear, linear_backward(_weights), and what explain asks.
#include "layers.h"
#include "packed.h"

#include <string.h>

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

// ---- the right operand: an array, or a tilewright.PackedMatrix (core/packed.py)

static PyObject *packed_class, *form_slots[2]; // the class; the descriptors of its slots "c_b", "c_w"
static descrgetfunc get_slot;                 // of theirs: half of what looking a name up takes

typedef struct {
    tw_view view;
    tw_matrix b; // (k, n)
    npy_intp k, n;
    const void *packed; // its panels, or NULL
} right;

int tw_read_packed(PyObject *object, int transpose, tw_view *view, const void **panels) {
    if (!packed_class || (PyObject *)Py_TYPE(object) != packed_class)
        return 0;
    PyObject *form = get_slot(form_slots[transpose], object, packed_class); // (matrix, panels), which the object keeps for good
    if (form == Py_None) {
        Py_DECREF(form);
        form = PyObject_CallMethod(object, "make_c", "i", transpose);
    }
    if (!form)
        PyErr_Clear();
    const int found = form && PyTuple_Check(form) && tw_read(PyTuple_GetItem(form, 0), view);
    if (found)
        *panels = PyArray_DATA((PyArrayObject *)PyTuple_GetItem(form, 1));
    Py_XDECREF(form);
    return found;
}

// Reads a matrix (K, N), or (N, K) if `transpose`.
static int read_right(PyObject *object, int transpose, right *r) {
    r->packed = NULL;
    if (!tw_read(object, &r->view)) {
        if (!tw_read_packed(object, transpose, &r->view, &r->packed))
            return 0;
        transpose = 0;
    }
    if (r->view.ndim != 2)
        return 0;
    r->k = r->view.shape[transpose], r->n = r->view.shape[!transpose];
    r->b = transpose ? transposed(matrix(&r->view)) : matrix(&r->view);
    return 1;
}

// set_packed(class): say which class PackedMatrix is
static PyObject *door_set_packed(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    if (nargs != 1 || !(form_slots[0] = PyObject_GetAttrString(args[0], "c_b")) ||
        !(form_slots[1] = PyObject_GetAttrString(args[0], "c_w")))
        return NULL;
    get_slot = Py_TYPE(form_slots[0])->tp_descr_get;
    packed_class = Py_NewRef(args[0]);
    return Py_NewRef(Py_None);
}

// pack(b) -> array of bytes: the panels of a matrix (K, N) of float32, float64, int8 or uint8
static PyObject *door_pack(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view b;
    if (nargs != 1 || !tw_read(args[0], &b) || b.ndim != 2)
        return tw_not_plain();
    const int integer = b.dtype == TW_INT8 || b.dtype == TW_UINT8;
    npy_intp bytes = (npy_intp)(integer ? tw_pack_integer_bytes : tw_pack_bytes)(b.dtype, b.shape[0], b.shape[1]);
    PyObject *panels = bytes ? PyArray_SimpleNew(1, &bytes, NPY_INT8) : tw_not_plain();
    if (!panels || !bytes)
        return panels;
    PyThreadState *state = tw_release_gil((double)bytes);
    void *to = PyArray_DATA((PyArrayObject *)panels);
    const int code = (integer ? tw_pack_integer : tw_pack)(b.dtype, b.shape[0], b.shape[1], matrix(&b), to);
    tw_take_gil(state);
    return tw_result(code, panels);
}

// ---- matmul

typedef struct {
    npy_intp shape[TW_MAX_DIMS], a[TW_MAX_DIMS], b[TW_MAX_DIMS], c[TW_MAX_DIMS];
} batch_axes;

// a (B..., M, K), b (B..., K, N) or packed: everything of the call but c; 0 where they do not fit. shape: of the result.
static int read_product(PyObject *const *args, tw_view *a, tw_view *b, npy_intp *shape, batch_axes *s, tw_gemm_call *call) {
    right packed = {.packed = NULL};
    if (!tw_read(args[0], a) || a->dtype > TW_BFLOAT16 || a->ndim < 2 || a->ndim > TW_MAX_DIMS)
        return 0;
    const int axes = a->ndim - 2;
    if (tw_read(args[1], b)) {
        if (b->ndim != a->ndim || (axes && memcmp(a->shape, b->shape, axes * sizeof *shape)))
            return 0;
    } else if (tw_read_packed(args[1], 0, &packed.view, &packed.packed)) {
        *b = packed.view;
    } else {
        return 0;
    }
    const npy_intp k = b->shape[b->ndim - 2], n = b->shape[b->ndim - 1];
    if (a->dtype != b->dtype || a->shape[axes + 1] != k)
        return 0;
    for (int i = 0; i <= axes; i++) shape[i] = a->shape[i];
    shape[axes + 1] = n;
    for (int i = 0; i < axes; i++) {
        s->a[i] = a->strides[i] / a->itemsize;
        s->b[i] = packed.packed ? 0 : b->strides[i] / b->itemsize;
    }
    *call = (tw_gemm_call){.dtype = a->dtype, .m = shape[axes], .n = n, .k = k, .a = matrix(a), .b = matrix(b), .alpha = 1,
                           .batch_axes = axes, .a_batch = s->a, .b_batch = s->b, .packed = packed.packed};
    return 1;
}

static PyObject *multiply(PyObject *const *args, Py_ssize_t nargs, int (*gemm)(const tw_gemm_call *)) {
    tw_view a, b, c;
    tw_gemm_call call;
    batch_axes s;
    npy_intp shape[TW_MAX_DIMS];
    if (nargs != 3 || !read_product(args, &a, &b, shape, &s, &call))
        return tw_not_plain();
    const int made = tw_output(args[2], a.dtype, a.ndim, shape, &c);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (args[2] != Py_None && !(clear_of(&c, &a) && (call.packed || clear_of(&c, &b)))) // what is packed is read-only
        return refuse(&c);
    call.c = matrix(&c);
    for (int i = 0; i < call.batch_axes; i++) s.c[i] = c.strides[i] / c.itemsize;
    call.batch_shape = c.shape;
    call.c_batch = s.c;
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

// describe_matmul(a, b, transpose) -> str: how a @ b, or linear's a @ b.T, would be computed into a new array
static PyObject *door_describe_matmul(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view a, b;
    tw_gemm_call call;
    npy_intp shape[TW_MAX_DIMS], strides[TW_MAX_DIMS], step = 1;
    batch_axes s;
    char text[160];
    if (nargs != 3)
        return tw_not_plain();
    if (PyObject_IsTrue(args[2])) { // b is a packed weight
        right w;
        if (!tw_read(args[0], &a) || a.ndim != 2 || !read_right(args[1], 1, &w) || w.view.dtype != a.dtype || w.k != a.shape[1])
            return tw_not_plain();
        call = (tw_gemm_call){.dtype = a.dtype, .m = a.shape[0], .n = w.n, .k = w.k, .a = matrix(&a), .b = w.b, .alpha = 1,
                              .packed = w.packed};
    } else if (read_product(args, &a, &b, shape, &s, &call)) {
        for (int i = a.ndim - 1; i >= 0; step *= shape[i--]) strides[i] = step;
    } else {
        return tw_not_plain();
    }
    call.c = (tw_matrix){NULL, call.n, 1};
    call.batch_shape = shape;
    call.c_batch = strides;
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
    tw_view a, c, out;
    right b;
    double alpha, beta;
    if (nargs != 8)
        return tw_not_plain();
    const int trans_a = PyObject_IsTrue(args[5]), trans_b = PyObject_IsTrue(args[6]);
    if (trans_a < 0 || trans_b < 0)
        return NULL;
    if (!tw_read(args[0], &a) || !read_right(args[1], trans_b, &b) || a.dtype != b.view.dtype || a.dtype > TW_FLOAT64 ||
        a.ndim != 2 || a.shape[!trans_a] != b.k || !read_double(args[3], &alpha) || !read_double(args[4], &beta))
        return tw_not_plain();
    const npy_intp shape[2] = {a.shape[trans_a], b.n};
    const int reads_c = args[2] != Py_None && beta != 0;
    if (args[2] != Py_None &&
        (!tw_read(args[2], &c) || c.dtype != a.dtype || c.ndim != 2 || c.shape[0] != shape[0] || c.shape[1] != shape[1]))
        return tw_not_plain();
    const int made = tw_output(args[7], a.dtype, 2, shape, &out);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    const int in_place = reads_c && tw_identical(&c, &out);
    if (!(clear_of(&out, &a) && clear_of(&out, &b.view)) || (reads_c && !in_place && !clear_of(&out, &c)))
        return refuse(&out);
    if (reads_c && !in_place && PyArray_CopyInto((PyArrayObject *)out.object, (PyArrayObject *)c.object) < 0) {
        Py_DECREF(out.object);
        return NULL;
    }
    const tw_gemm_call call = {.dtype = a.dtype, .m = shape[0], .n = shape[1], .k = b.k,
                               .a = trans_a ? transposed(matrix(&a)) : matrix(&a), .b = b.b, .c = matrix(&out),
                               .alpha = alpha, .beta = reads_c ? beta : 0, .packed = b.packed};
    return tw_result(run(&call, tw_gemm), out.object);
}

// ---- linear

// linear(x, w, bias, residual, activation, out): x (..., K), w (N, K), packed or quantized, bias (N,) or None, residual (..., N) or
// None, activation a code of tilewright.h
static PyObject *door_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_layer_arrays l;
    right w;
    if (nargs == 6 && tw_is_quantized(args[1]))
        return tw_quantized_linear(args);
    if (nargs != 6 || !tw_read(args[0], &l.x) || !read_right(args[1], 1, &w) || l.x.dtype != w.view.dtype ||
        l.x.dtype > TW_BFLOAT16 || !tw_read_layer(args[2], args[3], args[4], l.x.dtype, w.n, w.k, &l))
        return tw_not_plain();
    const int made = tw_layer_output(args[5], l.x.dtype, w.packed ? NULL : &w.view, &l); // what is packed is read-only
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    const tw_gemm_call call = {.dtype = l.x.dtype, .activation = l.activation, .m = l.m, .n = w.n, .k = w.k, .a = l.rows, .b = w.b,
                               .packed = w.packed, .c = l.result, .alpha = 1, .bias = l.bias.data,
                               .bias_step = l.bias.data ? l.bias.strides[0] / l.bias.itemsize : 0, .residual = l.added};
    return tw_result(run(&call, tw_gemm), l.y.object);
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
    TW_DOOR(matmul), TW_DOOR(matmul_naive),    TW_DOOR(describe_matmul),         TW_DOOR(gemm),
    TW_DOOR(linear), TW_DOOR(linear_backward), TW_DOOR(linear_backward_weights), TW_DOOR(pack),
    TW_DOOR(set_packed), TW_DOOR_END,
};
