#include "nibble_xxhash.h"
