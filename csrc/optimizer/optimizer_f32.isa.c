#define TW_BITS 32
#include "steps.h"
