#include <string.h>

#include <algorithm>
#include <limits>

#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../statistics.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

using F64 = hn::CappedTag<double, 8>;

// Values widened to 32 bits at a time; a multiple of the eight sums.
constexpr size_t kWidenedAtOnce = 1024;

struct Counts {
  uint64_t zeros, nans, infinities;
};

// `values` has room for a whole vector; lanes from `count` on are not counted.
static HWY_INLINE Counts CountKinds(const float* values, size_t count) {
  const F32 df;
  const I32 di;
  Counts counts = {0, 0, 0};
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    const auto magnitude =
        hn::And(hn::BitCast(di, hn::Load(df, values + i)), hn::Set(di, 0x7FFFFFFF));
    const auto counted = hn::FirstN(di, count - i);
    const auto infinity = hn::Set(di, 0x7F800000);
    counts.zeros += hn::CountTrue(di, hn::And(counted, hn::Eq(magnitude, hn::Zero(di))));
    counts.infinities += hn::CountTrue(di, hn::And(counted, hn::Eq(magnitude, infinity)));
    counts.nans += hn::CountTrue(di, hn::And(counted, hn::Gt(magnitude, infinity)));
  }
  return counts;
}

// Replaces what is not finite by `substitute`.
static HWY_INLINE VF FiniteOr(VF value, float substitute) {
  const F32 df;
  const I32 di;
  const auto magnitude = hn::And(hn::BitCast(di, value), hn::Set(di, 0x7FFFFFFF));
  const auto finite = hn::RebindMask(df, hn::Lt(magnitude, hn::Set(di, 0x7F800000)));
  return hn::IfThenElse(finite, value, hn::Set(df, substitute));
}

static HWY_INLINE void Extremes(const float* values, size_t count, nibble_statistics_result* r) {
  const F32 df;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  auto low = hn::Set(df, kInfinity);
  auto high = hn::Set(df, -kInfinity);
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    // Adding zero turns -0 into 0, so that the order of the two cannot show.
    const auto value = hn::Add(hn::Load(df, values + i), hn::Zero(df));
    low = hn::Min(low, FiniteOr(value, kInfinity));
    high = hn::Max(high, FiniteOr(value, -kInfinity));
  }
  // Not MinOfLanes: where it is emulated, it starts from the largest finite value.
  HWY_ALIGN float lows[16], highs[16];
  hn::Store(low, df, lows);
  hn::Store(high, df, highs);
  for (size_t i = 0; i < hn::Lanes(df); ++i) {
    r->minimum = std::min(r->minimum, lows[i]);
    r->maximum = std::max(r->maximum, highs[i]);
  }
}

// `count` is a multiple of eight.
static HWY_INLINE void Sums(const float* values, size_t count, nibble_statistics_result* r) {
  const F64 dd;
  const hn::Rebind<float, F64> d32;
  const hn::RebindToSigned<decltype(d32)> di;
  const size_t lanes = hn::Lanes(dd);
  for (size_t lane = 0; lane < 8; lane += lanes) {
    auto sum = hn::LoadU(dd, r->sums + lane);
    auto square = hn::LoadU(dd, r->squares + lane);
    for (size_t i = lane; i < count; i += 8) {
      const auto bits = hn::BitCast(di, hn::LoadU(d32, values + i));
      const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
      const auto finite = hn::Lt(magnitude, hn::Set(di, 0x7F800000));
      const auto value = hn::PromoteTo(dd, hn::BitCast(d32, hn::IfThenElseZero(finite, bits)));
      sum = hn::Add(sum, value);
      // The square of a 32-bit value is exact, so that fusing the addition would change nothing.
      square = hn::Add(square, hn::Mul(value, value));
    }
    hn::StoreU(sum, dd, r->sums + lane);
    hn::StoreU(square, dd, r->squares + lane);
  }
}

static void Statistics(const void* values, int32_t type, size_t count,
                       nibble_statistics_result* r) {
  const F32 df;
  const size_t bytes = type == nibble_f32 ? 4 : 2;
  HWY_ALIGN uint16_t narrow[kWidenedAtOnce];
  HWY_ALIGN float wide[kWidenedAtOnce];
  for (size_t start = 0; start < count; start += kWidenedAtOnce) {
    const size_t length = std::min(kWidenedAtOnce, count - start);
    const size_t padded = (length + 15) / 16 * 16;
    const void* from = static_cast<const uint8_t*>(values) + start * bytes;
    if (type == nibble_f32) {
      memset(wide + length, 0, (padded - length) * sizeof(float));
      memcpy(wide, from, length * bytes);
    } else {
      memset(narrow + length, 0, (padded - length) * sizeof(uint16_t));
      memcpy(narrow, from, length * bytes);
      for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
        const auto bits = LoadHalves(narrow + i);
        hn::Store(type == nibble_bf16 ? BF16::ToFloat(bits) : F16::ToFloat(bits), df, wide + i);
      }
    }
    const Counts counts = CountKinds(wide, length);
    r->zeros += counts.zeros;
    r->nans += counts.nans;
    r->infinities += counts.infinities;
    // The padding adds zeros to the sums; for the extremes it repeats a value.
    for (size_t i = length; i < padded; ++i) wide[i] = 0;
    Sums(wide, padded, r);
    for (size_t i = length; i < padded; ++i) wide[i] = wide[0];
    Extremes(wide, padded, r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(Statistics);

extern "C" void nibble_statistics(const void* values, int32_t float_type, size_t count,
                                  nibble_statistics_result* result) {
  *result = {};
  result->minimum = std::numeric_limits<float>::infinity();
  result->maximum = -std::numeric_limits<float>::infinity();
  HWY_DYNAMIC_DISPATCH(Statistics)(values, float_type, count, result);
}

}  // namespace nibble
#endif
