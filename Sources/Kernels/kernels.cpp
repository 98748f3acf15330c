#include "nibble_kernels.h"
#include <hwy/highway.h>
#include <hwy/targets.h>
extern "C" const char *nibble_kernels_target(void) { return hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()); }
