// Growing buffers a thread: for packed panels, for copies made by those who then call what packs, and for those who call them.
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20) // packed panels on 2 MiB pages: a page walk less for every 4 KiB

struct buffer {
    void *data;
    size_t bytes;
};

enum { FIRST, SECOND, THIRD, BUFFERS };

static _Thread_local struct buffer mine[BUFFERS];
static pthread_key_t at_exit[BUFFERS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_keys(void) {
    for (int i = 0; i < BUFFERS; i++) pthread_key_create(&at_exit[i], free);
}

static void *grow(int which, size_t bytes) {
    struct buffer *buffer = &mine[which];
    if (bytes <= buffer->bytes) return buffer->data;
    pthread_once(&once, make_keys);
    pthread_setspecific(at_exit[which], NULL);
    free(buffer->data);
    *buffer = (struct buffer){NULL, 0};
    const size_t align = bytes < HUGE_PAGE / 2 ? 64 : HUGE_PAGE;
    if (bytes > SIZE_MAX - align) return NULL;
    bytes = (bytes + align - 1) / align * align;
    void *data = aligned_alloc(align, bytes);
    if (!data || pthread_setspecific(at_exit[which], data)) {
        free(data);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) madvise(data, bytes, MADV_HUGEPAGE);
#endif
    *buffer = (struct buffer){data, bytes};
    return data;
}

void *tw_workspace(size_t bytes) { return grow(FIRST, bytes); }

void *tw_second_workspace(size_t bytes) { return grow(SECOND, bytes); }

void *tw_third_workspace(size_t bytes) { return grow(THIRD, bytes); }
