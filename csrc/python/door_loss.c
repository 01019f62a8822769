// Doors of the losses: cross_entropy(logits, labels, reduction, ignore_index, smoothing, out) and
// cross_entropy_backward(dloss, logits, labels, reduction, ignore_index, smoothing, out). Labels: int64, contiguous.
#include "matrices.h"

#define NS_PER_ELEMENT 0.4  // for the decision to release the GIL

// args: logits, labels, reduction, ignore_index, smoothing
static int read_call(PyObject *const *args, tw_view *logits, tw_view *labels, tw_cross_entropy *w) {
    if (!tw_read_float(args[0], -1, logits) || logits->ndim != 2 || !tw_read(args[1], labels) || labels->dtype != TW_INT64 ||
        labels->ndim != 1 || labels->shape[0] != logits->shape[0] || !tw_is_contiguous(labels))
        return 0;
    const long reduction = PyLong_AsLong(args[2]);
    const long long ignore = PyLong_AsLongLong(args[3]);
    double smoothing;
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    if (!tw_number(args[4], &smoothing) || !(smoothing >= 0 && smoothing <= 1) || reduction < 0 || reduction > TW_REDUCE_SUM)
        return 0;
    const npy_intp rows = logits->shape[0], classes = logits->shape[1], *strides = logits->strides, size = logits->itemsize;
    *w = (tw_cross_entropy){.dtype = logits->dtype, .reduction = (int)reduction, .rows = rows, .classes = classes,
                            .logits = {logits->data, strides[0] / size, strides[1] / size},
                            .labels = (const int64_t *)labels->data, .ignore_index = ignore, .smoothing = smoothing};
    for (npy_intp row = 0; row < rows; row++)
        if (w->labels[row] != ignore && (w->labels[row] < 0 || w->labels[row] >= classes))
            return 0;
    return 1;
}

static PyObject *door_cross_entropy(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view logits, labels, out;
    const tw_view *inputs[] = {&logits, &labels};
    tw_cross_entropy w;
    if (nargs != 6 || !read_call(args, &logits, &labels, &w))
        return tw_not_plain();
    const int ndim = w.reduction == TW_REDUCE_NONE;
    const int made = tw_output_apart(args[5], w.dtype, ndim, labels.shape, &out, 2, inputs, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    PyThreadState *state = tw_release_gil((double)tw_size(&logits) * NS_PER_ELEMENT);
    const int code = tw_cross_entropy_loss(&w, out.data, ndim ? out.strides[0] / out.itemsize : 0);
    tw_take_gil(state);
    return tw_result(code, out.object);
}

static PyObject *door_cross_entropy_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view dloss, logits, labels, out;
    const tw_view *inputs[] = {&logits, &labels, &dloss};
    tw_cross_entropy w;
    if (nargs != 7 || !read_call(args + 1, &logits, &labels, &w) || !tw_read_float(args[0], w.dtype, &dloss) ||
        dloss.ndim != (w.reduction == TW_REDUCE_NONE) || (dloss.ndim == 1 && dloss.shape[0] != w.rows))
        return tw_not_plain();
    const int made = tw_output_apart(args[6], w.dtype, 2, logits.shape, &out, 3, inputs, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    const tw_matrix dlogits = {out.data, out.strides[0] / out.itemsize, out.strides[1] / out.itemsize};
    PyThreadState *state = tw_release_gil((double)tw_size(&logits) * NS_PER_ELEMENT);
    const int code = tw_cross_entropy_gradient(&w, dloss.data, dloss.ndim ? dloss.strides[0] / dloss.itemsize : 0, dlogits);
    tw_take_gil(state);
    return tw_result(code, out.object);
}

PyMethodDef tw_doors_loss[] = {TW_DOOR(cross_entropy), TW_DOOR(cross_entropy_backward), TW_DOOR_END};
