// Doors of the embedding: embedding(indices, weight, out) and embedding_backward(dy, indices, out). Indices: int64, C order;
// out of embedding and dy must be rows that one stride separates.
#include <string.h>

#include "matrices.h"

#define NS_PER_ELEMENT 0.3  // for the decision to release the GIL

static int read_indices(PyObject *object, npy_intp table_rows, tw_view *view) {
    if (!tw_read(object, view) || view->dtype != TW_INT64 || !tw_is_contiguous(view) || view->ndim >= TW_MAX_DIMS - 1)
        return 0;
    const int64_t *indices = (const int64_t *)view->data;
    for (npy_intp i = 0, n = tw_size(view); i < n; i++)
        if (indices[i] < 0 || indices[i] >= table_rows)
            return 0;
    return 1;
}

static tw_matrix matrix(const tw_view *v) {
    return (tw_matrix){v->data, v->strides[0] / v->itemsize, v->strides[1] / v->itemsize};
}

// All axes but the last as rows, in C order; 0 where no single stride separates them.
static int rows_of(const tw_view *v, tw_matrix *m) {
    const int last = v->ndim - 1;
    npy_intp stride = 0, length = 1;
    for (int axis = last - 1; axis >= 0; axis--) {
        if (v->shape[axis] == 1)
            continue;
        if (length > 1 && v->strides[axis] != stride * length && tw_size(v))
            return 0;
        if (length == 1)
            stride = v->strides[axis];
        length *= v->shape[axis];
    }
    *m = (tw_matrix){v->data, stride / v->itemsize, v->strides[last] / v->itemsize};
    return 1;
}

static PyObject *door_embedding(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view indices, table, y;
    const tw_view *inputs[] = {&table, &indices};
    npy_intp shape[TW_MAX_DIMS];
    tw_matrix to;
    if (nargs != 3 || !tw_read_float(args[1], -1, &table) || table.ndim != 2 ||
        !read_indices(args[0], table.shape[0], &indices))
        return tw_not_plain();
    memcpy(shape, indices.shape, indices.ndim * sizeof *shape);
    shape[indices.ndim] = table.shape[1];
    const int made = tw_output_apart(args[2], table.dtype, indices.ndim + 1, shape, &y, 2, inputs, 0);
    if (made <= 0)
        return made < 0 ? NULL : tw_not_plain();
    if (!rows_of(&y, &to)) {
        Py_DECREF(y.object);
        return tw_not_plain();
    }
    PyThreadState *state = tw_release_gil((double)tw_size(&y) * NS_PER_ELEMENT);
    const int code = tw_embedding(table.dtype, table.shape[0], table.shape[1], matrix(&table), tw_size(&indices),
                                  (const int64_t *)indices.data, to);
    tw_take_gil(state);
    return tw_result(code, y.object);
}

static PyObject *door_embedding_backward(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    tw_view dy, indices, table;
    tw_matrix from;
    if (nargs != 3 || !tw_write(args[2], &table) || table.dtype > TW_FLOAT64 || table.ndim != 2 ||
        !tw_read_float(args[0], table.dtype, &dy) || !read_indices(args[1], table.shape[0], &indices) ||
        dy.ndim != indices.ndim + 1 || memcmp(dy.shape, indices.shape, indices.ndim * sizeof *dy.shape) ||
        dy.shape[indices.ndim] != table.shape[1] || !rows_of(&dy, &from) || tw_overlap(&table, &dy) ||
        tw_overlap(&table, &indices))
        return tw_not_plain();
    PyThreadState *state = tw_release_gil((double)(tw_size(&dy) + tw_size(&table)) * NS_PER_ELEMENT);
    const int code = tw_embedding_backward(dy.dtype, tw_size(&indices), table.shape[1], from, (const int64_t *)indices.data,
                                           table.shape[0], matrix(&table));
    tw_take_gil(state);
    return tw_result(code, Py_NewRef(args[2]));
}

PyMethodDef tw_doors_embedding[] = {TW_DOOR(embedding), TW_DOOR(embedding_backward), TW_DOOR_END};
