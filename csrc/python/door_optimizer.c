// Doors of the optimizers, over lists (or tuples) of arrays, or one array for a list of one:
//     sgd_step(params, grads, buffers or None, lr, momentum, nesterov, weight_decay)
//     adam_step(params, grads, exp_avgs, exp_avg_sqs, step, lr, beta1, beta2, eps, weight_decay, decoupled)
//     clip_grad_norm(grads, max_norm) -> norm
// All arrays are checked before the first is written.
#include <math.h>

#include "matrices.h"

enum { SGD = 3, ADAM = 4 };  // arrays of one parameter: p g b | p g m v
#define NS_PER_ELEMENT 0.4  // for the decision to release the GIL

typedef struct {
    int lists, dtype;
    Py_ssize_t count;
    double elements;
    PyObject *tuples[ADAM];  // own references, so that nobody can take an array away while the GIL is released
    tw_view *views;  // views[i * lists + k]: array i of list k
} groups;

static PyObject *as_tuple(PyObject *object) {
    if (PyList_Check(object))
        return PyList_AsTuple(object);
    return PyTuple_Check(object) ? Py_NewRef(object) : PyTuple_Pack(1, object);
}

static void drop(groups *g) {
    for (int k = 0; k < g->lists; k++) Py_XDECREF(g->tuples[k]);
    PyMem_Free(g->views);
}

// Whether array i of every list is of one shape and dtype, the written ones apart from the others.
static int reads_group(groups *g, Py_ssize_t i, unsigned written) {
    tw_view *views = g->views + i * g->lists;
    for (int k = 0; k < g->lists; k++) {
        PyObject *item = PyTuple_GetItem(g->tuples[k], i);
        if (!(written >> k & 1 ? tw_write(item, &views[k]) : tw_read(item, &views[k])) || views[k].dtype > TW_FLOAT64 ||
            (g->dtype >= 0 && views[k].dtype != g->dtype) || views[k].ndim > TW_MAX_DIMS ||
            !tw_same_shape(&views[k], &views[0]))
            return 0;
        g->dtype = views[k].dtype;
        for (int j = 0; j < k; j++)
            if (((written >> j | written >> k) & 1) && tw_overlap(&views[j], &views[k]))
                return 0;
    }
    g->elements += (double)tw_size(&views[0]);
    return 1;
}

// 1: all is plain. 0: it is not. -1: exception set. drop() is due in any case. written: bit k for list k.
static int read_groups(PyObject *const *args, int lists, unsigned written, groups *g) {
    *g = (groups){.lists = lists, .dtype = -1};
    for (int k = 0; k < lists; k++)
        if (!(g->tuples[k] = as_tuple(args[k])))
            return -1;
    g->count = PyTuple_Size(g->tuples[0]);
    for (int k = 1; k < lists; k++)
        if (PyTuple_Size(g->tuples[k]) != g->count)
            return 0;
    g->views = PyMem_Malloc((g->count * lists + 1) * sizeof *g->views);
    if (!g->views) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < g->count; i++)
        if (!reads_group(g, i, written))
            return 0;
    return 1;
}

static int run_groups(const groups *g, tw_matrix_call *call, void *context) {
    PyThreadState *state = tw_release_gil(g->elements * NS_PER_ELEMENT);
    int code = TW_OK;
    for (Py_ssize_t i = 0; code == TW_OK && i < g->count; i++) {
        const tw_view *views[ADAM] = {NULL};
        for (int k = 0; k < g->lists; k++) views[k] = &g->views[i * g->lists + k];
        code = tw_each_matrix(g->lists, views, call, context);
    }
    tw_take_gil(state);
    return code;
}

static PyObject *step(PyObject *const *args, int lists, unsigned written, tw_matrix_call *call, groups *g, void *context) {
    const int code = read_groups(args, lists, written, g);
    PyObject *result = code < 0 ? NULL : tw_not_plain();
    if (code > 0) {
        Py_DECREF(result);
        result = tw_result(run_groups(g, call, context), Py_NewRef(Py_None));
    }
    drop(g);
    return result;
}

static int numbers(PyObject *const *args, int count, double *const *values) {
    for (int i = 0; i < count; i++)
        if (!tw_number(args[i], values[i]) || !(*values[i] >= 0))
            return 0;
    return 1;
}

// ---- sgd

typedef struct {
    groups groups;
    tw_sgd_settings settings;
} sgd;

static int run_sgd(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const sgd *s = context;
    const tw_matrix buffer = s->groups.lists == SGD ? m[2] : (tw_matrix){0};
    return tw_sgd_step(s->groups.dtype, rows, cols, m[0], m[1], buffer, &s->settings);
}

static PyObject *door_sgd_step(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    sgd s = {0};
    tw_sgd_settings *t = &s.settings;
    double nesterov;
    double *const values[] = {&t->lr, &t->momentum, &nesterov, &t->weight_decay};
    if (nargs != 7 || !numbers(args + 3, 4, values))
        return tw_not_plain();
    t->nesterov = nesterov != 0;
    const int lists = args[2] == Py_None ? SGD - 1 : SGD;
    if ((t->nesterov && t->momentum == 0) || (t->momentum != 0 && lists < SGD))
        return tw_not_plain();
    return step(args, lists, 1u | 1u << 2, run_sgd, &s.groups, &s);
}

// ---- adam

typedef struct {
    groups groups;
    tw_adam_settings settings;
} adam;

static int run_adam(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const adam *a = context;
    return tw_adam_step(a->groups.dtype, rows, cols, m[0], m[1], m[2], m[3], &a->settings);
}

static PyObject *door_adam_step(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    adam a = {0};
    tw_adam_settings *s = &a.settings;
    double number, decoupled;
    double *const values[] = {&number, &s->lr, &s->beta1, &s->beta2, &s->eps, &s->weight_decay, &decoupled};
    if (nargs != 11 || !numbers(args + 4, 7, values) || s->beta1 >= 1 || s->beta2 >= 1 || PyBool_Check(args[4]) ||
        number < 1 || number > 9e15 || number != floor(number))
        return tw_not_plain();
    s->step = (int64_t)number;
    s->decoupled = decoupled != 0;
    return step(args, ADAM, 1u | 1u << 2 | 1u << 3, run_adam, &a.groups, &a);
}

// ---- clip_grad_norm

typedef struct {
    groups groups;
    double squares, factor;
} clip;

static int run_squares(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    clip *c = context;
    double sum;
    const int code = tw_sum_squares(c->groups.dtype, rows, cols, m[0], &sum);
    c->squares += sum;
    return code;
}

static int run_scale(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m) {
    const clip *c = context;
    return tw_scale(c->groups.dtype, rows, cols, m[0], c->factor);
}

static PyObject *door_clip_grad_norm(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    clip c = {0};
    double max_norm;
    double *const values[] = {&max_norm};
    if (nargs != 2 || !numbers(args + 1, 1, values))
        return tw_not_plain();
    int code = read_groups(args, 1, 1u, &c.groups);
    PyObject *result = code < 0 ? NULL : tw_not_plain();
    if (code > 0) {
        code = run_groups(&c.groups, run_squares, &c);
        const double norm = sqrt(c.squares);
        c.factor = max_norm / (norm + 1e-6);
        if (code == TW_OK && !(c.factor >= 1))  // also where it is NaN
            code = run_groups(&c.groups, run_scale, &c);
        Py_DECREF(result);
        result = tw_result(code, PyFloat_FromDouble(norm));
    }
    drop(&c.groups);
    return result;
}

PyMethodDef tw_doors_optimizer[] = {TW_DOOR(sgd_step), TW_DOOR(adam_step), TW_DOOR(clip_grad_norm), TW_DOOR_END};
