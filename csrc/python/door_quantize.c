// Doors of quantization. quantize_linear and dequantize_linear take what users give, where scale and zero point are single
// numbers; quantize and dequantize take the normal form, where both are arrays of x's shape.
#include "matrices.h"
#include "numbers.h"


#define NS_PER_ELEMENT 0.15  // for the decision to release the GIL

enum { OUT, X, SCALE, ZERO, OPERANDS };

// ---- from here on both ways are one

typedef struct {
    int type;  // of the integers
    int32_t low, high;
    float scale;  // single numbers, where there are no arrays of them
    int32_t zero;
} call;

static int run_quantize(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const call *c = context;
    return tw_quantize_linear(c->type, c->low, c->high, rows, cols, m[X], m[SCALE], m[ZERO], m[OUT]);
}

static int run_quantize_by_one(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    call *c = context;
    return tw_quantize_linear(c->type, c->low, c->high, rows, cols, m[X], (tw_matrix){&c->scale, 0, 0},
                              (tw_matrix){&c->zero, 0, 0}, m[OUT]);
}

static int run_dequantize(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    return tw_dequantize_linear(((call *)context)->type, rows, cols, m[X], m[SCALE], m[ZERO], m[OUT]);
}

static int run_dequantize_by_one(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    call *c = context;
    return tw_dequantize_linear(c->type, rows, cols, m[X], (tw_matrix){&c->scale, 0, 0}, (tw_matrix){&c->zero, 0, 0}, m[OUT]);
}

// Into `out` (or None) of a dtype, from operands that have been read.
static PyObject *run(tw_matrix_call *each, call *c, int operands, tw_view *view, PyObject *out, int dtype) {
    const tw_view *views[OPERANDS] = {view, view + X, view + SCALE, view + ZERO};
    const int made = tw_output_apart(out, dtype, view[X].ndim, view[X].shape, &view[OUT], operands - 1, views + 1, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&view[X]) * NS_PER_ELEMENT);
    const int code = tw_each_matrix(operands, views, each, c);
    tw_take_gil(state);
    return tw_result(code, view[OUT].object);
}

static int is_zero(PyObject *number) { return PyLong_CheckExact(number) && PyLong_AsLong(number) == 0; }

// quantize_linear(x, scale, zero_point, block_size, output_dtype, out); no block_size but 0, no output_dtype but None
static PyObject *door_quantize_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    call c = {.type = TW_UINT8};
    tw_view view[OPERANDS];
    if (nargs != 6 || !is_zero(args[3]) || args[4] != Py_None || !tw_read_float(args[0], TW_FLOAT32, &view[X]) ||
        !tw_read_scale(args[1], &c.scale) || !tw_read_zero(args[2], 1, &c.type, &c.zero))
        return tw_not_plain();
    tw_limits(c.type, &c.low, &c.high);
    return run(run_quantize_by_one, &c, SCALE, view, args[5], c.type);
}

// dequantize_linear(x, scale, zero_point, block_size, out)
static PyObject *door_dequantize_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    call c;
    tw_view view[OPERANDS];
    if (nargs != 5 || !is_zero(args[3]) || !tw_read(args[0], &view[X]) || !tw_is_narrow(view[X].dtype) ||
        view[X].ndim >= TW_MAX_DIMS || !tw_read_scale(args[1], &c.scale) || !tw_read_zero(args[2], 0, &view[X].dtype, &c.zero))
        return tw_not_plain();
    c.type = view[X].dtype;
    return run(run_dequantize_by_one, &c, SCALE, view, args[4], TW_FLOAT32);
}

// Scales and zero points of x's shape.
static int read_arrays(PyObject *const *args, tw_view *view) {
    return tw_read(args[1], &view[SCALE]) && view[SCALE].dtype == TW_FLOAT32 && tw_same_shape(&view[SCALE], &view[X]) &&
           tw_read(args[2], &view[ZERO]) && view[ZERO].dtype == TW_INT32 && tw_same_shape(&view[ZERO], &view[X]);
}

// quantize(x, scale, zero, low, high, out)
static PyObject *door_quantize(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    call c;
    tw_view view[OPERANDS], out;
    if (nargs != 6 || !tw_read_float(args[0], TW_FLOAT32, &view[X]) || !read_arrays(args, view) || !tw_read(args[5], &out) ||
        !tw_is_narrow(out.dtype))
        return tw_not_plain();
    c.type = out.dtype;
    c.low = (int32_t)PyLong_AsLong(args[3]);
    c.high = (int32_t)PyLong_AsLong(args[4]);
    if (PyErr_Occurred())
        return NULL;
    return run(run_quantize, &c, OPERANDS, view, args[5], c.type);
}

// dequantize(x, scale, zero, out)
static PyObject *door_dequantize(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view view[OPERANDS];
    if (nargs != 4 || !tw_read(args[0], &view[X]) || !(tw_is_narrow(view[X].dtype) || view[X].dtype == TW_INT32) ||
        view[X].ndim >= TW_MAX_DIMS || !read_arrays(args, view))
        return tw_not_plain();
    call c = {.type = view[X].dtype};
    return run(run_dequantize, &c, OPERANDS, view, args[3], TW_FLOAT32);
}

// ---- dynamic

static int run_widen(void *range, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    return tw_widen_range(rows, cols, m[0], range);
}

// dynamic_quantize_linear(x, y, scale, zero_point) -> (y, scale, zero_point), the last three of the arguments arrays or None
static PyObject *door_dynamic_quantize_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    static const int types[] = {TW_UINT8, TW_FLOAT32, TW_UINT8};
    call c = {.type = TW_UINT8, .high = 255};
    tw_view view[2], out[3];
    float range[2] = {0, 0};
    if (nargs != 4 || !tw_read_float(args[0], TW_FLOAT32, &view[X]))
        return tw_not_plain();
    PyObject *result = PyTuple_New(3);
    if (!result)
        return NULL;
    const tw_view *inputs[] = {&view[X], &out[0], &out[1]};
    for (int i = 0; i < 3; i++) {
        const int made = tw_output_apart(args[1 + i], types[i], i ? 0 : view[X].ndim, view[X].shape, &out[i], 1 + i, inputs, 0);
        if (made <= 0) {
            Py_DECREF(result);
            return made < 0 ? NULL : tw_not_plain();
        }
        PyTuple_SET_ITEM(result, i, out[i].object);
    }
    view[OUT] = out[0];
    const tw_view *views[] = {view, view + X};
    PyThreadState *state = tw_release_gil((double)tw_size(&view[X]) * NS_PER_ELEMENT);
    int code = tw_each_matrix(1, views + X, run_widen, range);
    tw_dynamic_scale(range, &c.scale, &c.zero);
    if (code == TW_OK)
        code = tw_each_matrix(2, views, run_quantize_by_one, &c);
    tw_take_gil(state);
    *(float *)out[1].data = c.scale;
    *(uint8_t *)out[2].data = (uint8_t)c.zero;
    for (int i = 0; i < 3; i++) {  // scalars for new arrays without axes
        PyObject *one = tw_result(code, PyTuple_GET_ITEM(result, i));
        PyTuple_SET_ITEM(result, i, one);
        if (!one) {
            Py_DECREF(result);
            return NULL;
        }
    }
    return result;
}

PyMethodDef tw_doors_quantize[] = {
    TW_DOOR(quantize_linear), TW_DOOR(dequantize_linear), TW_DOOR(quantize), TW_DOOR(dequantize), TW_DOOR(dynamic_quantize_linear),
    TW_DOOR_END,
};
