#define TW_BITS 64
#include "map.h"
