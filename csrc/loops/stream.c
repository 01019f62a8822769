// A line that is written past the caches need not be read first, but it is not there for whoever reads it next, and
// such stores are slower than those into a cache. relu on one thread and on two, GB/s read and written, through the caches
// | past them (Zen 5, 32 MiB of last-level cache; the medians of nine, each after another 64 MiB had passed through):
//
//     operands together    4 MiB      16 MiB     32 MiB     64 MiB     128 MiB    512 MiB
//     one thread          121 | 79   112 | 80    63 | 64    49 | 57    39 | 47    38 | 47
//     two threads         208 | 157  196 | 158  210 | 161  123 | 123   83 | 99    74 | 99
//     one, in place       229 | 55   227 | 51   193 | 52    79 | 45    69 | 41    57 | 37
//
// So: never in place; on one thread, which cannot keep enough reads under way, from about the size of the last-level cache
// on (relu of 2048 x 2048, 32 MiB in all, beside other programs: 8.0 elements/ns past the caches, 6.2 through them); on
// several from twice that size on (the same: 8.8 past them, 11.4 through them).
#include "stream.h"

#include <pthread.h>
#include <stdio.h>

#define USUAL_CACHE (32 << 20) // where the system does not tell

static double cache; // bytes
static pthread_once_t once = PTHREAD_ONCE_INIT;

// sysfs alone tells what the CPUs that share the cache have: sysconf adds up the caches of all of a processor's dies.
static void read_cache(void) {
    cache = USUAL_CACHE;
    for (int level = 3; level > 1; level--) {
        char name[64];
        long kib = 0;
        snprintf(name, sizeof name, "/sys/devices/system/cpu/cpu0/cache/index%d/size", level);
        FILE *file = fopen(name, "r");
        if (file && fscanf(file, "%ldK", &kib) == 1 && kib > 0) {
            cache = (double)kib * 1024;
            level = 0;
        }
        if (file) fclose(file);
    }
}

int tw_wants_stream(int operands, unsigned written, const tw_matrix *operand, double bytes) {
    if (bytes < (1 << 20)) return 0; // no cache is so small: most calls need not ask
    pthread_once(&once, read_cache);
    if (bytes < cache * (tw_get_num_threads() == 1 ? 0.75 : 2)) return 0;
    for (int o = 0; o < operands; o++)
        for (int other = 0; other < operands; other++)
            if (written >> o & 1 && other != o && operand[other].data == operand[o].data) return 0;
    return 1;
}
