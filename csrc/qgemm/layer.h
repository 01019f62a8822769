// What becomes of the sums of an integer product: the tw_finish of all layers, and of qlinear_matmul.
#ifndef TW_QGEMM_LAYER_H
#define TW_QGEMM_LAYER_H

#include "../activation/kernels.h"
#include "../quantize/kernels.h"

// f = sums * (row_scale * col_scale) + bias; y = activation(f) + residual, or that quantized
typedef struct {
    const tw_quantize_kernels *kernels;
    const float *row_scale;  // of row i at i * row_step
    ptrdiff_t row_step;
    const float *col_scale, *bias;  // contiguous; bias may be NULL
    tw_activate *activation;        // NULL: none
    double param;
    tw_matrix residual;  // data NULL: none
    int type;            // of y: TW_FLOAT32, TW_INT8 or TW_UINT8
    tw_matrix y;
    int past;            // y is written past the caches, where that takes no second look at it
    const float *y_scale;  // for integers: of row i at i * y_step
    const int32_t *y_zero;
    ptrdiff_t y_scale_step, y_zero_step;
} tw_layer;

void tw_finish_layer(void *layer, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t row);

#endif
