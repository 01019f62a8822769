// Doors of linear layers with a QuantizedMatrix: quantized_linear, which is linear's too, and qlinear.
#include "layers.h"
#include "numbers.h"

#define NS_PER_PRODUCT 0.003 // for the decision to release the GIL
#define NS_PER_INPUT 0.2
#define NS_PER_WEIGHT 0.02 // and row, weight-only

// ---- QuantizedMatrix

enum { C, SCALES, ZEROS, SHAPE, METHOD, SLOTS };

static PyObject *quantized_class, *slots[SLOTS]; // the class; the descriptors of its slots
static descrgetfunc get_slot;

// set_quantized(class): say which class QuantizedMatrix is
static PyObject *door_set_quantized(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    static const char *const names[] = {[C] = "c", [SCALES] = "scales", [ZEROS] = "zero_points", [SHAPE] = "shape",
                                        [METHOD] = "method"};
    for (int i = 0; i < SLOTS; i++)
        if (nargs != 1 || !(slots[i] = PyObject_GetAttrString(args[0], names[i])))
            return NULL;
    get_slot = Py_TYPE(slots[C])->tp_descr_get;
    quantized_class = Py_NewRef(args[0]);
    return Py_NewRef(Py_None);
}

int tw_is_quantized(PyObject *object) { return quantized_class && (PyObject *)Py_TYPE(object) == quantized_class; }

// What is in a slot, borrowed: the object is immutable, but for the first filling of `c`, and so keeps it.
static PyObject *slot(PyObject *object, int which) {
    PyObject *found = get_slot(slots[which], object, quantized_class);
    Py_XDECREF(found);
    return found;
}

int tw_read_quantized(PyObject *object, tw_quantized *w) {
    tw_view packed, scales, zeros = {0};
    PyObject *form = slot(object, C), *zero_points = slot(object, ZEROS), *shape = slot(object, SHAPE);
    if (form == Py_None) {
        form = PyObject_CallMethod(object, "make_c", NULL);
        Py_XDECREF(form);
        PyErr_Clear();
    }
    if (!form || !tw_read(form, &packed) || !tw_read(slot(object, SCALES), &scales) ||
        (zero_points != Py_None && !tw_read(zero_points, &zeros)))
        return 0;
    *w = (tw_quantized){.n = PyLong_AsSsize_t(PyTuple_GetItem(shape, 0)), .k = PyLong_AsSsize_t(PyTuple_GetItem(shape, 1)),
                        .dynamic = PyUnicode_CompareWithASCIIString(slot(object, METHOD), "dynamic") == 0, .packed = packed.data,
                        .scales = (const float *)scales.data, .zeros = (const int8_t *)zeros.data};
    return 1;
}

// ---- calls

static tw_qlinear_call call_of(const tw_quantized *w, const tw_layer_arrays *l) {
    return (tw_qlinear_call){.x_type = l->x.dtype, .y_type = l->y.dtype, .activation = l->activation, .m = l->m, .n = w->n,
                             .k = w->k, .x = l->rows, .y = l->result, .packed = w->packed, .scales = w->scales,
                             .zeros = w->zeros, .bias = (const float *)l->bias.data,
                             .bias_step = l->bias.data ? l->bias.strides[0] / l->bias.itemsize : 0, .residual = l->added};
}

static PyObject *run(const tw_qlinear_call *call, PyObject *y) {
    PyThreadState *state = tw_release_gil((double)call->m * (double)call->k * ((double)call->n * NS_PER_PRODUCT + NS_PER_INPUT));
    const int code = tw_qlinear(call);
    tw_take_gil(state);
    return tw_result(code, y);
}

static PyObject *run_weight_only(const tw_quantized *w, const tw_layer_arrays *l) {
    const tw_weight_only_call call = {.activation = l->activation, .m = l->m, .n = w->n, .k = w->k, .x = l->rows, .y = l->result,
                                      .packed = w->packed, .bias = (const float *)l->bias.data,
                                      .bias_step = l->bias.data ? l->bias.strides[0] / l->bias.itemsize : 0, .residual = l->added};
    PyThreadState *state = tw_release_gil((double)call.m * (double)call.n * (double)call.k * NS_PER_WEIGHT);
    const int code = tw_weight_only_linear(&call);
    tw_take_gil(state);
    return tw_result(code, l->y.object);
}

PyObject *tw_quantized_linear(PyObject *const *args) {
    tw_layer_arrays l;
    tw_quantized w;
    if (!tw_read(args[0], &l.x) || l.x.dtype != TW_FLOAT32 || !tw_read_quantized(args[1], &w) ||
        !tw_read_layer(args[2], args[3], args[4], TW_FLOAT32, w.n, w.k, &l))
        return tw_not_plain();
    const int made = tw_layer_output(args[5], TW_FLOAT32, NULL, &l); // w is read-only
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (!w.dynamic)
        return run_weight_only(&w, &l);
    const tw_qlinear_call call = call_of(&w, &l);
    return run(&call, l.y.object);
}

// quantized_linear(x, w, bias, residual, activation, out)
static PyObject *door_quantized_linear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    return nargs == 6 && tw_is_quantized(args[1]) ? tw_quantized_linear(args) : tw_not_plain();
}

// qlinear(x, x_scale, x_zero_point, w, bias, y_scale, y_zero_point, activation, out): x (..., K) int8 or uint8; y_scale None: y is
// float32, otherwise of y_zero_point's type
static PyObject *door_qlinear(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_layer_arrays l;
    tw_quantized w;
    float x_scale, y_scale = 1;
    int32_t x_zero, y_zero = 0;
    int y_type = TW_FLOAT32;
    if (nargs != 9 || !tw_read(args[0], &l.x) || (l.x.dtype != TW_INT8 && l.x.dtype != TW_UINT8) || !tw_is_quantized(args[3]) ||
        !tw_read_quantized(args[3], &w) || !w.dynamic || !tw_read_scale(args[1], &x_scale) ||
        !tw_read_zero(args[2], 0, &l.x.dtype, &x_zero) ||
        !tw_read_layer(args[4], Py_None, args[7], TW_FLOAT32, w.n, w.k, &l))
        return tw_not_plain();
    if (args[5] == Py_None ? args[6] != Py_None
                           : PyLong_Check(args[6]) || args[6] == Py_None || !tw_read_scale(args[5], &y_scale) ||
                                 !tw_read_zero(args[6], 1, &y_type, &y_zero) || (y_type != TW_INT8 && y_type != TW_UINT8) ||
                                 l.activation > TW_RELU)
        return tw_not_plain();
    const int made = tw_layer_output(args[8], y_type, NULL, &l);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    tw_qlinear_call call = call_of(&w, &l);
    call.x_scale = x_scale, call.x_zero = x_zero, call.y_scale = y_scale, call.y_zero = y_zero;
    return run(&call, l.y.object);
}

PyMethodDef tw_doors_qlinear[] = {TW_DOOR(set_quantized), TW_DOOR(quantized_linear), TW_DOOR(qlinear), TW_DOOR_END};
