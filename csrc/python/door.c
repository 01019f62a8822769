// What all doors share: reading arrays, overlap, loops over strided arrays, and the list of the families.
#define TW_DOOR_MAIN
#include "door.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "init.h"

#if NPY_BYTE_ORDER == NPY_LITTLE_ENDIAN
#define FOREIGN_ORDER '>'
#else
#define FOREIGN_ORDER '<'
#endif

// bfloat16 is registered by ml_dtypes at run time; -1 until Python says which number it was given
static int bfloat16_number = -1;

static int dtype_of(int type_num) {
    switch (type_num) {
    case NPY_FLOAT: return TW_FLOAT32;
    case NPY_DOUBLE: return TW_FLOAT64;
    case NPY_HALF: return TW_FLOAT16;
    case NPY_INT64: return TW_INT64;
    case NPY_BYTE: return TW_INT8;
    case NPY_UBYTE: return TW_UINT8;
    case NPY_INT: return TW_INT32;
    case NPY_SHORT: return TW_INT16;
    case NPY_USHORT: return TW_UINT16;
    default: return type_num == bfloat16_number ? TW_BFLOAT16 : -1;
    }
}

static const int type_nums[] = {[TW_FLOAT32] = NPY_FLOAT, [TW_FLOAT64] = NPY_DOUBLE, [TW_FLOAT16] = NPY_HALF,
                                [TW_INT64] = NPY_INT64, [TW_INT8] = NPY_BYTE,   [TW_UINT8] = NPY_UBYTE,
                                [TW_INT32] = NPY_INT,   [TW_INT16] = NPY_SHORT, [TW_UINT16] = NPY_USHORT};
static const npy_intp itemsizes[] = {[TW_FLOAT32] = 4, [TW_FLOAT64] = 8, [TW_FLOAT16] = 2, [TW_BFLOAT16] = 2, [TW_INT64] = 8,
                                     [TW_INT8] = 1,    [TW_UINT8] = 1,   [TW_INT32] = 4,   [TW_INT16] = 2,    [TW_UINT16] = 2};

static int view_array(PyObject *object, int flags, tw_view *view) {
    if (Py_TYPE(object) != &PyArray_Type)
        return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    PyArray_Descr *descr = PyArray_DESCR(array);
    int dtype = dtype_of(descr->type_num);
    if (dtype < 0 || descr->byteorder == FOREIGN_ORDER || (PyArray_FLAGS(array) & flags) != flags)
        return 0;
    *view = (tw_view){PyArray_BYTES(array), PyArray_DIMS(array), PyArray_STRIDES(array), PyArray_NDIM(array),
                      dtype, itemsizes[dtype], object};
    return 1;
}

int tw_read(PyObject *object, tw_view *view) { return view_array(object, NPY_ARRAY_ALIGNED, view); }

int tw_write(PyObject *object, tw_view *view) {
    if (!view_array(object, NPY_ARRAY_ALIGNED | NPY_ARRAY_WRITEABLE, view)) return 0;
    for (int i = 0; i < view->ndim; i++)
        if (view->strides[i] == 0 && view->shape[i] > 1 && tw_size(view)) return 0; // many elements in one place
    return 1;
}

// ---- new arrays. NumPy's begin 16 bytes into a cache line, so that each store of a vector of 64 bytes waits for two lines:
// an integer product of 256x256x256 takes 1.6 times as long. Large ones get memory of ours, which NumPy frees by our function.

enum { LINE = 64, LARGE = 4096 };          // bytes
#define HUGE_PAGES ((size_t)4 << 20)       // bytes, from which on NumPy asks for them, too

static void *get_memory(void *unused, size_t size) {
    (void)unused;
    void *memory = NULL;
    if (posix_memalign(&memory, LINE, size))
        return NULL;
#ifdef MADV_HUGEPAGE
    const size_t page = 4096, skip = -(uintptr_t)memory % page;
    if (size >= HUGE_PAGES)
        madvise((char *)memory + skip, size - skip, MADV_HUGEPAGE);
#endif
    return memory;
}

static void *get_zeros(void *unused, size_t count, size_t size) {
    void *memory = get_memory(unused, count * size);
    return memory ? memset(memory, 0, count * size) : NULL;
}

static void *resize(void *unused, void *memory, size_t size) {
    (void)unused;
    return realloc(memory, size);
}

static void give_back(void *unused, void *memory, size_t size) {
    (void)unused, (void)size;
    free(memory);
}

static PyDataMem_Handler lines = {"tilewright, cache lines", 1, {NULL, get_memory, get_zeros, resize, give_back}};
static PyObject *handler; // the capsule of `lines`

static PyObject *new_array(int number, int ndim, const npy_intp *shape, npy_intp itemsize) {
    npy_intp bytes = itemsize;
    for (int i = 0; i < ndim && bytes < LARGE; i++) bytes *= shape[i];
    if (bytes < LARGE)
        return PyArray_SimpleNew(ndim, (npy_intp *)shape, number);
    PyObject *theirs = PyDataMem_SetHandler(handler);
    if (!theirs)
        return NULL;
    PyObject *made = PyArray_SimpleNew(ndim, (npy_intp *)shape, number);
    Py_XDECREF(PyDataMem_SetHandler(theirs));
    Py_DECREF(theirs);
    return made;
}

int tw_output(PyObject *object, int dtype, int ndim, const npy_intp *shape, tw_view *view) {
    if (object == Py_None) {
        PyObject *made = new_array(dtype == TW_BFLOAT16 ? bfloat16_number : type_nums[dtype], ndim, shape, itemsizes[dtype]);
        return made && tw_write(made, view) ? 1 : -1;
    }
    if (!tw_write(object, view) || view->dtype != dtype || view->ndim != ndim ||
        memcmp(view->shape, shape, ndim * sizeof *shape))
        return 0;
    Py_INCREF(object);
    return 1;
}

int tw_same_shape(const tw_view *a, const tw_view *b) {
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, a->ndim * sizeof *a->shape);
}

npy_intp tw_size(const tw_view *view) {
    npy_intp size = 1;
    for (int i = 0; i < view->ndim; i++)
        size *= view->shape[i];
    return size;
}

int tw_is_contiguous(const tw_view *view) {
    return (PyArray_FLAGS((PyArrayObject *)view->object) & NPY_ARRAY_C_CONTIGUOUS) != 0;
}

// [*low, *high): the bytes the array's elements lie in; empty for an empty array
static void extent(const tw_view *view, const char **low, const char **high) {
    *low = *high = view->data;
    for (int i = 0; i < view->ndim; i++) {
        if (view->shape[i] == 0) {
            *low = *high = view->data;
            return;
        }
        npy_intp reach = (view->shape[i] - 1) * view->strides[i];
        *(reach < 0 ? low : high) += reach;
    }
    *high += view->itemsize;
}

int tw_overlap(const tw_view *a, const tw_view *b) {
    const char *a_low, *a_high, *b_low, *b_high;
    extent(a, &a_low, &a_high);
    extent(b, &b_low, &b_high);
    return a_low < b_high && b_low < a_high;
}

int tw_identical(const tw_view *a, const tw_view *b) {
    return a->data == b->data && tw_same_shape(a, b) && !memcmp(a->strides, b->strides, a->ndim * sizeof *a->strides);
}

// ---- loops

static npy_intp magnitude(npy_intp stride) { return stride < 0 ? -stride : stride; }

int tw_coalesce(tw_loop *loop, int operands, const tw_view *const *views) {
    int ndim = 0, order[TW_MAX_DIMS];
    const tw_view *first = views[0];
    if (first->ndim > TW_MAX_DIMS)
        return 0;
    for (int i = 0; i < first->ndim; i++) { // insertion sort, outermost first; equal strides keep their order
        if (first->shape[i] == 1)
            continue;
        int at = ndim++;
        for (; at > 0 && magnitude(first->strides[order[at - 1]]) < magnitude(first->strides[i]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    loop->ndim = 0;
    for (int o = 0; o < operands; o++)
        loop->data[o] = views[o]->data;
    for (int i = 0; i < ndim; i++) {
        int axis = order[i], last = loop->ndim - 1, merge = last >= 0;
        for (int o = 0; merge && o < operands; o++)
            merge = loop->strides[o][last] == views[o]->strides[axis] * first->shape[axis];
        if (!merge)
            loop->shape[last = loop->ndim++] = 1;
        loop->shape[last] *= first->shape[axis];
        for (int o = 0; o < operands; o++)
            loop->strides[o][last] = views[o]->strides[axis];
    }
    if (loop->ndim == 0) {
        loop->ndim = 1;
        loop->shape[0] = 1;
        for (int o = 0; o < operands; o++)
            loop->strides[o][0] = views[o]->itemsize;
    }
    return 1;
}

npy_intp tw_rows(const tw_loop *loop) {
    npy_intp rows = 1;
    for (int i = 0; i < loop->ndim - 1; i++)
        rows *= loop->shape[i];
    return rows;
}

void tw_row(const tw_loop *loop, int operands, npy_intp row, char **data) {
    for (int o = 0; o < operands; o++)
        data[o] = loop->data[o];
    for (int i = loop->ndim - 2; i >= 0; i--) {
        npy_intp index = row % loop->shape[i];
        row /= loop->shape[i];
        for (int o = 0; o < operands; o++)
            data[o] += index * loop->strides[o][i];
    }
}

PyObject *tw_result(int code, PyObject *object) {
    if (code == TW_OK) // an array that nobody else holds was made here: NumPy gives a scalar where it has no axes
        return Py_REFCNT(object) == 1 ? PyArray_Return((PyArrayObject *)object) : object;
    Py_XDECREF(object);
    if (code == TW_NO_MEMORY) return PyErr_NoMemory();
    return PyErr_Format(PyExc_SystemError, "a tilewright kernel refused its arguments (code %d)", code);
}

// ---- start-up. A new family is one row: door_<family>.c defines `PyMethodDef tw_doors_<family>[]`.

#define TW_FAMILIES(X) \
    X(gemm) X(qgemm) X(weights) X(activation) X(softmax) X(norm) X(loss) X(dropout) X(embedding) X(optimizer) X(quantize) \
    X(qlinear) X(maddubs)

#define DECLARE_(family) extern PyMethodDef tw_doors_##family[];
TW_FAMILIES(DECLARE_)

static PyObject *set_bfloat16(PyObject *self, PyObject *number) {
    (void)self;
    bfloat16_number = (int)PyLong_AsLong(number);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef shared[] = {{"set_bfloat16", set_bfloat16, METH_O, "Say which NumPy type number bfloat16 has."}, TW_DOOR_END};

static int fill(PyObject *module) {
    if (_import_array() < 0 || PyModule_AddFunctions(module, shared) < 0 ||
        !(handler = PyCapsule_New(&lines, "mem_handler", NULL)))
        return -1;
#define ADD_(family) \
    if (PyModule_AddFunctions(module, tw_doors_##family) < 0) \
        return -1;
    TW_FAMILIES(ADD_)
    return 0;
}

int tw_fill_door(uintptr_t module) {
    PyGILState_STATE state = PyGILState_Ensure(); // cffi let it go for the call
    int code = fill((PyObject *)module);
    if (code < 0)
        PyErr_Print();
    PyGILState_Release(state);
    return code;
}
