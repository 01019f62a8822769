/* What the parts of the runtime share among themselves. */
#ifndef EMULATE_INTERNAL_H
#define EMULATE_INTERNAL_H

#include "emulate.h"
#include "fibre.h"

#define HIDDEN __attribute__((visibility("hidden")))

/* Records a fault as the launch's, unless one is recorded already; the caller then leaves for the scheduler. */
HIDDEN void set_fault(Launch *, const Fault *);
/* A fault at the instruction at which a thread waits. */
HIDDEN void fault_in(Launch *, const Thread *, u32 kind, u32 why, u64 address, u64 size);
/* Goes back to the scheduler; returns when it is this thread's turn again. */
HIDDEN void leave(Thread *);
HIDDEN u32 tick(Launch *);  /* ends the present time and gives it */

HIDDEN bool open_barriers(Launch *);  /* those that are full; whether there were any */

HIDDEN void trace_block(Launch *);
HIDDEN void trace_access(Thread *, u32 space, u64 address, u32 size, u32 site);

/* memory.c, for collectives: as emu_shared_load, but gives NULL where the access is a fault (and records it) */
HIDDEN const u8 *try_shared_load(Thread *, u32 address, u32 size, u32 site);

#endif
