#define TW_BITS 32
#include "rows.h"
