// Searched scales of a byte, for codes that are E2M1.
#include "scaled-search-inl.h"

#if defined(NIBBLE_SCALED_E2M1_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCALED_E2M1_INL_H_
#undef NIBBLE_SCALED_E2M1_INL_H_
#else
#define NIBBLE_SCALED_E2M1_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The level of E2M1 next to a magnitude of 6 at most.
static HWY_INLINE VF LevelOfE2M1(VF magnitude) {
  const F32 df;
  const I32 di;
  // Two levels to each power of two from 1 on, and as far apart below it: the sum with 2^22 times it rounds.
  const auto above = hn::BitCast(di, hn::Max(magnitude, Splat(1.0f)));
  const auto power = hn::BitCast(df, hn::And(above, hn::Set(di, 0x7F800000)));
  const auto base = hn::Mul(power, Splat(0x1p22f));
  return hn::Sub(hn::Add(magnitude, base), base);
}

// The error of magnitudes with the levels of E2M1.
static HWY_INLINE VF ErrorOfE2M1(const Groups& groups, size_t g, VF scale) {
  const F32 df;
  // Beyond these everything is zero, or nothing is.
  const auto own = hn::Min(hn::Max(scale, Splat(0x1p-60f)), Splat(0x1p60f));
  const auto inverse = hn::Div(Splat(1.0f), own);
  auto error = hn::Zero(df);
  for (size_t i = g; i < groups.size * kLanes; i += kLanes) {
    const auto value = hn::Abs(Load(groups.values + i));
    const auto level = LevelOfE2M1(hn::Min(hn::Mul(value, inverse), Splat(6.0f)));
    const auto difference = hn::Sub(value, hn::Mul(level, own));
    error = hn::Add(error, hn::Mul(hn::Mul(Load(groups.weights + i), difference), difference));
  }
  return error;
}

// E2M1 with scales of a byte: the one that is chosen without a search, and some around it.
template <class Scales>
struct SearchedE2M1 {
  static constexpr int kBits = 4;

  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) { return NearestE2M1(hn::Div(value, scale)); }

  template <class Values>
  static HWY_INLINE void Search(const Groups& groups, size_t count, float global_scale, bool, size_t at, void* scales,
                                float* divisors) {
    const F32 df;
    const Scales all(global_scale, Greatest<Values>::kExponent);
    int32_t best[kLanes], middle[kLanes];
    float least[kLanes];
    for (size_t b = 0; b < kLanes; ++b) {
      best[b] = all.template Plain<Values>(groups.largest[b], middle[b]);
      divisors[b] = all.Value(best[b]);
    }
    HWY_ALIGN float own[kLanes], errors[kLanes];
    for (int k = Scales::kFirst - 1; k <= Scales::kLast; ++k) {
      int32_t tried[kLanes];
      for (size_t b = 0; b < kLanes; ++b) {
        tried[b] = k < Scales::kFirst ? best[b] : all.Bounded(middle[b] + k);
        own[b] = all.Value(tried[b]) * groups.down[b];
      }
      for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) Store(ErrorOfE2M1(groups, g, Load(own + g)), errors + g);
      for (size_t b = 0; b < kLanes; ++b) {
        if (k >= Scales::kFirst && !(errors[b] < least[b])) continue;
        least[b] = errors[b];
        best[b] = tried[b];
      }
    }
    for (size_t b = 0; b < count; ++b) {
      divisors[b] = all.Value(best[b]);
      static_cast<uint8_t*>(scales)[at + b] = static_cast<uint8_t>(best[b]);
    }
  }
};

// From two codes below the scale that makes the largest magnitude a 6 to six above, which make it a 4.
struct ScalesOfNVFP4 {
  static constexpr int kFirst = -2, kLast = 6;
  float values[127];
  float global_scale;

  ScalesOfNVFP4(float global, int32_t) : global_scale(global) {
    for (int32_t code = 0; code < 127; ++code) values[code] = ValueOfE4M3(code) / global;
  }

  template <class Values>
  HWY_INLINE int32_t Plain(float largest, int32_t& middle) const {
    uint8_t code;
    NVFP4::Scale<Values>(largest, global_scale, 0, &code);
    // In place of zero the least that is none.
    middle = code;
    if (code == 0x20 && Rounded<Values>(largest / 6.0f) * global_scale < 0x1p-9f) middle = 1;
    return code;
  }
  HWY_INLINE int32_t Bounded(int32_t code) const { return HWY_MIN(HWY_MAX(code, 1), 126); }
  HWY_INLINE float Value(int32_t code) const { return values[code]; }
};

// The powers of two by which the largest magnitude lies from 2 to below 32.
struct ScalesOfMXFP4 {
  static constexpr int kFirst = -2, kLast = 1;
  int32_t greatest;

  ScalesOfMXFP4(float, int32_t greatest) : greatest(greatest) {}

  template <class Values>
  HWY_INLINE int32_t Plain(float largest, int32_t& middle) const {
    uint8_t exponent;
    MXFP4::Scale<Values>(largest, 1, 0, &exponent);
    int32_t bits;
    memcpy(&bits, &largest, 4);
    middle = (bits >> 23) - 2;
    return Bounded(exponent);
  }
  HWY_INLINE int32_t Bounded(int32_t exponent) const { return HWY_MIN(HWY_MAX(exponent, 0), greatest); }
  HWY_INLINE float Value(int32_t exponent) const { return NearestMXFP4::PowerOf(exponent); }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
