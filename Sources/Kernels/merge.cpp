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
static HWY_INLINE VF Rounded(VF value) {
  const auto is_nan = hn::RebindMask(I32(), hn::IsNaN(value));
  return Half::ToFloat(hn::IfThenElse(is_nan, Half::FromNaN(value), Half::FromFloat(value)));
}

// Adds the squares of value i to sum i % 8; `count` is a multiple of eight.
static HWY_INLINE void Squares(const float* values, size_t count, double* sums) {
  const F64 dd;
  const hn::Rebind<float, F64> d32;
  const size_t lanes = hn::Lanes(dd);
  for (size_t lane = 0; lane < 8; lane += lanes) {
    auto sum = hn::LoadU(dd, sums + lane);
    for (size_t i = lane; i < count; i += 8) {
      const auto value = hn::PromoteTo(dd, hn::LoadU(d32, values + i));
      // The square of a 32-bit value is exact, so that fusing the addition would change nothing.
      sum = hn::Add(sum, hn::Mul(value, value));
    }
    hn::StoreU(sum, dd, sums + lane);
  }
}

// Where the values of one step go on their way.
struct Steps {
  HWY_ALIGN float wide[kAddedAtOnce];
  HWY_ALIGN float change[kAddedAtOnce];
};

// `count` is a multiple of 16, at most kAddedAtOnce. Returns the first result that is not finite.
template <class From, class To>
static HWY_INLINE size_t AddSome(const typename From::Bits* from, const float* delta,
                                 int32_t delta_type, size_t count, typename To::Bits* to,
                                 Steps* steps, nibble_change_sums* sums) {
  const F32 df;
  const I32 di;
  size_t first = count;
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    const auto value = From::Load(from + i);
    auto change = hn::LoadU(df, delta + i);
    if (delta_type == nibble_bf16) change = Rounded<BF16>(change);
    if (delta_type == nibble_f16) change = Rounded<F16>(change);
    hn::Store(value, df, steps->wide + i);
    hn::Store(change, df, steps->change + i);
    const auto sum = hn::Add(value, change);
    // What became infinite in the output's type, and what was not finite before.
    const auto overflow = To::Store(sum, to + i);
    const auto magnitude = hn::And(hn::BitCast(di, sum), hn::Set(di, 0x7FFFFFFF));
    const auto refused = hn::Or(overflow, hn::Gt(magnitude, hn::Set(di, 0x7F7FFFFF)));
    const intptr_t found = hn::FindFirstTrue(di, refused);
    if (HWY_UNLIKELY(found >= 0 && first == count)) first = i + static_cast<size_t>(found);
  }
  Squares(steps->wide, count, sums->values);
  Squares(steps->change, count, sums->changes);
  return first;
}

template <class From, class To>
static HWY_INLINE size_t AddAll(const void* values, const float* delta, int32_t delta_type,
                                size_t count, void* output, nibble_change_sums* sums) {
  using FromBits = typename From::Bits;
  using ToBits = typename To::Bits;
  const auto* from = static_cast<const FromBits*>(values);
  auto* to = static_cast<ToBits*>(output);
  Steps steps;
  size_t i = 0;
  while (count - i >= 16) {
    const size_t length = std::min(kAddedAtOnce, (count - i) / 16 * 16);
    const size_t first =
        AddSome<From, To>(from + i, delta + i, delta_type, length, to + i, &steps, sums);
    if (HWY_UNLIKELY(first < length)) {
      sums->refused = steps.wide[first] + steps.change[first];
      return i + first;
    }
    i += length;
  }
  if (i == count) return count;
  // The padding adds zeros to the sums.
  HWY_ALIGN FromBits rest[16] = {};
  HWY_ALIGN float rest_delta[16] = {};
  HWY_ALIGN ToBits added[16];
  const size_t length = count - i;
  memcpy(rest, static_cast<const uint8_t*>(values) + i * sizeof(FromBits),
         length * sizeof(FromBits));
  memcpy(rest_delta, delta + i, length * sizeof(float));
  const size_t first = AddSome<From, To>(rest, rest_delta, delta_type, 16, added, &steps, sums);
  if (first < length) {
    sums->refused = steps.wide[first] + steps.change[first];
    return i + first;
  }
  memcpy(static_cast<uint8_t*>(output) + i * sizeof(ToBits), added, length * sizeof(ToBits));
  return count;
}

template <class From>
static HWY_INLINE size_t AddFrom(const void* values, const float* delta, int32_t delta_type,
                                 size_t count, void* output, int32_t type,
                                 nibble_change_sums* sums) {
  if (type == nibble_bf16) {
    return AddAll<From, HalfCodec<BF16>>(values, delta, delta_type, count, output, sums);
  }
  if (type == nibble_f16) {
    return AddAll<From, HalfCodec<F16>>(values, delta, delta_type, count, output, sums);
  }
  return AddAll<From, FloatCodec>(values, delta, delta_type, count, output, sums);
}

static size_t AddDelta(const void* values, int32_t value_type, const float* delta,
                       int32_t delta_type, size_t count, void* output, int32_t output_type,
                       nibble_change_sums* sums) {
  if (value_type == nibble_bf16) {
    return AddFrom<HalfCodec<BF16>>(values, delta, delta_type, count, output, output_type, sums);
  }
  if (value_type == nibble_f16) {
    return AddFrom<HalfCodec<F16>>(values, delta, delta_type, count, output, output_type, sums);
  }
  return AddFrom<FloatCodec>(values, delta, delta_type, count, output, output_type, sums);
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
