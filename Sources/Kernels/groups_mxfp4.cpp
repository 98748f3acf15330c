#include "nibble_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../groups_mxfp4.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "groups-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

constexpr size_t kSize = 32;

// The bit pattern of the largest magnitude; of an infinity or a NaN if there is one.
template <class Values>
static HWY_INLINE int32_t LargestBits(const typename Values::Bits* values) {
  using T = typename Values::Lane;
  const Stored<Values> d;
  const auto* from = reinterpret_cast<const T*>(values);
  const auto mask = hn::Set(d, hwy::LimitsMax<T>());
  auto largest = hn::And(hn::LoadU(d, from), mask);
  for (size_t i = hn::Lanes(d); i < kSize; i += hn::Lanes(d)) {
    largest = hn::Max(largest, hn::And(hn::LoadU(d, from + i), mask));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// The biased exponents of the least powers of two that are not less than a sixth of the magnitudes.
template <class Values>
static HWY_INLINE void ComputeExponents(const int32_t* largest, int32_t* exponents) {
  const F32 df;
  const I32 di;
  for (size_t i = 0; i < kGroupsAtOnce; i += hn::Lanes(df)) {
    const auto magnitude = Values::FromBits(hn::Load(di, largest + i));
    const auto sixth = hn::BitCast(di, Values::Round(hn::Div(magnitude, hn::Set(df, 6.0f))));
    const auto above = hn::ShiftRight<23>(hn::Add(sixth, hn::Set(di, 0x7FFFFF)));
    // Up to 2^-127 the exponent is 0, but that of zero is 127.
    const auto bounded = hn::IfThenElseZero(hn::Gt(sixth, hn::Set(di, 0x400000)), above);
    hn::Store(hn::IfThenElse(hn::Eq(sixth, hn::Zero(di)), hn::Set(di, 127), bounded), di, exponents + i);
  }
}

static HWY_INLINE float PowerOfTwo(int32_t exponent) {
  const auto bits = hn::Set(I32(), exponent == 0 ? 0x400000 : exponent << 23);
  return hn::GetLane(hn::BitCast(F32(), bits));
}

template <class Values>
static HWY_INLINE void ComputeCodes(const typename Values::Bits* values, float scale, uint8_t* codes) {
  // Halfway between two levels the lower one is taken.
  constexpr float kMidpoints[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  const F32 df;
  const I32 di;
  const hn::RebindToUnsigned<F32> du;
  const hn::Rebind<uint8_t, F32> d8;
  for (size_t i = 0; i < kSize; i += hn::Lanes(df)) {
    const auto value = Values::Load(values + i);
    const auto magnitude = hn::Abs(value);
    auto code = hn::Zero(di);
    for (const float midpoint : kMidpoints) {
      const auto above = hn::RebindMask(di, hn::Gt(magnitude, hn::Set(df, midpoint * scale)));
      code = hn::Sub(code, hn::VecFromMask(di, above));
    }
    const auto sign = hn::And(hn::ShiftRight<28>(hn::BitCast(di, value)), hn::Set(di, 8));
    // There is one zero only.
    code = hn::IfThenZeroElse(hn::Eq(code, hn::Zero(di)), hn::Or(code, sign));
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, code)), d8, codes + i);
  }
}

template <class Values>
static size_t QuantizeValues(const void* from, size_t count, uint8_t* packed, uint8_t* scales) {
  const auto* values = static_cast<const typename Values::Bits*>(from);
  HWY_ALIGN int32_t largest[kGroupsAtOnce] = {};
  HWY_ALIGN int32_t exponents[kGroupsAtOnce];
  HWY_ALIGN uint8_t codes[kGroupsAtOnce * kSize];
  for (size_t start = 0; start < count; start += kGroupsAtOnce * kSize) {
    const size_t here = std::min(kGroupsAtOnce, (count - start) / kSize);
    for (size_t g = 0; g < here; ++g) {
      largest[g] = LargestBits<Values>(values + start + g * kSize);
      if (HWY_UNLIKELY(largest[g] >= Values::kInfinity)) return start + g * kSize;
    }
    ComputeExponents<Values>(largest, exponents);
    for (size_t g = 0; g < here; ++g, ++scales) {
      *scales = static_cast<uint8_t>(exponents[g]);
      ComputeCodes<Values>(values + start + g * kSize, PowerOfTwo(exponents[g]), codes + g * kSize);
    }
    PackCodes(4, codes, here * kSize, packed + start / 2);
  }
  return count;
}

static size_t QuantizeMXFP4Groups(const void* values, int32_t type, size_t count, uint8_t* packed,
                                  uint8_t* scales) {
  const auto quantize = type == nibble_bf16  ? QuantizeValues<HalfValues<BF16>>
                        : type == nibble_f16 ? QuantizeValues<HalfValues<F16>>
                                             : QuantizeValues<FloatValues>;
  return quantize(values, count, packed, scales);
}

// The scale is rounded to the type of the values, and then the product.
template <class Values>
static void DequantizeValues(const uint8_t* packed, const uint8_t* scales, size_t count, void* output) {
  HWY_ALIGN static constexpr float kLevels[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  const F32 df;
  auto* to = static_cast<typename Values::Bits*>(output);
  HWY_ALIGN uint8_t codes[kGroupsAtOnce * kSize];
  HWY_ALIGN typename Values::Bits values[16];
  for (size_t start = 0; start < count; start += kGroupsAtOnce * kSize) {
    const size_t here = std::min(kGroupsAtOnce * kSize, count - start);
    UnpackCodes(4, packed + start / 2, here, codes);
    for (size_t i = 0; i < here; i += kSize, to += kSize) {
      const auto scale = Values::Round(hn::Set(df, PowerOfTwo(*scales++)));
      for (size_t k = 0; k < 16; k += hn::Lanes(df)) {
        Values::Store(hn::Mul(hn::Load(df, kLevels + k), scale), values + k);
      }
      const typename Values::Table table(values);
      for (size_t k = 0; k < kSize; k += 16) table.Store(hn::Load(U8(), codes + i + k), to + k);
    }
  }
}

static void DequantizeMXFP4Groups(const uint8_t* packed, const uint8_t* scales, size_t count, void* values,
                                  int32_t type) {
  const auto dequantize = type == nibble_bf16  ? DequantizeValues<HalfValues<BF16>>
                          : type == nibble_f16 ? DequantizeValues<HalfValues<F16>>
                                               : DequantizeValues<FloatValues>;
  dequantize(packed, scales, count, values);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(QuantizeMXFP4Groups);
HWY_EXPORT(DequantizeMXFP4Groups);

extern "C" size_t nibble_quantize_mxfp4_groups(const void* values, int32_t float_type, size_t count,
                                               uint8_t* packed, uint8_t* scales) {
  return HWY_DYNAMIC_DISPATCH(QuantizeMXFP4Groups)(values, float_type, count, packed, scales);
}

extern "C" void nibble_dequantize_mxfp4_groups(const uint8_t* packed, const uint8_t* scales, size_t count,
                                               void* values, int32_t float_type) {
  HWY_DYNAMIC_DISPATCH(DequantizeMXFP4Groups)(packed, scales, count, values, float_type);
}

}  // namespace nibble
#endif
