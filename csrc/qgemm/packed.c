// tw_pack_integer: panels of b and the sums of its columns, by as many threads as there are.
#include "packed.h"

#include "../isa/isa.h"

TW_INT_KERNELS(tw_qgemm_kernels, tw_qgemm)

enum { LINE = 64 }; // bytes of a cache line: no load of a whole vector of a panel crosses two
#define WORD_NS 0.5 // packing one word, by the slowest way

typedef struct {
    const tw_qgemm_kernels *kernels; // says the instruction set, with which the layout goes
    ptrdiff_t k, n;
    int type;
} header;

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }
static char *first_line(const void *packed) { return (char *)round_up((ptrdiff_t)packed, LINE); }

tw_int_panels tw_int_layout(const tw_qgemm_kernels *g, ptrdiff_t k, ptrdiff_t n, const void *packed) {
    tw_int_panels b = {.kernels = g, .k = k, .n = n, .words = round_up((k + g->depth - 1) / g->depth, g->step), .columns = round_up(n, g->lanes)};
    b.width = b.columns <= g->alone * g->lanes ? b.columns : g->vectors * g->lanes;
    const int left_over = b.columns > b.width && b.columns % b.width == g->lanes && b.width == 3 * g->lanes;
    b.units = b.width ? (b.columns + b.width - 1) / b.width - left_over : 0;
    b.sums = (int32_t *)(first_line(packed) + LINE);
    b.panels = (uint32_t *)b.sums + round_up(b.columns, LINE / 4);
    return b;
}

size_t tw_int_bytes(const tw_qgemm_kernels *g, ptrdiff_t k, ptrdiff_t n) {
    const size_t words = (((size_t)k + g->depth - 1) / g->depth + g->step - 1) / g->step * g->step;
    const size_t columns = ((size_t)n + 15) / 16 * 16;
    size_t bytes;
    if (k < 0 || n < 0 || __builtin_mul_overflow(columns, words + 1, &bytes) || __builtin_mul_overflow(bytes, 4, &bytes) ||
        __builtin_add_overflow(bytes, 2 * LINE, &bytes))
        return 0;
    return bytes;
}

typedef struct {
    const tw_int_panels *to;
    tw_matrix b;
    int is_unsigned;
} job;

static void pack_range(void *context, ptrdiff_t begin, ptrdiff_t end) {
    const job *p = context;
    const tw_int_panels *to = p->to;
    for (ptrdiff_t j = tw_int_unit(to, begin), width; j < tw_int_unit(to, end); j += width) {
        width = tw_int_width(to, j);
        const ptrdiff_t n = to->n - j < width ? to->n - j : width;
        to->kernels->pack_b(p->is_unsigned, to->words, to->k, n, width, (const char *)p->b.data + j * p->b.col, p->b.row, p->b.col,
                            to->panels + j * to->words, to->sums + j);
    }
}

void tw_int_pack(const tw_qgemm_kernels *g, int b_type, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed) {
    const tw_int_panels to = tw_int_layout(g, k, n, packed);
    *(header *)first_line(packed) = (header){g, k, n, b_type};
    if (n > 0)
        tw_parallel_ranges(to.units, 1, (double)to.columns * (double)to.words * WORD_NS, pack_range,
                           &(job){&to, b, b_type == TW_UINT8});
}

int tw_int_fits(const tw_qgemm_kernels *g, const tw_qgemm_call *call) {
    const header *h = (const header *)first_line(call->packed);
    return h->kernels == g && h->k == call->k && h->n == call->n && h->type == call->b_type;
}

size_t tw_pack_integer_bytes(int b_type, ptrdiff_t k, ptrdiff_t n) {
    return tw_is_int8(b_type) ? tw_int_bytes(TW_INT_PICK(tw_qgemm), k, n) : 0;
}

int tw_pack_integer(int b_type, ptrdiff_t k, ptrdiff_t n, tw_matrix b, void *packed) {
    if (!tw_pack_integer_bytes(b_type, k, n))
        return TW_INVALID;
    tw_int_pack(TW_INT_PICK(tw_qgemm), b_type, k, n, b, packed);
    return TW_OK;
}
