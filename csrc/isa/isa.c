// Which instruction sets run: the most capable ones that were built and that the CPU and the operating system (XGETBV)
// both support. TILEWRIGHT_ISA asks for lower ones, by a name of either table.
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- what this machine has

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define XCR0_AVX 0x6u // the system saves xmm and ymm
#define XCR0_AVX512 0xe6u // and zmm and the masks
#define XCR0_AMX 0x60000u // and the registers of the matrix unit
#define AVX_VNNI (1u << 4) // leaf 7.1, eax
#define AMX_INT8 (3u << 24) // leaf 7, edx: with AMX-TILE
#define HAS(word, bits) (((word) & (unsigned)(bits)) == (unsigned)(bits))

static unsigned xcr0(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); // volatile: only where there is one, behind its test
    return low;
}

// Linux lets a process use the matrix unit once it has asked: its registers make signal frames 8 KiB larger.
static int may_use_amx(void) {
#ifdef __linux__
    enum { REQUEST = 0x1023, TILE_DATA = 18 };  // ARCH_REQ_XCOMP_PERM, of asm/prctl.h since Linux 5.16
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return 0;
#endif
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
    if (!strcmp(isa, "avx2_vnni"))
        return __get_cpuid_count(7, 1, &a, &b, &c, &d) && HAS(a, AVX_VNNI);
    if (!HAS(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) || !HAS(xcr0(), XCR0_AVX512))
        return 0;
    if (!strcmp(isa, "avx512"))
        return 1;
    return HAS(c7, bit_AVX512VNNI) &&
           (!strcmp(isa, "avx512_vnni") || (HAS(d7, AMX_INT8) && HAS(xcr0(), XCR0_AMX) && may_use_amx()));
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#define DOTPROD (1ul << 20) // of AT_HWCAP; Advanced SIMD is part of the base architecture
#define I8MM (1ul << 13)    // of AT_HWCAP2

static int supported(const char *isa) {
    return !strcmp(isa, "neon") || (!strcmp(isa, "neon_dotprod") && getauxval(AT_HWCAP) & DOTPROD) ||
           (!strcmp(isa, "neon_i8mm") && getauxval(AT_HWCAP2) & I8MM);
}
#else
static int supported(const char *isa) { return !strcmp(isa, "neon") || !strcmp(isa, "baseline"); }
#endif

// ---- the tables

#define NAME_(isa, unused) #isa,
static const char *const names[] = {TW_ISAS(NAME_, 0)};
static const char *const int_names[] = {TW_INT_ISAS(NAME_, 0)};
enum { ROWS = sizeof names / sizeof *names, INT_ROWS = sizeof int_names / sizeof *int_names };

#define DECLARE_BUILT_(isa, unused) extern const char tw_built_##isa __attribute__((weak));
#define BUILT_(isa, unused) &tw_built_##isa,
TW_INT_ISAS(DECLARE_BUILT_, 0)
static const char *const built[] = {TW_INT_ISAS(BUILT_, 0)};

static int has_int(int row) { return built[row] && supported(int_names[row]); }

int tw_isa_index = ROWS - 1, tw_int8_isa_index = INT_ROWS - 1;
static char complaint[200];

// The row of TW_ISAS that goes with one of TW_INT_ISAS: avx512 with avx512_vnni.
static int row_of(const char *int_name) {
    int row = 0;
    while (strncmp(int_name, names[row], strcspn(int_name, "_")))
        row++;
    return row;
}

static void use(int int_row) {
    tw_int8_isa_index = int_row;
    tw_isa_index = row_of(int_names[int_row]);
}

__attribute__((constructor)) static void choose(void) {
    int best = 0;
    while (!has_int(best))
        best++;
    use(best);
    const char *asked = getenv("TILEWRIGHT_ISA");
    if (!asked || !*asked)
        return;
    for (int row = 0; row < INT_ROWS; row++)
        if (!strcmp(asked, int_names[row])) {
            if (has_int(row))
                use(row);
            else
                snprintf(complaint, sizeof complaint, "TILEWRIGHT_ISA=%s, but this machine supports at most %s", asked,
                         int_names[best]);
            return;
        }
    int n = snprintf(complaint, sizeof complaint, "TILEWRIGHT_ISA=%.40s is unknown here; this build has", asked);
    for (int row = 0; row < INT_ROWS && n < (int)sizeof complaint; row++)
        if (built[row])
            n += snprintf(complaint + n, sizeof complaint - n, " %s", int_names[row]);
}

const char *tw_isa(void) { return names[tw_isa_index]; }
const char *tw_int8_isa(void) { return int_names[tw_int8_isa_index]; }

const char *tw_isa_error(void) { return *complaint ? complaint : NULL; }

const char *tw_isa_name(int row) {
    for (int i = 0; i < ROWS; i++)
        if (supported(names[i]) && row-- == 0)
            return names[i];
    return NULL;
}

const char *tw_int8_isa_name(int row) {
    for (int i = 0; i < INT_ROWS; i++)
        if (has_int(i) && row-- == 0)
            return int_names[i];
    return NULL;
}
