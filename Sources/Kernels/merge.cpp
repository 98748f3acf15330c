#include <string.h>

#include <algorithm>

#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../merge.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

using F64 = hn::CappedTag<double, 8>;

// Values widened to 32 bits at a time; a multiple of the eight sums.
constexpr size_t kAddedAtOnce = 1024;

template <class Half>
static HWY_INLINE VI RoundToHalf(VF value) {
  const auto is_nan = hn::RebindMask(I32(), hn::IsNaN(value));
  return hn::IfThenElse(is_nan, Half::FromNaN(value), Half::FromFloat(value));
}

// Widens `length` values; those up to the next multiple of 16 become zero.
static HWY_INLINE void Widen(const void* values, int32_t type, size_t length, size_t padded,
                             uint16_t* narrow, float* wide) {
  const F32 df;
  if (type == nibble_f32) {
    memset(wide + length, 0, (padded - length) * sizeof(float));
    memcpy(wide, values, length * sizeof(float));
    return;
  }
  memset(narrow + length, 0, (padded - length) * sizeof(uint16_t));
  memcpy(narrow, values, length * sizeof(uint16_t));
  for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
    const auto bits = LoadHalves(narrow + i);
    hn::Store(type == nibble_bf16 ? BF16::ToFloat(bits) : F16::ToFloat(bits), df, wide + i);
  }
}

template <class Half>
static HWY_INLINE void RoundAll(size_t padded, float* values) {
  const F32 df;
  for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
    hn::Store(Half::ToFloat(RoundToHalf<Half>(hn::Load(df, values + i))), df, values + i);
  }
}

// Adds the squares of value i to sum i % 8.
static HWY_INLINE void Squares(const float* values, size_t padded, double* sums) {
  const F64 dd;
  const hn::Rebind<float, F64> d32;
  const size_t lanes = hn::Lanes(dd);
  for (size_t lane = 0; lane < 8; lane += lanes) {
    auto sum = hn::LoadU(dd, sums + lane);
    for (size_t i = lane; i < padded; i += 8) {
      const auto value = hn::PromoteTo(dd, hn::LoadU(d32, values + i));
      // The square of a 32-bit value is exact, so that fusing the addition would change nothing.
      sum = hn::Add(sum, hn::Mul(value, value));
    }
    hn::StoreU(sum, dd, sums + lane);
  }
}

// wide += delta, rounded into `narrow`; the first result that is not finite, or `padded`.
template <class Half>
static HWY_INLINE size_t SumToHalf(const float* delta, size_t padded, float* wide,
                                   uint16_t* narrow) {
  const F32 df;
  const I32 di;
  size_t first = padded;
  for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
    const auto sum = hn::Add(hn::Load(df, wide + i), hn::Load(df, delta + i));
    hn::Store(sum, df, wide + i);
    const auto bits = RoundToHalf<Half>(sum);
    StoreHalves(bits, narrow + i);
    const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFF));
    const intptr_t found = hn::FindFirstTrue(di, hn::Gt(magnitude, hn::Set(di, Half::kInfinity - 1)));
    if (HWY_UNLIKELY(found >= 0 && first == padded)) first = i + static_cast<size_t>(found);
  }
  return first;
}

static HWY_INLINE size_t SumToFloat(const float* delta, size_t padded, float* wide) {
  const F32 df;
  const I32 di;
  size_t first = padded;
  for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
    const auto sum = hn::Add(hn::Load(df, wide + i), hn::Load(df, delta + i));
    hn::Store(sum, df, wide + i);
    const auto magnitude = hn::And(hn::BitCast(di, sum), hn::Set(di, 0x7FFFFFFF));
    const intptr_t found = hn::FindFirstTrue(di, hn::Gt(magnitude, hn::Set(di, 0x7F7FFFFF)));
    if (HWY_UNLIKELY(found >= 0 && first == padded)) first = i + static_cast<size_t>(found);
  }
  return first;
}

static size_t AddDelta(const void* values, int32_t value_type, const float* delta,
                       int32_t delta_type, size_t count, void* output, int32_t output_type,
                       nibble_change_sums* sums) {
  const size_t in_bytes = value_type == nibble_f32 ? 4 : 2;
  const size_t out_bytes = output_type == nibble_f32 ? 4 : 2;
  HWY_ALIGN uint16_t narrow[kAddedAtOnce];
  HWY_ALIGN float wide[kAddedAtOnce];
  HWY_ALIGN float change[kAddedAtOnce];
  for (size_t start = 0; start < count; start += kAddedAtOnce) {
    const size_t length = std::min(kAddedAtOnce, count - start);
    const size_t padded = (length + 15) / 16 * 16;
    Widen(static_cast<const uint8_t*>(values) + start * in_bytes, value_type, length, padded,
          narrow, wide);
    memset(change + length, 0, (padded - length) * sizeof(float));
    memcpy(change, delta + start, length * sizeof(float));
    if (delta_type == nibble_bf16) RoundAll<BF16>(padded, change);
    if (delta_type == nibble_f16) RoundAll<F16>(padded, change);
    Squares(wide, padded, sums->values);
    Squares(change, padded, sums->changes);
    auto* to = static_cast<uint8_t*>(output) + start * out_bytes;
    size_t first;
    if (output_type == nibble_f32) {
      first = SumToFloat(change, padded, wide);
      memcpy(to, wide, length * out_bytes);
    } else {
      first = output_type == nibble_bf16 ? SumToHalf<BF16>(change, padded, wide, narrow)
                                         : SumToHalf<F16>(change, padded, wide, narrow);
      memcpy(to, narrow, length * out_bytes);
    }
    if (HWY_UNLIKELY(first < length)) {
      sums->refused = wide[first];
      return start + first;
    }
  }
  return count;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(AddDelta);

extern "C" size_t nibble_add_delta(const void* values, int32_t value_type, const float* delta,
                                   int32_t delta_type, size_t count, void* output,
                                   int32_t output_type, nibble_change_sums* sums) {
  *sums = {};
  return HWY_DYNAMIC_DISPATCH(AddDelta)(values, value_type, delta, delta_type, count, output,
                                        output_type, sums);
}

}  // namespace nibble
#endif
