#include "nibble_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../groups_quantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "groups-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// What is known of the groups that are treated together, one in each lane.
struct GroupStatistics {
  // Bit patterns of the extremes.
  HWY_ALIGN int32_t low[kGroupsAtOnce];
  HWY_ALIGN int32_t high[kGroupsAtOnce];
  // As they are stored, and what the codes are computed with.
  HWY_ALIGN float scales[kGroupsAtOnce];
  HWY_ALIGN float biases[kGroupsAtOnce];
  HWY_ALIGN float divisors[kGroupsAtOnce];
};

// An order-preserving map of sign and magnitude to whole numbers, and its inverse: -0.0 is -1.
template <class D, class V>
static HWY_INLINE V Key(D d, V bits) {
  using T = hn::TFromD<D>;
  const auto sign = hn::BroadcastSignBit(bits);
  return hn::Xor(bits, hn::And(sign, hn::Set(d, hwy::LimitsMax<T>())));
}

// False if a value is not finite. As whole numbers the extremes do not depend on how instruction sets
// compare NaN.
template <class Values>
static HWY_INLINE bool FindExtremes(const typename Values::Bits* values, size_t size, int32_t* low,
                                    int32_t* high) {
  using T = typename Values::Lane;
  const Stored<Values> d;
  const auto* from = reinterpret_cast<const T*>(values);
  auto least = Key(d, hn::LoadU(d, from)), greatest = least;
  for (size_t i = hn::Lanes(d); i < size; i += hn::Lanes(d)) {
    const auto key = Key(d, hn::LoadU(d, from + i));
    least = hn::Min(least, key);
    greatest = hn::Max(greatest, key);
  }
  const T lowest = hn::GetLane(hn::MinOfLanes(d, least));
  const T highest = hn::GetLane(hn::MaxOfLanes(d, greatest));
  *low = lowest < 0 ? lowest ^ hwy::LimitsMax<T>() : lowest;
  *high = highest < 0 ? highest ^ hwy::LimitsMax<T>() : highest;
  return highest < Values::kInfinity && lowest > ~Values::kInfinity;
}

// Scales and biases of all groups. Returns the index of the first whose range is infinite, or kGroupsAtOnce.
template <class Values>
static HWY_INLINE size_t ComputeScales(float largest_code, GroupStatistics& group) {
  const F32 df;
  const I32 di;
  const auto zero = hn::Zero(df);
  for (size_t i = 0; i < kGroupsAtOnce; i += hn::Lanes(df)) {
    const auto low = Values::FromBits(hn::Load(di, group.low + i));
    const auto high = Values::FromBits(hn::Load(di, group.high + i));
    const auto range = hn::Sub(high, low);
    const intptr_t refused = hn::FindFirstTrue(df, hn::IsInf(range));
    if (HWY_UNLIKELY(refused >= 0)) return i + static_cast<size_t>(refused);
    const auto step = hn::Max(hn::Div(range, hn::Set(df, largest_code)), hn::Set(df, 1e-7f));
    // The extreme of greater magnitude becomes a multiple of the scale.
    const auto is_low = hn::Gt(hn::Abs(low), hn::Abs(high));
    const auto edge = hn::IfThenElse(is_low, low, high);
    const auto rough = hn::IfThenElse(is_low, step, hn::Neg(step));
    const auto multiple = hn::Round(hn::Div(edge, rough));
    const auto is_zero = hn::Eq(multiple, zero);
    const auto scale = hn::IfThenElse(is_zero, rough, hn::Div(edge, multiple));
    hn::Store(scale, df, group.scales + i);
    hn::Store(hn::IfThenZeroElse(is_zero, edge), df, group.biases + i);
    // The scale of equal values vanishes where they are great. Their distance from the bias is zero.
    hn::Store(hn::IfThenElse(hn::Eq(scale, zero), hn::Set(df, 1.0f), scale), df, group.divisors + i);
  }
  return kGroupsAtOnce;
}

template <class Values>
static HWY_INLINE void ComputeCodes(const typename Values::Bits* values, size_t size, float bias,
                                    float divisor, float largest_code, uint8_t* codes) {
  const F32 df;
  const hn::RebindToUnsigned<F32> du;
  const hn::Rebind<uint8_t, F32> d8;
  const auto offset = hn::Set(df, bias), scale = hn::Set(df, divisor), largest = hn::Set(df, largest_code);
  for (size_t i = 0; i < size; i += hn::Lanes(df)) {
    const auto exact = hn::Div(hn::Sub(Values::Load(values + i), offset), scale);
    const auto bounded = hn::Min(hn::Max(exact, hn::Zero(df)), largest);
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, hn::NearestInt(bounded))), d8, codes + i);
  }
}

template <class Values>
static void StoreFactors(const float* factors, size_t count, typename Values::Bits* to) {
  HWY_ALIGN typename Values::Bits stored[kGroupsAtOnce];
  for (size_t i = 0; i < kGroupsAtOnce; i += hn::Lanes(F32())) {
    Values::Store(hn::Load(F32(), factors + i), stored + i);
  }
  memcpy(to, stored, count * sizeof(stored[0]));
}

template <class Values>
static size_t QuantizeValues(const void* from, size_t count, int32_t bits, size_t size, uint8_t* packed,
                             void* scale_bytes, void* bias_bytes) {
  using Bits = typename Values::Bits;
  const auto* values = static_cast<const Bits*>(from);
  auto* scales = static_cast<Bits*>(scale_bytes);
  auto* biases = static_cast<Bits*>(bias_bytes);
  const float largest_code = static_cast<float>((1 << bits) - 1);
  const size_t groups = count / size;
  GroupStatistics group = {};
  HWY_ALIGN uint8_t codes[kCodesAtOnce];
  for (size_t first = 0; first < groups; first += kGroupsAtOnce) {
    const size_t here = std::min(kGroupsAtOnce, groups - first);
    size_t refused = here;
    for (size_t g = 0; g < here; ++g) {
      if (!FindExtremes<Values>(values + (first + g) * size, size, group.low + g, group.high + g)) {
        refused = g;
        break;
      }
    }
    refused = std::min(refused, ComputeScales<Values>(largest_code, group));
    if (refused < here) return (first + refused) * size;
    for (size_t g = 0; g < here; ++g) {
      ComputeCodes<Values>(values + (first + g) * size, size, group.biases[g], group.divisors[g], largest_code,
                           codes + g * size);
    }
    PackCodes(bits, codes, here * size, packed + first * size * static_cast<size_t>(bits) / 8);
    StoreFactors<Values>(group.scales, here, scales + first);
    StoreFactors<Values>(group.biases, here, biases + first);
  }
  return count;
}

static size_t QuantizeGroups(const void* values, int32_t type, size_t count, int32_t bits, size_t size,
                             uint8_t* packed, void* scales, void* biases) {
  const auto quantize = type == nibble_bf16  ? QuantizeValues<HalfValues<BF16>>
                        : type == nibble_f16 ? QuantizeValues<HalfValues<F16>>
                                             : QuantizeValues<FloatValues>;
  return quantize(values, count, bits, size, packed, scales, biases);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(QuantizeGroups);

extern "C" size_t nibble_quantize_groups(const void* values, int32_t float_type, size_t count, int32_t bits,
                                         size_t group_size, uint8_t* packed, void* scales, void* biases) {
  return HWY_DYNAMIC_DISPATCH(QuantizeGroups)
  (values, float_type, count, bits, group_size, packed, scales, biases);
}

}  // namespace nibble
#endif
