#define TW_BITS 32
#include "maps.h"
