// Loaded before glibc: counts the blocks larger than a page that a process asks for, whoever asks.
#include <stdatomic.h>
#include <stddef.h>

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static atomic_long blocks;

long blocks_so_far(void) { return atomic_load(&blocks); }

static size_t seen(size_t bytes) {
    if (bytes > 4096)
        atomic_fetch_add(&blocks, 1);
    return bytes;
}

void *malloc(size_t bytes) { return __libc_malloc(seen(bytes)); }
void *realloc(void *old, size_t bytes) { return __libc_realloc(old, seen(bytes)); }
void *memalign(size_t align, size_t bytes) { return __libc_memalign(align, seen(bytes)); }
void *aligned_alloc(size_t align, size_t bytes) { return __libc_memalign(align, seen(bytes)); }

void *calloc(size_t count, size_t bytes) {
    seen(count * bytes);
    return __libc_calloc(count, bytes);
}

int posix_memalign(void **block, size_t align, size_t bytes) {
    *block = __libc_memalign(align, seen(bytes));
    return *block ? 0 : 12; // ENOMEM
}
