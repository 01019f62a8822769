// Arrays of any number of axes as a few matrices with any strides, which is what the C library takes.
#ifndef TW_MATRICES_H
#define TW_MATRICES_H

#include "door.h"

// Called for each matrix, m[o] being operand o's; returns TW_OK or the code to stop with.
typedef int tw_matrix_call(void *context, npy_intp rows, npy_intp cols, const tw_matrix *m);

// For functions of elements: axes in any order, as few matrices as the strides allow. At most TW_MAX_DIMS axes.
int tw_each_matrix(int operands, const tw_view *const *views, tw_matrix_call *call, void *context);

// For functions of rows: the last axis is the columns, the others in any order. At least one axis.
int tw_each_row(int operands, const tw_view *const *views, tw_matrix_call *call, void *context);

// Reads an input of dtype float32 or float64 into *view; dtype: the one that it must have, or -1.
int tw_read_float(PyObject *object, int dtype, tw_view *view);

// tw_output, and no overlap with the inputs but for those of the same layout where elementwise; as tw_output returns.
int tw_output_apart(PyObject *object, int dtype, int ndim, const npy_intp *shape, tw_view *view, int inputs,
                    const tw_view *const *input, int elementwise);

// A number, 0 and no exception where it is none.
int tw_number(PyObject *object, double *value);

#endif
