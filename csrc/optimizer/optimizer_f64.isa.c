#define TW_BITS 64
#include "steps.h"
