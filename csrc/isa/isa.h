// Instruction sets: which ones this build holds, which one this process uses, and how kernels are named by them.
//
// A file *.isa.c is compiled once for each row of TW_ISAS with that row's flags (csrc/build_c.py) and -DTW_ISA=<row>. It
// exports one const table of function pointers, `const tw_foo_kernels TW_NAME(tw_foo) = {...};`. The ISA-free side
// writes TW_KERNELS(tw_foo_kernels, tw_foo) once and then says TW_PICK(tw_foo)->function(...).
//
// Products of small integers distinguish more instruction sets: TW_INT_ISAS. A file *.int.isa.c is compiled once for each of its
// rows, and TW_INT_KERNELS, TW_INT_PICK are the same for them. A row is named after the one of TW_ISAS that goes with it, and
// what it has more. It is left out where the compiler is too old for its flags: its tables are NULL then.
//
// Adding an ISA: one row here, its flags in csrc/build_c.py, its test in isa.c, its vectors in vec.h (dot.h).
#ifndef TW_ISA_H
#define TW_ISA_H

#include "../tilewright.h"

// most capable first; X(isa, ...)
#if defined(__x86_64__)
#define TW_ISAS(X, ...) X(avx512, __VA_ARGS__) X(avx2, __VA_ARGS__) X(baseline, __VA_ARGS__)
#define TW_INT_ISAS(X, ...) \
    X(avx512_amx, __VA_ARGS__) X(avx512_vnni, __VA_ARGS__) X(avx512, __VA_ARGS__) X(avx2_vnni, __VA_ARGS__) \
    X(avx2, __VA_ARGS__) X(baseline, __VA_ARGS__)
#elif defined(__aarch64__)
#define TW_ISAS(X, ...) X(neon, __VA_ARGS__)
#define TW_INT_ISAS(X, ...) X(neon_i8mm, __VA_ARGS__) X(neon_dotprod, __VA_ARGS__) X(neon, __VA_ARGS__)
#else
#define TW_ISAS(X, ...) X(baseline, __VA_ARGS__)
#define TW_INT_ISAS(X, ...) X(baseline, __VA_ARGS__)
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

#define TW_INT_KERNELS_DECLARE_(isa, type, name) extern const type name##_##isa __attribute__((weak));
#define TW_INT_KERNELS(type, name) \
    TW_INT_ISAS(TW_INT_KERNELS_DECLARE_, type, name) \
    static const type *const name##_by_isa[] = {TW_INT_ISAS(TW_KERNELS_ROW_, type, name)};
#define TW_INT_PICK(name) (name##_by_isa[tw_int8_isa_index])

// Rows of TW_ISAS and TW_INT_ISAS in use; settled when the library is loaded, never changed after.
extern int tw_isa_index, tw_int8_isa_index;

#endif
