// The extremes of blocks of 32 values, and the scales that follow from them.
#include <algorithm>

#include <hwy/highway.h>

#include "half-inl.h"

#if defined(NIBBLE_EXTREMES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_EXTREMES_INL_H_
#undef NIBBLE_EXTREMES_INL_H_
#else
#define NIBBLE_EXTREMES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The largest magnitude of 32 values.
static HWY_INLINE float LargestMagnitude32(const float* values) {
  const F32 df;
  auto largest = hn::Abs(hn::LoadU(df, values));
  for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(df, values + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(df, largest));
}

// The first of 32 values whose magnitude is `magnitude`, which one of them has.
static HWY_INLINE float FirstOfMagnitude(const float* values, float magnitude) {
  const F32 df;
  size_t i = 0;
  intptr_t lane = -1;
  for (; lane < 0; i += hn::Lanes(df)) {
    lane = hn::FindFirstTrue(df, hn::Eq(hn::Abs(hn::LoadU(df, values + i)), hn::Set(df, magnitude)));
  }
  return values[i - hn::Lanes(df) + static_cast<size_t>(lane)];
}

// The negative scale of Q4_0 and Q5_0.
static HWY_INLINE float NegativeScale(const float* values, float levels) {
  const float largest = LargestMagnitude32(values);
  return (largest == 0 ? 0 : FirstOfMagnitude(values, largest)) / -levels;
}

// The extremes of four times 32 values, found side by side: one after the other, most lanes would idle while so few
// values are reduced to one.
struct Extremes4 {
  alignas(16) float greatest[4];
  // Negated.
  alignas(16) float least[4];

  HWY_INLINE explicit Extremes4(const float* values) {
    const F32 df;
    VF high[4], low[4];
    for (size_t b = 0; b < 4; ++b) {
      const float* block = values + 32 * b;
      auto most = hn::LoadU(df, block), fewest = most;
      for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
        const auto value = hn::LoadU(df, block + i);
        most = hn::Max(most, value);
        fewest = hn::Min(fewest, value);
      }
      high[b] = most;
      low[b] = hn::Neg(fewest);
    }
    MaxOfEach(high, greatest);
    MaxOfEach(low, least);
  }

 private:
  // One number for each of four vectors.
  static HWY_INLINE void MaxOfEach(const VF (&v)[4], float* to) {
    const F32 df;
    const hn::RepartitionToWide<F32> dw;
    const hn::CappedTag<float, 4> d4;
    // Within 128 bits first: each lane of `all` is the greatest of one vector's four.
    const auto first = hn::Max(hn::InterleaveLower(df, v[0], v[1]), hn::InterleaveUpper(df, v[0], v[1]));
    const auto second = hn::Max(hn::InterleaveLower(df, v[2], v[3]), hn::InterleaveUpper(df, v[2], v[3]));
    const auto wide_first = hn::BitCast(dw, first), wide_second = hn::BitCast(dw, second);
    const auto all = hn::Max(hn::BitCast(df, hn::InterleaveLower(dw, wide_first, wide_second)),
                             hn::BitCast(df, hn::InterleaveUpper(dw, wide_first, wide_second)));
    HWY_ALIGN float lanes[16];
    hn::Store(all, df, lanes);
    auto result = hn::Load(d4, lanes);
    for (size_t i = 4; i < hn::Lanes(df); i += 4) result = hn::Max(result, hn::Load(d4, lanes + i));
    hn::Store(result, d4, to);
  }
};

// The negative scales of four blocks of Q4_0 or Q5_0.
static HWY_INLINE void NegativeScales(const float* values, float levels, float* scales) {
  const hn::CappedTag<float, 4> d4;
  const Extremes4 extremes(values);
  const auto greatest = hn::Load(d4, extremes.greatest), least = hn::Load(d4, extremes.least);
  const auto largest = hn::Max(greatest, least);
  const auto value = hn::IfThenElse(hn::Gt(greatest, least), greatest, hn::Neg(least));
  // A zero of either sign counts as positive.
  const auto is_zero = hn::Eq(largest, hn::Zero(d4));
  hn::StoreU(hn::Div(hn::IfThenZeroElse(is_zero, value), hn::Set(d4, -levels)), d4, scales);
  // Of both signs: the first counts.
  const auto is_both = hn::AndNot(is_zero, hn::Eq(greatest, least));
  if (HWY_UNLIKELY(!hn::AllFalse(d4, is_both))) {
    for (size_t b = 0; b < 4; ++b) scales[b] = NegativeScale(values + 32 * b, levels);
  }
}

// The least and the greatest of 32 values; of two zeros the first is the least.
struct ValueRange {
  float low, high;

  HWY_INLINE explicit ValueRange(const float* values) {
    const F32 df;
    auto least = hn::LoadU(df, values), greatest = least;
    for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
      const auto value = hn::LoadU(df, values + i);
      least = hn::Min(least, value);
      greatest = hn::Max(greatest, value);
    }
    low = hn::GetLane(hn::MinOfLanes(df, least));
    // Zero is added for the sake of the sign, which a scale of zero must not have.
    high = hn::GetLane(hn::MaxOfLanes(df, greatest)) + 0.0f;
    if (low == 0) low = *std::find(values, values + 32, 0.0f);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
