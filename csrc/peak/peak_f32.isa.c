// The measured peaks' loops for float.
#define TW_BITS 32
#include "loops.h"
