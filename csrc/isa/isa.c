// Which instruction set runs: the most capable one that was built and that the CPU and the operating system (XGETBV)
// both support. TILEWRIGHT_ISA asks for a lower one.
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define XCR0_AVX 0x6u // the system saves xmm and ymm
#define XCR0_AVX512 0xe6u // and zmm and the masks
#define HAS(word, bits) (((word) & (unsigned)(bits)) == (unsigned)(bits))

static unsigned xcr0(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int supported(const char *isa) {
    unsigned a, b, c, d, b7 = 0, c7, d7;
    if (!strcmp(isa, "baseline"))
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !HAS(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C) || !HAS(xcr0(), XCR0_AVX))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !HAS(b7, bit_AVX2))
        return 0;
    if (!strcmp(isa, "avx2"))
        return 1;
    return HAS(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) && HAS(xcr0(), XCR0_AVX512);
}
#else
// aarch64: Advanced SIMD is part of the base architecture, HWCAP has nothing to add until a row needs more.
static int supported(const char *isa) {
    (void)isa;
    return 1;
}
#endif

#define NAME_(isa, unused) #isa,
static const char *const names[] = {TW_ISAS(NAME_, 0)};
enum { ROWS = sizeof names / sizeof *names };

int tw_isa_index = ROWS - 1;
static char complaint[200];

__attribute__((constructor)) static void choose(void) {
    int best = 0;
    while (!supported(names[best]))
        best++;
    tw_isa_index = best;
    const char *asked = getenv("TILEWRIGHT_ISA");
    if (!asked || !*asked)
        return;
    for (int row = 0; row < ROWS; row++)
        if (!strcmp(asked, names[row])) {
            if (row >= best)
                tw_isa_index = row;
            else
                snprintf(complaint, sizeof complaint, "TILEWRIGHT_ISA=%s, but this machine supports at most %s", asked,
                         names[best]);
            return;
        }
    int n = snprintf(complaint, sizeof complaint, "TILEWRIGHT_ISA=%.40s is unknown here; this build has", asked);
    for (int row = 0; row < ROWS && n < (int)sizeof complaint; row++)
        n += snprintf(complaint + n, sizeof complaint - n, " %s", names[row]);
}

const char *tw_isa(void) { return names[tw_isa_index]; }

const char *tw_isa_error(void) { return *complaint ? complaint : NULL; }

const char *tw_isa_name(int row) {
    for (int i = 0; i < ROWS; i++)
        if (supported(names[i]) && row-- == 0)
            return names[i];
    return NULL;
}
