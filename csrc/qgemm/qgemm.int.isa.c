#include "tiles.h"
