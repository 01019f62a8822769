// Packing for the integer microkernels; included by tiles.h, once per ISA.
//
//     b (k, n)  ->  panel   word (0, 0) ... word (0, width-1)   word (1, 0) ...     word (p, j) = b[p DEPTH .. +DEPTH-1][j]
//     a (m, k)  ->  rows of words, where a tile cannot read a as it lies
//
// Words of bytes are those of b as int8, an unsigned one shifted by 128; words of 16 bits hold either kind as it is. Beyond k and n
// there are zeros, which add nothing.

#define FLIP 0x80808080u // a byte of the other sign

// `have` elements, `step` bytes apart, as one word.
INLINE uint32_t gather(const int is_unsigned, const int have, const uint8_t *from, ptrdiff_t step) {
    uint32_t word = 0;
    UNROLL for (int i = 0; i < have; i++) {
        const uint32_t byte = from[i * step], wide = is_unsigned ? byte : (uint32_t)(int8_t)byte & 0xffff;
        word |= (DEPTH == 4 ? byte : wide) << i * (32 / DEPTH);
    }
    return word;
}

// One row of words of a panel; have and the strides are constants where the loop is to become vectors.
INLINE void pack_words(const int is_unsigned, const int have, ptrdiff_t n, const uint8_t *b, ptrdiff_t row, ptrdiff_t col,
                       uint32_t *to) {
    const uint32_t flip = DEPTH == 4 && is_unsigned ? FLIP >> 8 * (DEPTH - have) : 0;
    for (ptrdiff_t j = 0; j < n; j++) to[j] = gather(is_unsigned, have, b + j * col, row) ^ flip;
}

INLINE void pack_panel(const int is_unsigned, ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const uint8_t *b, ptrdiff_t row,
                       ptrdiff_t col, uint32_t *panel) {
    for (; k > 0; k -= DEPTH, b += DEPTH * row, panel += width) {
        if (k < DEPTH)
            switch (k) {
            case 1: pack_words(is_unsigned, 1, n, b, row, col, panel); break;
            case 2: pack_words(is_unsigned, 2, n, b, row, col, panel); break;
            default: pack_words(is_unsigned, DEPTH - 1, n, b, row, col, panel);
            }
        else if (col == 1)
            pack_words(is_unsigned, DEPTH, n, b, row, 1, panel);
        else if (row == 1)
            pack_words(is_unsigned, DEPTH, n, b, 1, col, panel);
        else
            pack_words(is_unsigned, DEPTH, n, b, row, col, panel);
        for (ptrdiff_t j = n; j < width; j++) panel[j] = 0;
    }
}

static void pack_b(int is_unsigned, ptrdiff_t words, ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const void *b, ptrdiff_t row,
                   ptrdiff_t col, uint32_t *panel, int32_t *sums) {
    if (is_unsigned)
        pack_panel(1, k, n, width, b, row, col, panel);
    else
        pack_panel(0, k, n, width, b, row, col, panel);
    const ptrdiff_t filled = (k + DEPTH - 1) / DEPTH;
    memset(panel + filled * width, 0, (size_t)((words - filled) * width) * sizeof *panel);
    const wvec ones = w_set1(DEPTH == 4 ? 0x01010101 : 0x00010001);
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        wvec sum = {0};
        for (ptrdiff_t p = 0; p < filled; p++) sum = w_dot(sum, ones, w_load(panel + p * width + j));
        w_store(sums + j, sum);
    }
}

enum { SWAP = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? DEPTH - 1 : 0 }; // words are numbers: their first element is the lowest

INLINE void pack_row(const int is_unsigned, ptrdiff_t k, ptrdiff_t words, const uint8_t *a, ptrdiff_t col, int flip,
                     element *restrict to) {
    for (ptrdiff_t p = 0; p < k; p++)
        to[p ^ SWAP] = (element)(is_unsigned || DEPTH == 4 ? a[p * col] ^ flip : (int8_t)a[p * col]);
    for (ptrdiff_t p = k; p < words * DEPTH; p++) to[p ^ SWAP] = 0;
}

static void pack_a(int is_unsigned, ptrdiff_t m, ptrdiff_t k, ptrdiff_t words, const void *a_, ptrdiff_t row, ptrdiff_t col, int flip,
                   uint32_t *words_of_a) {
    const uint8_t *a = a_;
    for (ptrdiff_t i = 0; i < m; i++, a += row) {
        element *to = (element *)(words_of_a + i * words);
        if (is_unsigned)
            col == 1 ? pack_row(1, k, words, a, 1, flip, to) : pack_row(1, k, words, a, col, flip, to);
        else
            col == 1 ? pack_row(0, k, words, a, 1, flip, to) : pack_row(0, k, words, a, col, flip, to);
    }
}
