// What the doors of linear layers have in common: rows of x in, rows of y out, bias, activation, residual.
#ifndef TW_DOOR_LAYERS_H
#define TW_DOOR_LAYERS_H

#include "door.h"

typedef struct {
    tw_view x, bias, residual, y; // x (..., K), bias (N,), residual and y (..., N); no data: none
    tw_matrix rows, added, result; // x, residual and y as matrices; their leading axes are one
    npy_intp m, shape[TW_MAX_DIMS]; // rows; the shape of y
    int activation;
} tw_layer_arrays;

// Reads x, bias (or None), residual (or None) and the activation's code for a weight (n, k); x has been read into l->x. Bias and
// residual must be of `dtype`. 0: not plain.
int tw_read_layer(PyObject *bias, PyObject *residual, PyObject *activation, int dtype, npy_intp n, npy_intp k, tw_layer_arrays *l);

// l->y, apart from what has been read (it may be the residual) and from w (or NULL); as tw_output returns.
int tw_layer_output(PyObject *out, int dtype, const tw_view *w, tw_layer_arrays *l);

// ---- tilewright.QuantizedMatrix (core/quantized.py)

typedef struct {
    npy_intp n, k;
    int dynamic; // else weight-only
    const void *packed;
    const float *scales; // of a dynamic one: n
    const int8_t *zeros; // n, or NULL
} tw_quantized;

int tw_is_quantized(PyObject *object);

// Makes its form for C if need be. 0: it has none.
int tw_read_quantized(PyObject *object, tw_quantized *w);

// linear(x, w, bias, residual, activation, out) for a QuantizedMatrix w
PyObject *tw_quantized_linear(PyObject *const *args);

#endif
