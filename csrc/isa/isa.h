// Instruction sets: which ones this build holds, which one this process uses, and how kernels are named by them.
//
// A file *.isa.c is compiled once for each row of TW_ISAS with that row's flags (csrc/build_c.py) and -DTW_ISA=<row>. It
// exports one const table of function pointers, `const tw_foo_kernels TW_NAME(tw_foo) = {...};`. The ISA-free side
// writes TW_KERNELS(tw_foo_kernels, tw_foo) once and then says TW_PICK(tw_foo)->function(...).
//
// Adding an ISA: one row here, its flags in csrc/build_c.py, its test in isa.c, its vectors in vec.h.
#ifndef TW_ISA_H
#define TW_ISA_H

#include "../tilewright.h"

// most capable first; X(isa, ...)
#if defined(__x86_64__)
#define TW_ISAS(X, ...) X(avx512, __VA_ARGS__) X(avx2, __VA_ARGS__) X(baseline, __VA_ARGS__)
#elif defined(__aarch64__)
#define TW_ISAS(X, ...) X(neon, __VA_ARGS__)
#else
#define TW_ISAS(X, ...) X(baseline, __VA_ARGS__)
#endif

#define TW_PASTE_(x, isa) x##_##isa
#define TW_PASTE(x, isa) TW_PASTE_(x, isa)
#define TW_NAME(x) TW_PASTE(x, TW_ISA) // tw_foo -> tw_foo_avx2

#define TW_KERNELS_DECLARE_(isa, type, name) extern const type name##_##isa;
#define TW_KERNELS_ROW_(isa, type, name) &name##_##isa,
#define TW_KERNELS(type, name) \
    TW_ISAS(TW_KERNELS_DECLARE_, type, name) \
    static const type *const name##_by_isa[] = {TW_ISAS(TW_KERNELS_ROW_, type, name)};
#define TW_PICK(name) (name##_by_isa[tw_isa_index])

extern int tw_isa_index; // row of TW_ISAS in use; settled when the library is loaded, never changed after

#endif
