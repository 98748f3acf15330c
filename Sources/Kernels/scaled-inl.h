// The codes and scales of the formats in nibble_scaled.h. Each has the code of a value, and the scale of a block:
// what its values are divided by, stored as the scale at a position.
#include "groups-inl.h"

#if defined(NIBBLE_SCALED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCALED_INL_H_
#undef NIBBLE_SCALED_INL_H_
#else
#define NIBBLE_SCALED_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The least distance from 1 in a type: what a scale is where all values are zero.
template <class Values>
struct Least;
template <>
struct Least<HalfValues<BF16>> { static constexpr float kStep = 0x1p-7f; };
template <>
struct Least<HalfValues<F16>> { static constexpr float kStep = 0x1p-10f; };
template <>
struct Least<FloatValues> { static constexpr float kStep = 0x1p-23f; };

// The bits of the nearest number of E4M3; magnitudes are 448 at most. Integer operations and one exact addition.
static HWY_INLINE VI NearestE4M3(VF value) {
  const F32 df;
  const I32 di;
  const auto bits = hn::BitCast(di, value);
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
  const auto odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(di, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(hn::Add(magnitude, hn::Set(di, 0x7FFFF)), odd));
  const auto normal = hn::Sub(rounded, hn::Set(di, (127 - 7) << 3));
  // The last place of 2^14 is 2^-9, that of a subnormal: the addition rounds.
  const auto base = hn::Set(df, 0x1p14f);
  const auto subnormal = hn::Sub(hn::BitCast(di, hn::Add(hn::BitCast(df, magnitude), base)), hn::BitCast(di, base));
  const auto is_small = hn::Lt(magnitude, hn::Set(di, (127 - 6) << 23));
  const auto sign = hn::And(hn::ShiftRight<24>(bits), hn::Set(di, 0x80));
  return hn::Or(hn::IfThenElse(is_small, subnormal, normal), sign);
}

static HWY_INLINE float FirstLane(VI bits) { return hn::GetLane(hn::BitCast(F32(), bits)); }

// The value of positive bits of E4M3.
static inline float ValueOfE4M3(int32_t code) {
  const int32_t exponent = code >> 3;
  const float fraction = static_cast<float>(code & 7) * 0.125f;
  if (exponent == 0) return fraction * 0x1p-6f;
  return (1.0f + fraction) * FirstLane(hn::Set(I32(), (exponent + 127 - 7) << 23));
}

template <class Values>
static HWY_INLINE float Rounded(float value) {
  return hn::GetLane(Values::Round(hn::Set(F32(), value)));
}

struct FP8 {
  static constexpr int kBits = 8;
  static constexpr bool kSearches = false;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    const F32 df;
    // There is a zero point of 0, and so there is one zero only among the quotients.
    const auto quotient = hn::Add(Values::Round(hn::Div(value, scale)), hn::Zero(df));
    return NearestE4M3(hn::Min(hn::Max(quotient, hn::Set(df, -448.0f)), hn::Set(df, 448.0f)));
  }
  // What the values are divided by, and the scale that is stored.
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    return Own<Values>(largest, 448.0f, at, scales);
  }
  template <class Values>
  static HWY_INLINE float Own(float largest, float range, size_t at, void* scales) {
    float scale = Rounded<Values>(largest / range);
    if (scale == 0.0f) scale = Least<Values>::kStep;
    HWY_ALIGN typename Values::Bits stored[16];
    Values::Store(hn::Set(F32(), scale), stored);
    memcpy(static_cast<typename Values::Bits*>(scales) + at, stored, sizeof(stored[0]));
    return scale;
  }
};

struct Int4 {
  static constexpr int kBits = 4;
  static constexpr bool kSearches = false;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    const F32 df;
    const auto quotient = Values::Round(hn::Div(value, scale));
    const auto bounded = hn::Min(hn::Max(quotient, hn::Set(df, -8.0f)), hn::Set(df, 7.0f));
    return hn::Add(hn::NearestInt(bounded), hn::Set(I32(), 8));
  }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    return FP8::Own<Values>(largest, 7.5f, at, scales);
  }
};

static HWY_INLINE VI NearestE2M1(VF quotient) {
  const F32 df;
  const I32 di;
  const auto magnitude = hn::Abs(quotient);
  auto code = hn::Zero(di);
  // Halfway between two numbers the even one is taken.
  for (const float midpoint : {0.25f, 1.25f, 2.5f, 5.0f}) {
    code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(magnitude, hn::Set(df, midpoint)))));
  }
  for (const float midpoint : {0.75f, 1.75f, 3.5f}) {
    code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, hn::Ge(magnitude, hn::Set(df, midpoint)))));
  }
  const auto is_negative = hn::RebindMask(di, hn::Lt(quotient, hn::Zero(df)));
  return hn::Or(code, hn::IfThenElseZero(is_negative, hn::Set(di, 8)));
}

struct MXFP4 {
  static constexpr int kBits = 4;
  static constexpr bool kSearches = false;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) { return NearestE2M1(hn::Div(value, scale)); }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    int32_t bits;
    memcpy(&bits, &largest, 4);
    // From 1.75 on the next power of two is taken; 4 is the greatest power of two that has a code.
    const int32_t exponent = HWY_MAX(((bits + (1 << 21)) >> 23) - 2, 0);
    static_cast<uint8_t*>(scales)[at] = static_cast<uint8_t>(exponent);
    return FirstLane(hn::Set(I32(), exponent == 0 ? 0x400000 : exponent << 23));
  }
};

// The same of the scale under which values come back with the smaller squared error: the power of two by which
// the largest magnitude lies from 4 to below 8, or the one above it.
struct NearestMXFP4 {
  static constexpr int kBits = 4;
  static constexpr bool kSearches = true;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    // The sign is that of the value, of zero too.
    const auto sign = hn::And(hn::ShiftRight<28>(hn::BitCast(I32(), value)), hn::Set(I32(), 8));
    return hn::Or(hn::And(NearestE2M1(hn::Div(value, scale)), hn::Set(I32(), 7)), sign);
  }
  static HWY_INLINE float PowerOf(int32_t exponent) {
    return FirstLane(hn::Set(I32(), exponent == 0 ? 0x400000 : exponent << 23));
  }

  // In whole steps of 2^-11 of the scale: a sum that no order of its terms changes, below 2^29.
  template <class Values>
  static HWY_INLINE int64_t SquaredError(const typename Values::Bits* values, size_t count, int32_t exponent) {
    const F32 df;
    const I32 di;
    const size_t lanes = hn::Lanes(df);
    const auto scale = hn::Set(df, PowerOf(exponent));
    auto sum = hn::Zero(di);
    for (size_t i = 0; i < count; i += lanes) {
      const auto magnitude = hn::Abs(hn::Div(Values::Load(values + i), scale));
      auto level = hn::Zero(df);
      // At a midpoint either neighbour is as near.
      for (const float midpoint : {0.25f, 0.75f, 1.25f, 1.75f}) {
        level = hn::Add(level, hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(df, midpoint)), hn::Set(df, 0.5f)));
      }
      for (const float midpoint : {2.5f, 3.5f}) {
        level = hn::Add(level, hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(df, midpoint)), hn::Set(df, 1.0f)));
      }
      level = hn::Add(level, hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(df, 5.0f)), hn::Set(df, 2.0f)));
      const auto steps = hn::NearestInt(hn::Mul(hn::Sub(magnitude, level), hn::Set(df, 2048.0f)));
      sum = hn::Add(sum, hn::Mul(steps, steps));
    }
    return hn::GetLane(hn::SumOfLanes(di, sum));
  }

  template <class Values>
  static HWY_INLINE float Search(const typename Values::Bits* values, size_t count, float largest, size_t at,
                                 void* scales) {
    int32_t bits;
    memcpy(&bits, &largest, 4);
    const int32_t lower = HWY_MAX((bits >> 23) - 2, 0);
    // Beyond 2^125 six is no number of 32 bits.
    const int32_t upper = HWY_MIN(HWY_MAX((bits >> 23) - 1, 0), 252);
    int32_t exponent = lower;
    if (upper != lower) {
      const int64_t below = SquaredError<Values>(values, count, lower);
      const int64_t above = 4 * SquaredError<Values>(values, count, upper);
      // Where both are exact, a largest code of 3 and not of 6 comes from rounding scales up, as most converters do.
      const bool is_three = below == 0 && (bits & 0x7FFFFF) == 0x400000;
      if (above < below || (above == below && is_three)) exponent = upper;
    }
    static_cast<uint8_t*>(scales)[at] = static_cast<uint8_t>(exponent);
    return PowerOf(exponent);
  }
};

struct NVFP4 {
  static constexpr int kBits = 4;
  static constexpr bool kSearches = false;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) { return NearestE2M1(hn::Div(value, scale)); }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float global_scale, size_t at, void* scales) {
    const float scaled = HWY_MIN(Rounded<Values>(largest / 6.0f) * global_scale, 448.0f);
    int32_t code = hn::GetLane(NearestE4M3(hn::Set(F32(), scaled)));
    // 0.125 stands in for zero.
    if (code == 0) code = 0x20;
    static_cast<uint8_t*>(scales)[at] = static_cast<uint8_t>(code);
    return ValueOfE4M3(code) / global_scale;
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
