// The scales of groups under which the values come back with the least squared error, of those that can be stored; here
// those of whole numbers. Lane b of every vector belongs to group b of 16, whatever the width of the vectors, so that each
// adds in one order.
#include "lanes-inl.h"
#include "scaled-encode-inl.h"

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

// Ratios of the largest magnitude are tried with both signs, or one, each with the scale that is best for the codes that it
// gives; then the best of these as it is stored, and twice what is best for the codes that the last gives.
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

  // The scale of the best ratio, 0 where all values are.
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

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
