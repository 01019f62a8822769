/* Fibres: stacks that one thread of the host switches between. */
#ifndef FIBRE_H
#define FIBRE_H

/* Prepares a stack of `size` bytes so that the first switch to it calls run(argument), which must not return. */
void *emu_fibre(char *stack, unsigned long size, void (*run)(void *), void *argument);
/* Goes on at `to`; what was running can be gone on with at *from. */
void emu_switch(void **from, void *to);

#endif
