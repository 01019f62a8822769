// The door: Python functions that read NumPy arrays' fields directly (about 100 ns a call, against 1000 through cffi).
//
// A door takes positional arguments and returns its output, or NotImplemented, having written nothing, when something is
// not plain: then Python decides what to do. Plain is: exactly numpy.ndarray, aligned, native byte order, a dtype the
// door knows, consistent shapes, outputs writeable and not overlapping the inputs.
#ifndef TW_DOOR_H
#define TW_DOOR_H

#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_23_API_VERSION
#define NPY_TARGET_VERSION NPY_1_23_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL tw_numpy_api
#ifndef TW_DOOR_MAIN
#define NO_IMPORT_ARRAY
#endif
#include <numpy/ndarrayobject.h>

#include "../tilewright.h"

#define TW_MAX_DIMS 32
#define TW_MAX_OPERANDS 8

// ---- one array

typedef struct {
    char *data;
    const npy_intp *shape, *strides; // strides in bytes; they live as long as the array object
    int ndim, dtype; // dtype: TW_FLOAT32 ... TW_UINT16
    npy_intp itemsize;
    PyObject *object;
} tw_view;

// Fills *view from a plain array of any known dtype; 0 when it is not one.
int tw_read(PyObject *object, tw_view *view);
// The same for an array to write into: writeable, and not stretched over one place by a stride of zero.
int tw_write(PyObject *object, tw_view *view);
// The same for an output that may be None: then a new C-ordered array. 0: not plain. -1: exception set. Otherwise
// view->object is a new reference, the value to return.
int tw_output(PyObject *object, int dtype, int ndim, const npy_intp *shape, tw_view *view);

int tw_same_shape(const tw_view *a, const tw_view *b);
npy_intp tw_size(const tw_view *view);
int tw_is_contiguous(const tw_view *view); // C order
// Whether the extents in memory of the two overlap.
int tw_overlap(const tw_view *a, const tw_view *b);
// The same data, shape and strides: an elementwise function may write where it reads.
int tw_identical(const tw_view *a, const tw_view *b);

// ---- several arrays of one shape, as few and as long loops as possible
//
// Axes of length 1 are dropped, axes are ordered by the strides of operand 0 (let it be the output) and merged wherever
// all operands allow. The last axis is the inner loop; ndim is at least 1.

typedef struct {
    int ndim;
    npy_intp shape[TW_MAX_DIMS];
    npy_intp strides[TW_MAX_OPERANDS][TW_MAX_DIMS]; // bytes
    char *data[TW_MAX_OPERANDS];
} tw_loop;

// 0 when there are more than TW_MAX_DIMS axes.
int tw_coalesce(tw_loop *loop, int operands, const tw_view *const *views);
// Adds to data[0 .. operands-1] where the inner loop number `row` begins, rows counted over all axes but the last.
void tw_row(const tw_loop *loop, int operands, npy_intp row, char **data);
npy_intp tw_rows(const tw_loop *loop);

// ---- the GIL: released around work above ~10 us

static inline PyThreadState *tw_release_gil(double ns) { return ns > 10000.0 ? PyEval_SaveThread() : NULL; }
static inline void tw_take_gil(PyThreadState *state) {
    if (state)
        PyEval_RestoreThread(state);
}

// ---- results

static inline PyObject *tw_not_plain(void) { return Py_NewRef(Py_NotImplemented); }
// The object for TW_OK (a scalar for a new array without axes), an exception for any other code; takes over the reference.
PyObject *tw_result(int code, PyObject *object);

#define TW_DOOR(name) {#name, (PyCFunction)(void (*)(void))door_##name, METH_FASTCALL, NULL}
#define TW_DOOR_END {NULL, NULL, 0, NULL}

#endif
