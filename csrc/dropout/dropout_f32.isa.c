#define TW_BITS 32
#include "map.h"
