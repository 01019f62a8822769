// gemm's microkernels for double.
#define TW_BITS 64
#include "tiles.h"
