#define TW_BITS 64
#include "maps.h"
