#include <algorithm>

#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../nested.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

constexpr size_t kNestedBlock = 256;

// `differences` and `positions` have room for whole vectors.
static HWY_INLINE float LargestMagnitude(const float* absmax, size_t count, float offset,
                                         float* differences) {
  const F32 df;
  for (size_t i = 0; i < count; ++i) differences[i] = absmax[i] - offset;
  for (size_t i = count; i < (count + 15) / 16 * 16; ++i) differences[i] = 0;
  auto largest = hn::Zero(df);
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    largest = hn::Max(largest, hn::Abs(hn::Load(df, differences + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(df, largest));
}

static HWY_INLINE void Positions(const float* differences, size_t count, float reciprocal,
                                 int32_t* positions) {
  const F32 df;
  const I32 di;
  const auto one = hn::Set(df, 1.0f);
  const auto half = hn::Set(df, 0.5f);
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    const auto scaled = hn::Mul(hn::Load(df, differences + i), hn::Set(df, reciprocal));
    // Zero times an infinite reciprocal has position 0.
    const auto ordered = hn::IfThenElse(hn::IsNaN(scaled), hn::Neg(one), scaled);
    const auto clamped = hn::Min(hn::Max(ordered, hn::Neg(one)), one);
    const auto halved = hn::Mul(hn::Add(clamped, one), half);
    const auto position = hn::Add(hn::Mul(halved, hn::Set(df, 65535.0f)), half);
    hn::Store(hn::ConvertTo(di, position), di, positions + i);
  }
}

static void QuantizeAbsmax(const float* absmax, size_t count, float offset,
                           const uint8_t* codes_by_position, uint8_t* codes, float* nested) {
  HWY_ALIGN float differences[kNestedBlock];
  HWY_ALIGN int32_t positions[kNestedBlock];
  for (size_t start = 0; start < count; start += kNestedBlock) {
    const size_t length = std::min(kNestedBlock, count - start);
    const float largest = LargestMagnitude(absmax + start, length, offset, differences);
    nested[start / kNestedBlock] = largest;
    if (largest == 0) {
      std::fill_n(codes + start, length, uint8_t{0});
      continue;
    }
    Positions(differences, length, 1.0f / largest, positions);
    for (size_t i = 0; i < length; ++i) codes[start + i] = codes_by_position[positions[i]];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(QuantizeAbsmax);

extern "C" void nibble_quantize_absmax(const float* absmax, size_t count, float offset,
                                       const uint8_t* codes_by_position, uint8_t* codes,
                                       float* nested_absmax) {
  HWY_DYNAMIC_DISPATCH(QuantizeAbsmax)
  (absmax, count, offset, codes_by_position, codes, nested_absmax);
}

}  // namespace nibble
#endif
