// Read by cffi too: what tilewright.core.native calls once.
#include <stdint.h>

// Adds the door functions to the module object at this address; 0, or -1 with the reason printed.
int tw_fill_door(uintptr_t module);
