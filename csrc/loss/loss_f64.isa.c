#define TW_BITS 64
#include "rows.h"
