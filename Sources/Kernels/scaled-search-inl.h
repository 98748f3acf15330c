// The scales of groups under which the values come back with the least squared error, of those that can be stored. Lane b
// of every vector belongs to group b of 16, whatever the width of the vectors, so that each adds in one order.
#include "lanes-inl.h"
#include "scaled-inl.h"

#if defined(NIBBLE_SCALED_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCALED_SEARCH_INL_H_
#undef NIBBLE_SCALED_SEARCH_INL_H_
#else
#define NIBBLE_SCALED_SEARCH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

constexpr size_t kLargestGroup = 128;

// What a type has no number above, and the greatest exponent under which it holds every level of E2M1.
template <class Values>
struct Greatest;
template <>
struct Greatest<HalfValues<BF16>> {
  static constexpr float kValue = 0x1.FEp127f;
  static constexpr int32_t kExponent = 252;
};
template <>
struct Greatest<HalfValues<F16>> {
  static constexpr float kValue = 65504.0f;
  static constexpr int32_t kExponent = 127 + 13;
};
template <>
struct Greatest<FloatValues> {
  static constexpr float kValue = std::numeric_limits<float>::max();
  static constexpr int32_t kExponent = 252;
};

// 16 groups, their values multiplied with a power of two so that the largest magnitude of each is from 1 to below 2.
struct Groups {
  size_t size;
  HWY_ALIGN float values[kLargestGroup * kLanes];
  // What a squared error counts.
  HWY_ALIGN float weights[kLargestGroup * kLanes];
  // The magnitude that is largest, as it is and so multiplied; what it is multiplied with, and what undoes that.
  float largest[kLanes];
  HWY_ALIGN float reduced[kLanes];
  HWY_ALIGN float down[kLanes];
  HWY_ALIGN float up[kLanes];

  // Lanes beyond the last group repeat it. Returns the first group that is not finite, or `count`.
  template <class Values>
  HWY_INLINE size_t Read(const typename Values::Bits* from, size_t first, size_t count, size_t columns,
                         const float* roots) {
    const F32 df;
    HWY_ALIGN float rows[kLanes][kLargestGroup];
    const float* starts[kLanes];
    for (size_t b = 0; b < kLanes; ++b) {
      const auto* group = from + (first + std::min(b, count - 1)) * size;
      const int32_t bits = LargestBits<Values>(group, size);
      if (HWY_UNLIKELY(bits >= Values::kInfinity)) return b;
      largest[b] = hn::GetLane(Values::FromBits(hn::Set(I32(), bits)));
      int32_t pattern;
      memcpy(&pattern, &largest[b], 4);
      const int32_t exponent = HWY_MAX(pattern >> 23, 1);
      up[b] = FirstLane(hn::Set(I32(), exponent << 23));
      down[b] = NearestMXFP4::PowerOf(254 - exponent);
      reduced[b] = largest[b] * down[b];
      for (size_t i = 0; i < size; i += hn::Lanes(df)) {
        hn::Store(hn::Mul(Values::Load(group + i), hn::Set(df, down[b])), df, rows[b] + i);
      }
      starts[b] = rows[b];
    }
    Group<16>::Transpose(starts, size, values);
    if (roots == nullptr) return count;
    for (size_t b = 0; b < kLanes; ++b) {
      const size_t column = (first + std::min(b, count - 1)) * size % columns;
      for (size_t i = 0; i < size; i += hn::Lanes(df)) {
        const auto root = hn::LoadU(df, roots + column + i);
        hn::Store(hn::Mul(root, root), df, rows[b] + i);
      }
    }
    Group<16>::Transpose(starts, size, weights);
    return count;
  }
};

// Whole numbers. Ratios of the largest magnitude are tried with both signs, or one, each with the scale that is best for
// the codes that it gives; then the best of these as it is stored, and twice the best for the codes that the last gives.
struct SearchedInt4 {
  static constexpr int kBits = 4;
  static constexpr int kRatios = 13;
  static constexpr int kTried = 4;

  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    const auto level = RoundWithin(hn::Div(value, scale), -8.0f, 7.0f);
    return hn::Add(hn::NearestInt(level), hn::Set(I32(), 8));
  }

  // What is best for some codes is a quotient of these sums.
  struct Sums {
    VF products, squares;

    HWY_INLINE Sums() : products(hn::Zero(F32())), squares(hn::Zero(F32())) {}

    HWY_INLINE void Add(VF value, VF weight, VF level) {
      const auto weighted = hn::Mul(weight, level);
      products = hn::Add(products, hn::Mul(weighted, value));
      squares = hn::Add(squares, hn::Mul(weighted, level));
    }

    // `otherwise` where all codes are zero.
    HWY_INLINE VF Best(VF otherwise) const {
      const F32 df;
      const auto is_none = hn::Eq(squares, hn::Zero(df));
      return hn::IfThenElse(is_none, otherwise, hn::Div(products, hn::IfThenElse(is_none, Splat(1.0f), squares)));
    }
  };

  // The best of the ratios, where `negative` is 1 with both signs.
  static HWY_INLINE VF Coarse(const Groups& groups, size_t g, bool is_signed) {
    const F32 df;
    const auto reciprocal = hn::Div(Splat(1.0f), hn::Max(Load(groups.reduced + g), Splat(0x1p-30f)));
    auto best = hn::Zero(df), scale = hn::Zero(df);
    for (int k = 0; k < kRatios; ++k) {
      const float step = 0.4f * static_cast<float>(k);
      const auto inverse = hn::Mul(Splat(7.0f + step), reciprocal);
      Sums plus, minus;
      for (size_t i = g; i < groups.size * kLanes; i += kLanes) {
        const auto value = Load(groups.values + i), weight = Load(groups.weights + i);
        const auto level = hn::Round(hn::Mul(value, inverse));
        plus.Add(value, weight, hn::Min(hn::Max(level, Splat(-8.0f)), Splat(7.0f)));
        minus.Add(value, weight, hn::Min(hn::Max(level, Splat(-7.0f)), Splat(8.0f)));
      }
      Take(plus, 1.0f, best, scale);
      if (is_signed) Take(minus, -1.0f, best, scale);
    }
    return scale;
  }

  static HWY_INLINE void Take(const Sums& sums, float sign, VF& best, VF& scale) {
    const auto own = sums.Best(hn::Zero(F32()));
    const auto less = hn::Mul(own, sums.products);
    const auto is_better = hn::Gt(less, best);
    best = hn::IfThenElse(is_better, less, best);
    scale = hn::IfThenElse(is_better, hn::Mul(own, Splat(sign)), scale);
  }

  template <class Values>
  static HWY_INLINE void Search(const Groups& groups, size_t count, float, bool is_signed, size_t at, void* scales,
                                float* divisors) {
    const F32 df;
    const float limit = Greatest<Values>::kValue * 0.125f;
    HWY_ALIGN float plain[kLanes];
    for (size_t b = 0; b < kLanes; ++b) {
      const float scale = Rounded<Values>(groups.largest[b] / 7.5f);
      plain[b] = std::min(scale == 0.0f ? Least<Values>::kStep : scale, limit);
    }
    for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
      const auto down = Load(groups.down + g), up = Load(groups.up + g);
      auto scale = Load(plain + g), chosen = scale, least = scale;
      auto next = Coarse(groups, g, is_signed);
      for (int k = 0; k < kTried; ++k) {
        const auto own = hn::Mul(scale, down);
        const auto is_zero = hn::Eq(scale, hn::Zero(df));
        const auto inverse = hn::IfThenZeroElse(is_zero, hn::Div(Splat(1.0f), own));
        auto error = hn::Zero(df);
        Sums sums;
        for (size_t i = g; i < groups.size * kLanes; i += kLanes) {
          const auto value = Load(groups.values + i), weight = Load(groups.weights + i);
          const auto level = RoundWithin(hn::Mul(value, inverse), -8.0f, 7.0f);
          const auto difference = hn::Sub(value, hn::Mul(level, own));
          error = hn::Add(error, hn::Mul(hn::Mul(weight, difference), difference));
          sums.Add(value, weight, level);
        }
        if (k == 0) {
          least = error;
        } else {
          const auto is_better = hn::AndNot(is_zero, hn::Lt(error, least));
          least = hn::IfThenElse(is_better, error, least);
          chosen = hn::IfThenElse(is_better, scale, chosen);
          next = sums.Best(own);
        }
        const auto bounded = hn::Min(hn::Max(hn::Mul(next, up), Splat(-limit)), Splat(limit));
        scale = Values::Round(bounded);
      }
      Store(chosen, divisors + g);
    }
    for (size_t b = 0; b < count; ++b) {
      HWY_ALIGN typename Values::Bits stored[16];
      Values::Store(hn::Set(df, divisors[b]), stored);
      memcpy(static_cast<typename Values::Bits*>(scales) + at + b, stored, sizeof(stored[0]));
    }
  }
};

// The error of magnitudes with the levels of E2M1.
static HWY_INLINE VF ErrorOfE2M1(const Groups& groups, size_t g, VF scale) {
  const F32 df;
  const I32 di;
  // Beyond these everything is zero, or nothing is.
  const auto own = hn::Min(hn::Max(scale, Splat(0x1p-60f)), Splat(0x1p60f));
  const auto inverse = hn::Div(Splat(1.0f), own);
  auto error = hn::Zero(df);
  for (size_t i = g; i < groups.size * kLanes; i += kLanes) {
    const auto value = hn::Abs(Load(groups.values + i));
    const auto bounded = hn::Min(hn::Mul(value, inverse), Splat(6.0f));
    // Two levels to each power of two from 1 on, and as far apart below it: the sum with 2^22 times it rounds.
    const auto above = hn::BitCast(di, hn::Max(bounded, Splat(1.0f)));
    const auto power = hn::BitCast(df, hn::And(above, hn::Set(di, 0x7F800000)));
    const auto base = hn::Mul(power, Splat(0x1p22f));
    const auto level = hn::Sub(hn::Add(bounded, base), base);
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
