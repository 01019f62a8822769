// gemm's microkernels for float.
#define TW_BITS 32
#include "tiles.h"
