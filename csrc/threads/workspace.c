/* One growing buffer a thread, for packed panels. */
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20) /* packed panels on 2 MiB pages: a page walk less for every 4 KiB */

struct buffer {
    void *data;
    size_t bytes;
};

static _Thread_local struct buffer mine;
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_key(void) { pthread_key_create(&at_exit, free); }

void *tw_workspace(size_t bytes)
{
    if (bytes <= mine.bytes)
        return mine.data;
    pthread_once(&once, make_key);
    pthread_setspecific(at_exit, NULL);
    free(mine.data);
    mine = (struct buffer){NULL, 0};
    size_t align = bytes < HUGE_PAGE / 2 ? 64 : HUGE_PAGE;
    if (bytes > SIZE_MAX - align)
        return NULL;
    bytes = (bytes + align - 1) / align * align;
    void *data = aligned_alloc(align, bytes);
    if (!data || pthread_setspecific(at_exit, data)) {
        free(data);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE)
        madvise(data, bytes, MADV_HUGEPAGE);
#endif
    mine = (struct buffer){data, bytes};
    return data;
}
