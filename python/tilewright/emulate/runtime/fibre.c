/* The switch saves what a called function must keep and nothing else: about 15 instructions. Elsewhere than on x86-64
   and aarch64, ucontext does the same with two system calls. */
#define _GNU_SOURCE
#include "fibre.h"

#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)

__asm__(".text\n"
        ".globl emu_switch\n"
        ".hidden emu_switch\n"
        ".type emu_switch, @function\n"
        "emu_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size emu_switch, .-emu_switch\n"
        ".globl fibre_start\n"
        ".hidden fibre_start\n"
        ".type fibre_start, @function\n"
        "fibre_start:\n"
        "  movq %r12, %rdi\n"
        "  callq *%r13\n"
        "  ud2\n"
        ".size fibre_start, .-fibre_start\n");
__attribute__((visibility("hidden"))) void fibre_start(void);

void *emu_fibre(char *stack, unsigned long size, void (*run)(void *), void *argument) {
    uint64_t *top = (uint64_t *)((uintptr_t)(stack + size) & ~(uintptr_t)15);
    *--top = 0;
    *--top = 0;                      /* the stack is aligned here, as before a call */
    *--top = (uint64_t)fibre_start;  /* where ret goes */
    *--top = 0;                      /* rbp */
    *--top = 0;                      /* rbx */
    *--top = (uint64_t)argument;     /* r12 */
    *--top = (uint64_t)run;          /* r13 */
    *--top = 0;                      /* r14 */
    *--top = 0;                      /* r15 */
    return top;
}

#elif defined(__aarch64__) && !defined(EMU_UCONTEXT)

__asm__(".text\n"
        ".globl emu_switch\n"
        ".hidden emu_switch\n"
        ".type emu_switch, %function\n"
        "emu_switch:\n"
        "  sub sp, sp, #160\n"
        "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
        "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
        "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "  mov x9, sp\n"
        "  str x9, [x0]\n"
        "  mov sp, x1\n"
        "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
        "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
        "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "  add sp, sp, #160\n"
        "  ret\n"
        ".size emu_switch, .-emu_switch\n"
        ".globl fibre_start\n"
        ".hidden fibre_start\n"
        ".type fibre_start, %function\n"
        "fibre_start:\n"
        "  mov x0, x19\n"
        "  blr x20\n"
        "  brk #1\n"
        ".size fibre_start, .-fibre_start\n");
__attribute__((visibility("hidden"))) void fibre_start(void);

void *emu_fibre(char *stack, unsigned long size, void (*run)(void *), void *argument) {
    uint64_t *top = (uint64_t *)((uintptr_t)(stack + size) & ~(uintptr_t)15) - 20;
    for (int i = 0; i < 20; i++) top[i] = 0;
    top[0] = (uint64_t)argument;      /* x19 */
    top[1] = (uint64_t)run;           /* x20 */
    top[11] = (uint64_t)fibre_start;  /* x30, where ret goes */
    return top;
}

#else

#include <ucontext.h>

/* A context lies at the bottom of its fibre's stack; that of the scheduler is made by the first switch away from it. */
typedef struct {
    ucontext_t context;
    void (*run)(void *);
    void *argument;
} Fibre;

static void start(unsigned high, unsigned low) {
    Fibre *self = (Fibre *)(uintptr_t)((uint64_t)high << 32 | low);
    self->run(self->argument);
    abort();
}

void *emu_fibre(char *stack, unsigned long size, void (*run)(void *), void *argument) {
    Fibre *self = (Fibre *)(((uintptr_t)stack + 63) & ~(uintptr_t)63);
    getcontext(&self->context);
    self->context.uc_stack.ss_sp = (char *)(self + 1);
    self->context.uc_stack.ss_size = size - (unsigned long)((char *)(self + 1) - stack);
    self->context.uc_link = NULL;
    self->run = run;
    self->argument = argument;
    makecontext(&self->context, (void (*)(void))start, 2, (unsigned)((uint64_t)(uintptr_t)self >> 32),
                (unsigned)(uintptr_t)self);
    return self;
}

void emu_switch(void **from, void *to) {
    Fibre here;  /* lives on the stack that is left, as long as nobody goes on there */
    *from = &here;
    swapcontext(&here.context, &((Fibre *)to)->context);
}

#endif
