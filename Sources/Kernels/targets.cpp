#include <hwy/highway.h>
#include <hwy/targets.h>

#include "nibble_kernels.h"

namespace {

// The targets that were compiled and that this machine can run. Better ones have lower bits.
int64_t Available() {
  static const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return targets;
}

int64_t TargetAt(int32_t index) {
  int64_t targets = Available();
  for (int32_t i = 0; i < index; ++i) targets &= targets - 1;
  return targets & -targets;
}

}  // namespace

int32_t nibble_kernels_target_count(void) {
  return static_cast<int32_t>(hwy::PopCount(static_cast<uint64_t>(Available())));
}

const char *nibble_kernels_target_name(int32_t index) { return hwy::TargetName(TargetAt(index)); }

void nibble_kernels_select_target(int32_t index) {
  const int64_t all = Available();
  hwy::SetSupportedTargetsForTest(index < 0 ? all : TargetAt(index));
}

const char *nibble_kernels_target(void) {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);
}
