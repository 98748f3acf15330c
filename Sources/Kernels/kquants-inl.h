// What the encoders of K-quants share: weights, the multiples of a group's factors, and the levels that follow from them.
#include <hwy/highway.h>

#include "search-inl.h"

#ifndef NIBBLE_ROW_ENCODER
// An encoder of rows for one target, and the function that calls that of the processor's.
#define NIBBLE_ROW_ENCODER(Name)                                                           \
  static void Encode##Name(const float* values, size_t rows, size_t row_length,            \
                           const float* importance, uint8_t* output) {                     \
    EncodeRows<Name>(values, rows, row_length, importance, output);                        \
  }
#define NIBBLE_EXPORT_ENCODER(Name, function)                                              \
  HWY_EXPORT(Encode##Name);                                                                \
  extern "C" void function(const float* values, size_t rows, size_t row_length,            \
                           const float* importance, uint8_t* output) {                     \
    HWY_DYNAMIC_DISPATCH(Encode##Name)(values, rows, row_length, importance, output);      \
  }
#endif

#if defined(NIBBLE_KQUANTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KQUANTS_INL_H_
#undef NIBBLE_KQUANTS_INL_H_
#else
#define NIBBLE_KQUANTS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

constexpr size_t kSuperBlock = 256;
using SuperBlocks = Group<kSuperBlock>;

// Sums of the columns `start` to `start + length` of what lies in lanes.
static HWY_INLINE void SumLanes(const float* from, size_t length, float* sums) {
  for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
    auto sum = hn::Zero(F32());
    for (size_t i = 0; i < length; ++i) sum = hn::Add(sum, Load(from + i * kLanes + g));
    Store(sum, sums + g);
  }
}

// Weights of a sub-block without importance: root mean square + |value|.
template <size_t kCount>
static HWY_INLINE void MagnitudeWeights(const float* values, float* weights) {
  for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
    auto sum = hn::Zero(F32());
    for (size_t i = 0; i < kCount * kLanes; i += kLanes) {
      const auto x = Load(values + i + g);
      sum = hn::Add(sum, hn::Mul(x, x));
    }
    const auto average = hn::Sqrt(hn::Div(sum, Splat(kCount)));
    for (size_t i = 0; i < kCount * kLanes; i += kLanes) {
      Store(hn::Add(average, hn::Abs(Load(values + i + g))), weights + i + g);
    }
  }
}

// What a group has for each of its sub-blocks, and its factors as they are stored.
template <size_t kSubBlocks>
struct Multiples {
  HWY_ALIGN float exact[kSubBlocks * kLanes];
  HWY_ALIGN float levels[kSubBlocks * kLanes];
  HWY_ALIGN float factors[kLanes];
  HWY_ALIGN int32_t bits[kLanes];

  // From the fits of sub-blocks that were searched together.
  template <class Fit>
  HWY_INLINE void Take(const Fit* fits, size_t first, float (Fit::*part)[kLanes]) {
    for (size_t k = 0; k < kTogether; ++k) {
      std::copy_n(fits[k].*part, kLanes, exact + (first + k) * kLanes);
    }
  }

  HWY_INLINE void SetFactor(size_t g, VF value) {
    const Factor factor(value);
    Store(factor.value, factors + g);
    hn::Store(factor.bits, I32(), bits + g);
  }

  // As multiples of the greatest divided by `greatest`.
  HWY_INLINE void DivideByGreatest(float greatest) {
    const auto zero = hn::Zero(F32());
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      auto maximum = zero;
      for (size_t j = 0; j < kSubBlocks; ++j) {
        maximum = hn::Max(maximum, Load(exact + j * kLanes + g));
      }
      SetFactor(g, hn::Div(maximum, Splat(greatest)));
      const auto inverse =
          hn::IfThenElseZero(hn::Gt(maximum, zero), hn::Div(Splat(greatest), maximum));
      for (size_t j = 0; j < kSubBlocks; ++j) {
        const auto scaled = hn::Mul(inverse, Load(exact + j * kLanes + g));
        Store(NearestWithin(scaled, 0, static_cast<int32_t>(greatest)), levels + j * kLanes + g);
      }
    }
  }

  // As multiples of what fits best, weighted.
  template <int kGreatest>
  HWY_INLINE void Fit(const float* weights) {
    HWY_ALIGN float found[kLanes];
    FitPositive<kSubBlocks, kGreatest>(exact, weights, levels, found);
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) SetFactor(g, Load(found + g));
  }

  // As multiples, from -kGreatest to kGreatest - 1, of the one of greatest magnitude divided by
  // -kGreatest; `for_zeros` where none is as great as `least`.
  template <int kGreatest>
  HWY_INLINE void DivideByExtreme(float least, int for_zeros) {
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      const auto extreme = Extreme<kSubBlocks>(exact + g);
      const auto is_zero = hn::Lt(hn::Abs(extreme), Splat(least));
      const auto inverse = hn::Div(Splat(-kGreatest), extreme);
      SetFactor(g, hn::IfThenZeroElse(is_zero, hn::Div(Splat(1.0f), inverse)));
      for (size_t i = g; i < kSubBlocks * kLanes; i += kLanes) {
        const auto level =
            NearestWithin(hn::Mul(inverse, Load(exact + i)), -kGreatest, kGreatest - 1);
        Store(hn::IfThenElse(is_zero, Splat(for_zeros), level), levels + i);
      }
    }
  }

  // The same of what fits best, weighted.
  template <int kGreatest>
  HWY_INLINE void FitSigned(const float* weights) {
    Linear fit;
    FitLinear<1, kSubBlocks, kGreatest>(exact, weights, &fit);
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      SetFactor(g, Load(fit.scale + g));
      const auto inverse = Load(fit.inverse + g);
      const auto is_zero = hn::Eq(inverse, hn::Zero(F32()));
      for (size_t i = g; i < kSubBlocks * kLanes; i += kLanes) {
        const auto level =
            NearestWithin(hn::Mul(inverse, Load(exact + i)), -kGreatest, kGreatest - 1);
        Store(hn::IfThenElse(is_zero, Splat(-kGreatest), level), levels + i);
      }
    }
  }
};

// Levels counted from `least`, as bytes.
template <size_t kCount, class Scale>
static HWY_INLINE void StoreLevels(const float* values, int least, int greatest, uint8_t* levels,
                                   const Scale& scale) {
  const F32 df;
  const I32 di;
  const hn::Rebind<uint8_t, F32> d8;
  for (size_t i = 0; i < kCount; i += hn::Lanes(df)) {
    const auto level = RoundWithin(scale(hn::LoadU(df, values + i)), least, greatest);
    const auto counted = hn::Sub(hn::ConvertTo(di, level), hn::Set(di, least));
    hn::StoreU(hn::DemoteTo(d8, counted), d8, levels + i);
  }
}

// level = (value + minimum) / scale
template <size_t kCount>
static HWY_INLINE void StoreQuotients(const float* values, float scale, float minimum, int least,
                                      int greatest, uint8_t* levels) {
  const auto divisor = Splat(scale), addend = Splat(minimum);
  StoreLevels<kCount>(values, least, greatest, levels, [&](VF value) HWY_ATTR {
    return hn::Div(hn::Add(value, addend), divisor);
  });
}

// level = inverse * (value - offset): what the search had, for a scale that was rounded to zero.
template <size_t kCount>
static HWY_INLINE void StoreProducts(const float* values, float inverse, float offset, int least,
                                     int greatest, uint8_t* levels) {
  const auto factor = Splat(inverse), subtrahend = Splat(offset);
  StoreLevels<kCount>(values, least, greatest, levels, [&](VF value) HWY_ATTR {
    return hn::Mul(factor, hn::Sub(value, subtrahend));
  });
}

using Bytes = hn::CappedTag<uint8_t, 32>;

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
