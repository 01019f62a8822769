// Integer products for other families: the same as tw_matmul_integer, finished by the caller while the sums are in L1.
#ifndef TW_QGEMM_H
#define TW_QGEMM_H

#include "../tilewright.h"

// sums[r * row + s] is element (i + r, j + s) of the product, zero points applied, for r < m and s < n. Each element comes once, on
// any thread, in pieces of a few rows.
typedef void tw_finish(void *context, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n, const int32_t *sums, ptrdiff_t row);

// call->c is not used, and batch_axes must be 0. `finish` must leave tw_workspace alone; so must it and whoever calls this leave
// tw_second_workspace where b is not packed.
int tw_qgemm_finish(const tw_qgemm_call *call, tw_finish *finish, void *context);

// Whether m rows of results, of so many bytes each, are better written past the caches.
int tw_qgemm_writes_past(ptrdiff_t m, ptrdiff_t bytes);

// The same call for one index of the batch axes.
tw_qgemm_call tw_qgemm_at(const tw_qgemm_call *call, ptrdiff_t index);

#endif
