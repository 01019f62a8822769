// Says that the row was built: isa.c looks whether this is there.
#include "isa.h"

extern const char TW_NAME(tw_built);
const char TW_NAME(tw_built) = 1;
