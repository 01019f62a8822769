// Packing for the microkernels of gemm: a k x n matrix of any strides becomes panels of `width` columns, one after the
// other, each k rows of `width` elements, zeros beyond n. Included by tiles.h, once per element type and ISA.
//
//     panel 0: (0, 0) ... (0, width-1)  (1, 0) ... (k-1, width-1)   panel 1: (0, width) ...

// r[i][j] <-> r[j][i], by swapping blocks of 1, 2, 4, 8 lanes between vectors
#if defined __AVX512F__
#define VECTOR_LANES (512 / TW_BITS)
#elif defined __AVX2__
#define VECTOR_LANES (256 / TW_BITS)
#else
#define VECTOR_LANES (128 / TW_BITS)
#endif
#if VECTOR_LANES == 16
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s), F(8, s), F(9, s), F(10, s), \
    F(11, s), F(12, s), F(13, s), F(14, s), F(15, s)
#elif VECTOR_LANES == 8
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s)
#elif VECTOR_LANES == 4
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s)
#else
#define ALL_LANES(F, s) F(0, s), F(1, s)
#endif
#define LOW(lane, s) ((lane) & (s) ? LANES + (lane) - (s) : (lane))
#define HIGH(lane, s) ((lane) & (s) ? LANES + (lane) : ((lane) + (s)) % LANES)
#define SWAP_BLOCKS(s) \
    UNROLL for (int i = 0; i < ((s) < LANES ? LANES : 0); i++) if (!(i & (s))) { \
        const vec low = __builtin_shufflevector(r[i], r[(i + (s)) % LANES], ALL_LANES(LOW, s)); \
        r[(i + (s)) % LANES] = __builtin_shufflevector(r[i], r[(i + (s)) % LANES], ALL_LANES(HIGH, s)); \
        r[i] = low; \
    }

INLINE void transpose(vec *r) {
    SWAP_BLOCKS(1)
    SWAP_BLOCKS(2)
    SWAP_BLOCKS(4)
    SWAP_BLOCKS(8)
}

// src(p, j) = src[p * row + j]: row by row through all panels, as the caller's memory lies
static void pack_rows(ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const real *src, ptrdiff_t row, real *dst) {
    for (ptrdiff_t p = 0; p < k; p++, src += row, dst += width) {
        ptrdiff_t j = 0;
        if (width == MR)
            for (; j + MR <= n; j += MR) memcpy(dst + j * k, src + j, MR * sizeof(real));
        else if (width == NR)
            for (; j + NR <= n; j += NR)
                UNROLL for (int v = 0; v < NV; v++) v_store(dst + j * k + v * LANES, v_load(src + j + v * LANES));
        for (; j < n; j += width) // a panel cut short, or one as wide as the matrix
            for (ptrdiff_t i = 0; i < width; i += LANES) {
                const ptrdiff_t left = n - j - i, lanes = width - i < LANES ? width - i : LANES;
                v_store_n(dst + j * k + i, left <= 0 ? (vec){0} : v_load_n(src + j + i, left < LANES ? left : LANES), lanes);
            }
    }
}

// src(p, j) = src[p + j * col]
static void pack_columns(ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const real *src, ptrdiff_t col, real *dst) {
    for (ptrdiff_t j = 0; j < width; j += LANES)
        for (ptrdiff_t p = 0; p < k; p += LANES) {
            const ptrdiff_t depth = k - p < LANES ? k - p : LANES, lanes = width - j < LANES ? width - j : LANES;
            const real *from = src + p + j * col;
            real *to = dst + p * width + j;
            vec r[LANES];
            if (depth == LANES && n - j >= LANES)
                UNROLL for (int i = 0; i < LANES; i++) r[i] = v_load(from + i * col);
            else
                for (int i = 0; i < LANES; i++) r[i] = j + i < n ? v_load_n(from + i * col, depth) : (vec){0};
            transpose(r);
            if (depth == LANES && lanes == LANES)
                UNROLL for (int i = 0; i < LANES; i++) v_store(to + i * width, r[i]);
            else
                for (int i = 0; i < depth; i++) v_store_n(to + i * width, r[i], lanes);
        }
}

static void pack(ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const void *src_, ptrdiff_t row, ptrdiff_t col, void *dst_) {
    const real *src = src_;
    real *dst = dst_;
    if (col == 1) {
        pack_rows(k, n, width, src, row, dst);
        return;
    }
    for (; n > 0; n -= width, src += width * col, dst += k * width)
        if (row == 1)
            pack_columns(k, n < width ? n : width, width, src, col, dst);
        else
            for (ptrdiff_t p = 0; p < k; p++)
                for (ptrdiff_t j = 0; j < width; j++) dst[p * width + j] = j < n ? src[p * row + j * col] : 0;
}
