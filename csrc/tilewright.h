/* tilewright: the public C interface.
 *
 * Link with -ltilewright (Python: tilewright.get_include(), tilewright.get_library()); no Python is needed.
 * Sizes are counts of elements; strides count elements and may be zero or negative. Functions that return int return
 * TW_OK or one of the codes below, and then have written nothing. They may be called from any number of threads at once.
 * The file is plain prototypes, so that cffi reads it as it stands once the lines that open with '#' are gone. */
#ifndef TILEWRIGHT_H
#define TILEWRIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum { TW_OK = 0, TW_NO_MEMORY = 1, TW_INVALID = 2 };

/* ---- element types */

enum {
    TW_FLOAT32 = 0, TW_FLOAT64 = 1, TW_FLOAT16 = 2, TW_BFLOAT16 = 3, TW_INT64 = 4, TW_INT8 = 5, TW_UINT8 = 6, TW_INT32 = 7,
    TW_INT16 = 8, TW_UINT16 = 9
};

/* ---- activations that linear fuses, with their default parameters */

enum {
    TW_NONE = 0, TW_RELU = 1, TW_LEAKY_RELU = 2, TW_ELU = 3, TW_GELU = 4, TW_GELU_TANH = 5, TW_SILU = 6, TW_SIGMOID = 7,
    TW_TANH = 8, TW_SOFTPLUS = 9, TW_HARDSWISH = 10
};

/* ---- isa: the instruction set in use; the rows this machine could use (NULL past the last, most capable first); what is
 * wrong with TILEWRIGHT_ISA, or NULL */

const char *tw_isa(void);
const char *tw_isa_name(int row);
const char *tw_int8_isa(void); /* the same for products of 8-bit integers, which know more of them */
const char *tw_int8_isa_name(int row);
const char *tw_isa_error(void);

/* ---- threads: how many a call may use. Set for the process, or for the calling thread alone; 0 lets that follow the
 * process again. Returns the number that the thread had of its own, or 0. */

int tw_get_num_threads(void);
void tw_set_num_threads(int threads);
int tw_set_local_threads(int threads);

/* The pool behind every call, for kernels of your own. Who runs a task is left to chance, so a task must own what it writes,
 * and its result must not depend on how many threads there are. `ns` is about what one thread would take, in nanoseconds:
 * little work stays on the calling thread. */

typedef void tw_task(void *context, ptrdiff_t task);
typedef void tw_range(void *context, ptrdiff_t begin, ptrdiff_t end);

/* run(context, 0 .. tasks-1), each once. */
void tw_parallel(ptrdiff_t tasks, double ns, tw_task *run, void *context);

/* run(context, begin, end) over disjoint ranges that make up [0, n); all but the last are multiples of `grain` long. */
void tw_parallel_ranges(ptrdiff_t n, ptrdiff_t grain, double ns, tw_range *run, void *context);

/* At least `bytes` of 64-byte aligned memory that belongs to the calling thread until its next call; NULL when there is
 * none. Kept for the next call, freed when the thread ends. */
void *tw_workspace(size_t bytes);

/* ---- gemm: products of matrices in row-major or any other strided layout */

typedef struct {
    void *data;
    ptrdiff_t row, col; /* strides in elements */
} tw_matrix;

/* c = activation(alpha a b + beta c + bias) + residual, a (m, k), b (k, n), c (m, n), for every index of the batch axes.
 * beta == 0 never reads c; alpha == 0 or k == 0 never reads a or b. c must overlap neither a nor b nor itself. float16 and bfloat16
 * are computed in float32. Results are the same bits for any number of threads. */
typedef struct {
    int dtype;      /* TW_FLOAT32, TW_FLOAT64, TW_FLOAT16 or TW_BFLOAT16 of everything */
    int activation; /* TW_NONE ... */
    ptrdiff_t m, n, k;
    tw_matrix a, b, c;
    double alpha, beta;
    const void *bias; /* n elements bias_step apart, or NULL */
    ptrdiff_t bias_step;
    tw_matrix residual; /* (m, n), only without batch axes; its data is NULL for none. It may be c itself, else be apart */
    int batch_axes;
    const ptrdiff_t *batch_shape, *a_batch, *b_batch, *c_batch; /* batch_axes lengths and strides */
    const void *packed; /* NULL, or what tw_pack made of b: see there */
} tw_gemm_call;

int tw_gemm(const tw_gemm_call *call);

/* How tw_gemm would run the call, in a few words ("avx512 8x48 packed, 2 threads"), into text[0 .. size-1]. */
int tw_gemm_describe(const tw_gemm_call *call, char *text, size_t size);

/* The numbers by which tw_gemm chooses its way and its blocks. Each is measured for the instruction set in use or follows
 * from the caches of the machine; which way a product goes decides the order of its sums, so results are the same bits only
 * under the same numbers. */
typedef struct {
    ptrdiff_t l1_bytes, l2_bytes; /* data caches of one core; a b beyond L1 streams past a handful of rows */
    ptrdiff_t direct_bytes;       /* a b of at most so many bytes is read where it lies */
    ptrdiff_t stream_rows;        /* a larger b, too, in slabs of that size, if a has at most so many rows */
    ptrdiff_t stream_bytes;       /* of sums stay in L1 while b streams past */
    ptrdiff_t stream_depth;       /* rows that a slab of b must have */
    ptrdiff_t column_bytes;       /* of a column in a packed block of b: 2048 are 512 rows of float32 */
    ptrdiff_t block_bytes;        /* of such a block, which stays in L2 */
    double vector_ns;             /* one multiply-add of vectors: by this the work of a product is estimated */
    double parallel_ns;           /* less work than this stays on the calling thread */
} tw_gemm_tuning;

/* The numbers in force, for the whole process; and others in their place, from the next product on, or with NULL the
 * library's own again. TW_INVALID: one is not finite, negative, or out of all proportion. */
void tw_get_gemm_tuning(tw_gemm_tuning *tuning);
int tw_set_gemm_tuning(const tw_gemm_tuning *tuning);

/* A matrix b (k, n) that many products share, packed once: tw_pack writes it into tw_pack_bytes (0: no such matrix) of the
 * caller's memory, in the layout that the kernels read. Calls that name it in `packed` skip the packing, at any number of
 * rows of a and of threads, and in any number of calls at once; b then must hold the same values in any layout, or its data
 * be NULL: a call that would do better without the panels cannot, then. b_batch must be 0. TW_FLOAT32 or TW_FLOAT64; for
 * products of float16 and bfloat16, pack b as TW_FLOAT32. The memory serves this process alone; a call of another shape,
 * dtype or instruction set is TW_INVALID. */
size_t tw_pack_bytes(int dtype, ptrdiff_t k, ptrdiff_t n);
int tw_pack(int dtype, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed);

/* The same product by three loops, to compare with; dtype TW_FLOAT32 or TW_FLOAT64. */
int tw_gemm_naive(const tw_gemm_call *call);

/* For y = x w^T + bias, x (m, k), w (n, k), dy (m, n): dx = dy w, dw = dy^T x, dbias (n elements, dbias_step
 * apart) = column sums of dy. A result whose data is NULL is left out. dtype TW_FLOAT32 or TW_FLOAT64. */
int tw_linear_backward(int dtype, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, tw_matrix dy, tw_matrix x, tw_matrix w, tw_matrix dx,
                       tw_matrix dw, void *dbias, ptrdiff_t dbias_step);

/* dw = dy^T x + beta dw, dbias (NULL: left out) = column sums of dy + beta dbias; with beta = 0 they are not read. */
int tw_linear_backward_weights(int dtype, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, tw_matrix dy, tw_matrix x, double beta,
                               tw_matrix dw, void *dbias, ptrdiff_t dbias_step);

/* The CBLAS calls: order 101 row-major, 102 column-major; transpose 111 no, 112 yes, 113 conjugate (= yes). An argument
 * out of its domain is named on standard error and nothing is computed. */
void tw_cblas_sgemm(int order, int trans_a, int trans_b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, float alpha, const float *a,
                    ptrdiff_t lda, const float *b, ptrdiff_t ldb, float beta, float *c, ptrdiff_t ldc);
void tw_cblas_dgemm(int order, int trans_a, int trans_b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, double alpha, const double *a,
                    ptrdiff_t lda, const double *b, ptrdiff_t ldb, double beta, double *c, ptrdiff_t ldc);

/* ---- qgemm: products of 8-bit integers, exact modulo 2^32, the same bits on every instruction set and number of threads */

/* c = (a - a_zero) (b - b_zero), a (m, k) and b (k, n) of TW_INT8 or TW_UINT8, c (m, n) of int32, for every index of the batch
 * axes. The zero points are numbers of int32, one a row of a, one a column of b, `step` apart (0: one for all), or NULL for 0.
 * c must overlap none of the others nor itself. */
typedef struct {
    int a_type, b_type;
    ptrdiff_t m, n, k;
    tw_matrix a, b, c;
    const int32_t *a_zero, *b_zero;
    ptrdiff_t a_zero_step, b_zero_step;
    int batch_axes;
    const ptrdiff_t *batch_shape, *a_batch, *b_batch, *c_batch; /* batch_axes lengths and strides */
    const ptrdiff_t *a_zero_batch, *b_zero_batch;               /* NULL: the same zero points for all */
    const void *packed; /* NULL, or what tw_pack_integer made of b, which then is not read; b_batch must be 0 */
} tw_qgemm_call;

int tw_matmul_integer(const tw_qgemm_call *call);
int tw_matmul_integer_describe(const tw_qgemm_call *call, char *text, size_t size); /* as tw_gemm_describe */

/* A matrix b (k, n) of TW_INT8 or TW_UINT8 packed once for many products, as tw_pack does it. */
size_t tw_pack_integer_bytes(int b_type, ptrdiff_t k, ptrdiff_t n);
int tw_pack_integer(int b_type, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed);

/* ---- maddubs: what x86's vpmaddubsw makes of such a product, on every instruction set: c = a b, a (m, k) of TW_UINT8, b (k, n) of
 * TW_INT8, c of int32, where for even p the sum a[i][p] b[p][j] + a[i][p + 1] b[p + 1][j] is held to -32768 .. 32767 before it is
 * added modulo 2^32. clipped: how many of these sums that changed. c must be apart from a and b. */
int tw_matmul_maddubs(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, tw_matrix a, tw_matrix b, tw_matrix c, int64_t *clipped);

/* ---- weights of 8 or 4 bits under float32 rows: y = activation(x w^T + bias) + residual, for few rows of x, where reading the
 * weights is what takes the time. Element (j, p) of w (n, k) is (values - zeros) * scales[j, p / group_size]. */

typedef struct {
    int bits;             /* 8: values int8 (n, k); 4: (n, (k + 1) / 2) bytes, two's complement, even columns in the low halves */
    ptrdiff_t n, k, group_size; /* groups of 1 or more columns, the last one as short as k makes it; k: one scale a row */
    const void *values;
    const float *scales;  /* (n, groups) */
    const int8_t *zeros;  /* the same, or NULL for none */
} tw_weights;

/* Into tw_pack_weights_bytes (0: no such weights) of the caller's memory, in the layout that the kernels read; it serves this
 * process alone, and any number of calls at once. All arrays of tw_weights are C-ordered; none is read by the first. */
size_t tw_pack_weights_bytes(const tw_weights *w);
int tw_pack_weights(const tw_weights *w, void *packed);

typedef struct {
    int activation;       /* TW_NONE ... */
    ptrdiff_t m, n, k;    /* n and k must be those of the weights */
    tw_matrix x, y;       /* float32 (m, k), (m, n); apart from each other */
    const void *packed;   /* what tw_pack_weights wrote */
    const float *bias;    /* n elements bias_step apart, or NULL */
    ptrdiff_t bias_step;
    tw_matrix residual;   /* float32 (m, n), its data NULL for none. It may be y itself, else be apart */
} tw_weight_only_call;

int tw_weight_only_linear(const tw_weight_only_call *call);
int tw_weight_only_describe(const void *packed, ptrdiff_t m, char *text, size_t size); /* for m rows, as tw_gemm_describe */

/* ---- activation, element by element: y = f(x), dx = dy f'(x). dtype TW_FLOAT32 or TW_FLOAT64; matrices of rows x cols with
 * any strides; y may be x, and dx may be dy or x, where the strides are the same. param: slope of leaky_relu, alpha of elu. */

int tw_activation(int dtype, int activation, double param, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix y);
int tw_activation_backward(int dtype, int activation, double param, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy, tw_matrix x,
                           tw_matrix dx);

/* ---- quantize: between float32 and the integers TW_INT8, TW_UINT8, TW_INT16, TW_UINT16 and, to dequantize, TW_INT32; scale is
 * float32 and zero int32, matrices like x, with strides of zero where one serves many. All arithmetic is float32. */

/* y = round(x / scale), to nearest even, + zero, held to low .. high, which are in the range of the type; NaN gives low. */
int tw_quantize_linear(int type, int32_t low, int32_t high, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix scale,
                       tw_matrix zero, tw_matrix y);
/* y = (x - zero) scale; the difference is taken modulo 2^32 */
int tw_dequantize_linear(int type, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix scale, tw_matrix zero, tw_matrix y);

/* Makes the range from range[0] <= 0 to range[1] >= 0 as wide as float32 x needs; a NaN in x makes one of the two a NaN. */
int tw_widen_range(ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, float *range);
/* The scale and zero point that spread such a range over TW_UINT8: NaN and 0 where it is not finite. */
void tw_dynamic_scale(const float *range, float *scale, int32_t *zero);

/* ---- layers on integers. f = (x - x_zero) (w - zeros)^T (x_scale scales) + bias, x (m, k), w (n, k); y = activation(f) +
 * residual in float32, or round(activation(f) / y_scale) + y_zero, held to the range of y_type. */
typedef struct {
    int x_type; /* TW_INT8 or TW_UINT8; or TW_FLOAT32: each row becomes TW_UINT8 over its own range, and x_* are not read */
    int y_type; /* TW_FLOAT32; or TW_INT8 or TW_UINT8: no residual, and no activation but TW_RELU */
    int activation;
    ptrdiff_t m, n, k;
    tw_matrix x, y;
    const void *packed;   /* w^T (k, n) of TW_INT8, by tw_pack_integer */
    const float *scales;  /* n */
    const int8_t *zeros;  /* n, or NULL */
    const float *bias;    /* n elements bias_step apart, or NULL */
    ptrdiff_t bias_step;
    tw_matrix residual;   /* (m, n); its data is NULL for none. It may be y itself, else be apart */
    float x_scale, y_scale;
    int32_t x_zero, y_zero;
} tw_qlinear_call;

int tw_qlinear(const tw_qlinear_call *call);

/* Numbers, one a row or a column of a matrix, `step` apart (0: one for all); batch: strides along batch axes, NULL for zeros. */
typedef struct {
    const void *data;
    ptrdiff_t step;
    const ptrdiff_t *batch;
} tw_numbers;

/* c = round(f / y_scale) + y_zero, f = (a - a_zero) (b - b_zero) (a_scale b_scale), held to the range of y_type, TW_INT8 or
 * TW_UINT8, which is c's. Scales are float32, y_zero int32: one a row, b_scale one a column. */
typedef struct {
    tw_qgemm_call product;
    int y_type;
    tw_numbers a_scale, b_scale, y_scale, y_zero;
} tw_qlinear_matmul_call;

int tw_qlinear_matmul(const tw_qlinear_matmul_call *call);

/* ---- peak: what this machine can do at most with the instruction sets and the threads in use, as the best of many trials in
 * about `seconds`. FLOP/s of multiply-adds in registers (0 for other dtypes than TW_FLOAT32 and TW_FLOAT64); operations per
 * second, two a product, of dot products of int8 in registers; bytes per second, read and written, of copying bytes/2 into
 * as many others (0 without memory). */

double tw_measure_fma(int dtype, double seconds);
double tw_measure_dot(double seconds);
double tw_measure_copy(size_t bytes, double seconds);

/* ---- softmax of each row (logarithm = 0) or its logarithm (1), and dx from dy and y = the result; y may be x, dx may be
 * dy or y. A row that holds +infinity or NaN, or -infinity alone, becomes NaN. */

int tw_softmax(int dtype, int logarithm, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix y);
int tw_softmax_backward(int dtype, int logarithm, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy, tw_matrix y, tw_matrix dx);

/* ---- layer_norm (centre = 1) and rms_norm (0) of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias, without mean
 * and bias for rms_norm. weight and bias hold cols elements or are NULL. dweight and dbias are sums over the rows. */

int tw_norm(int dtype, int centre, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, const void *weight, const void *bias, double eps,
            tw_matrix y);
int tw_norm_backward(int dtype, int centre, ptrdiff_t rows, ptrdiff_t cols, tw_matrix dy, tw_matrix x, const void *weight,
                     double eps, tw_matrix dx, void *dweight, void *dbias);

/* ---- cross_entropy of rows of logits with class labels, as PyTorch defines it */

enum { TW_REDUCE_NONE = 0, TW_REDUCE_MEAN = 1, TW_REDUCE_SUM = 2 };

typedef struct {
    int dtype, reduction;
    ptrdiff_t rows, classes;
    tw_matrix logits;
    const int64_t *labels; /* one a row, contiguous: 0 .. classes-1, or ignore_index; else TW_INVALID */
    int64_t ignore_index;
    double smoothing;
} tw_cross_entropy;

/* loss: one element, or one a row, `step` apart, with TW_REDUCE_NONE; dloss likewise. dlogits must not be logits. */
int tw_cross_entropy_loss(const tw_cross_entropy *what, void *loss, ptrdiff_t step);
int tw_cross_entropy_gradient(const tw_cross_entropy *what, const void *dloss, ptrdiff_t step, tw_matrix dlogits);

/* ---- dropout: y = x / (1 - p) where Philox4x32-10 says keep, else 0; dx from dy is the same. Element (i, j) has number
 * first + i cols + j in the stream of `seed`. y may be x. */

int tw_dropout(int dtype, double p, uint64_t seed, uint64_t first, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, tw_matrix y);

/* ---- embedding: y[i] = table[indices[i]], and dtable[v] = sum of dy[i] over indices[i] == v, in order. An index outside of
 * 0 .. table_rows-1 is TW_INVALID. */

int tw_embedding(int dtype, ptrdiff_t table_rows, ptrdiff_t cols, tw_matrix table, ptrdiff_t count, const int64_t *indices,
                 tw_matrix y);
int tw_embedding_backward(int dtype, ptrdiff_t count, ptrdiff_t cols, tw_matrix dy, const int64_t *indices, ptrdiff_t table_rows,
                          tw_matrix dtable);

/* ---- optimizer: one step for one array of parameters p with gradients g, in place, by PyTorch's formulas */

typedef struct {
    double lr, momentum, weight_decay;
    int nesterov;
} tw_sgd_settings;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step;  /* number of this step, from 1 */
    int decoupled; /* AdamW */
} tw_adam_settings;

/* b: momentum buffer, zeros at first; without momentum its data is NULL */
int tw_sgd_step(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix p, tw_matrix g, tw_matrix b, const tw_sgd_settings *settings);
int tw_adam_step(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix p, tw_matrix g, tw_matrix m, tw_matrix v,
                 const tw_adam_settings *settings);
/* the sum of squares, in double; and x *= factor */
int tw_sum_squares(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, double *sum);
int tw_scale(int dtype, ptrdiff_t rows, ptrdiff_t cols, tw_matrix x, double factor);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
