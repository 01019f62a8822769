// The measured peaks' loops for double.
#define TW_BITS 64
#include "loops.h"
