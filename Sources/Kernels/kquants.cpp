#include "nibble_kquants.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../kquants.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "search-inl.h"

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

// ---------------------------------------------------------------------------------------------------
// Q4_K, Q5_K: eight sub-blocks of 32 with scales and minima of 6 bits.

struct Affine32 {
  Multiples<8> scales, minima;
  Affine fits[8];
};

template <int kGreatest>
static HWY_INLINE void SearchAffine32(const SuperBlocks& group, bool has_importance,
                                      Affine32* result) {
  HWY_ALIGN float weights[kTogether * 32 * kLanes];
  HWY_ALIGN float sums[8 * kLanes];
  HWY_ALIGN float variance[kLanes];
  const Steps plain(kGreatest == 15 ? 21 : 16, kGreatest, kGreatest == 15 ? -1.0f : -0.5f, 0.1f);
  const Steps weighted(37, kGreatest, -0.9f, 0.05f);
  if (has_importance) group.MeanSquares(2, variance);
  for (size_t first = 0; first < 8; first += kTogether) {
    const float* values = group.columns + 32 * first * kLanes;
    Affine* fits = result->fits + first;
    for (size_t k = 0; k < kTogether; ++k) {
      float* to = weights + 32 * k * kLanes;
      if (has_importance) {
        group.WeighByImportance(32 * (first + k), 32, variance, to);
        SumLanes(to, 32, sums + (first + k) * kLanes);
      } else {
        MagnitudeWeights<32>(values + 32 * k * kLanes, to);
      }
    }
    FitAffine<32, kGreatest, false>(values, weights, has_importance ? weighted : plain, fits);
    result->scales.Take(fits, first, &Affine::scale);
    result->minima.Take(fits, first, &Affine::minimum);
  }
  if (has_importance) {
    result->scales.Fit<63>(sums);
    result->minima.Fit<63>(sums);
  } else {
    result->scales.DivideByGreatest(63);
    result->minima.DivideByGreatest(63);
  }
}

// The factors and the packed multiples of super-block `b`, 16 bytes.
static HWY_INLINE void StoreFactors32(const Affine32& found, size_t b, uint8_t* to) {
  StoreHalf(found.scales.bits[b], to);
  StoreHalf(found.minima.bits[b], to + 2);
  for (size_t j = 0; j < 4; ++j) {
    const auto level = [&](const Multiples<8>& of, size_t k) HWY_ATTR {
      return static_cast<unsigned>(of.levels[k * kLanes + b]);
    };
    const unsigned scale = level(found.scales, j + 4), minimum = level(found.minima, j + 4);
    to[4 + j] = static_cast<uint8_t>(level(found.scales, j) | scale >> 4 << 6);
    to[8 + j] = static_cast<uint8_t>(level(found.minima, j) | minimum >> 4 << 6);
    to[12 + j] = static_cast<uint8_t>((scale & 15) | (minimum & 15) << 4);
  }
}

template <int kGreatest>
static HWY_INLINE void StoreLevels32(const SuperBlocks& group, const Affine32& found, size_t b,
                                     uint8_t* levels) {
  for (size_t j = 0; j < 8; ++j) {
    const size_t i = j * kLanes + b;
    const float* values = group.blocks[b] + 32 * j;
    const float scale = found.scales.factors[b] * found.scales.levels[i];
    if (HWY_LIKELY(scale != 0)) {
      const float minimum = found.minima.factors[b] * found.minima.levels[i];
      StoreQuotients<32>(values, scale, minimum, 0, kGreatest, levels + 32 * j);
    } else {
      const Affine& fit = found.fits[j];
      StoreProducts<32>(values, fit.inverse[b], fit.offset[b], 0, kGreatest, levels + 32 * j);
    }
  }
}

struct Q4K {
  static constexpr size_t kSize = kSuperBlock;
  static constexpr size_t kBytes = 144;

  static HWY_INLINE void Encode(const SuperBlocks& group, bool has_importance, uint8_t* output) {
    const Bytes d;
    Affine32 found;
    HWY_ALIGN uint8_t levels[kSuperBlock];
    SearchAffine32<15>(group, has_importance, &found);
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      StoreFactors32(found, b, output);
      StoreLevels32<15>(group, found, b, levels);
      for (size_t j = 0; j < 4; ++j) {
        for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
          const auto low = hn::Load(d, levels + 64 * j + i);
          const auto high = hn::Load(d, levels + 64 * j + 32 + i);
          hn::StoreU(hn::Or(low, hn::ShiftLeft<4>(high)), d, output + 16 + 32 * j + i);
        }
      }
    }
  }
};

struct Q5K {
  static constexpr size_t kSize = kSuperBlock;
  static constexpr size_t kBytes = 176;

  static HWY_INLINE void Encode(const SuperBlocks& group, bool has_importance, uint8_t* output) {
    const Bytes d;
    Affine32 found;
    HWY_ALIGN uint8_t levels[kSuperBlock];
    const auto nibble = hn::Set(d, 15);
    SearchAffine32<31>(group, has_importance, &found);
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      StoreFactors32(found, b, output);
      StoreLevels32<31>(group, found, b, levels);
      for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
        // Bit j of a byte is the fifth bit of level 32 * j + i.
        auto fifth = hn::Zero(d);
        for (size_t j = 4; j-- > 0;) {
          const auto low = hn::Load(d, levels + 64 * j + i);
          const auto high = hn::Load(d, levels + 64 * j + 32 + i);
          const auto packed = hn::Or(hn::And(low, nibble), hn::ShiftLeft<4>(high));
          hn::StoreU(packed, d, output + 48 + 32 * j + i);
          const auto bits = hn::Or(hn::ShiftRight<4>(low), hn::ShiftLeft<1>(hn::ShiftRight<4>(high)));
          fifth = hn::Or(hn::ShiftLeft<2>(fifth), bits);
        }
        hn::StoreU(fifth, d, output + 16 + i);
      }
    }
  }
};

// ---------------------------------------------------------------------------------------------------
// Q6_K: sixteen sub-blocks of 16 with scales of 8 bits.

struct Q6K {
  static constexpr size_t kSize = kSuperBlock;
  static constexpr size_t kBytes = 210;

  static HWY_INLINE void Encode(const SuperBlocks& group, bool has_importance, uint8_t* output) {
    const Bytes d;
    HWY_ALIGN float weights[kTogether * 16 * kLanes];
    HWY_ALIGN uint8_t levels[kSuperBlock];
    Multiples<16> scales;
    Linear fits[16];
    for (size_t j = 0; j < 16; j += kTogether) {
      if (has_importance) group.ReadWeights(16 * j, kTogether * 16, weights);
      FitLinear<kTogether, 16, 32>(group.columns + 16 * j * kLanes,
                                   has_importance ? weights : nullptr, fits + j);
      scales.Take(fits + j, j, &Linear::scale);
    }
    scales.DivideByExtreme<128>(kNegligible, 0);
    const auto nibble = hn::Set(d, 15);
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      if (HWY_UNLIKELY(scales.bits[b] == 0 && IsZero(scales, b))) {
        memset(output, 0, kBytes);
        continue;
      }
      for (size_t j = 0; j < 16; ++j) {
        const float* values = group.blocks[b] + 16 * j;
        const float level = scales.levels[j * kLanes + b];
        output[192 + j] = static_cast<uint8_t>(static_cast<int8_t>(level));
        const float scale = scales.factors[b] * level;
        if (HWY_LIKELY(scale != 0)) {
          StoreQuotients<16>(values, scale, 0, -32, 31, levels + 16 * j);
        } else if (fits[j].inverse[b] != 0) {
          StoreProducts<16>(values, fits[j].inverse[b], 0, -32, 31, levels + 16 * j);
        } else {
          memset(levels + 16 * j, 0, 16);
        }
      }
      StoreHalf(scales.bits[b], output + 208);
      for (size_t half = 0; half < 2; ++half) {
        const uint8_t* from = levels + 128 * half;
        for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
          const auto l0 = hn::Load(d, from + i), l1 = hn::Load(d, from + 32 + i);
          const auto l2 = hn::Load(d, from + 64 + i), l3 = hn::Load(d, from + 96 + i);
          uint8_t* low = output + 64 * half + i;
          hn::StoreU(hn::Or(hn::And(l0, nibble), hn::ShiftLeft<4>(l2)), d, low);
          hn::StoreU(hn::Or(hn::And(l1, nibble), hn::ShiftLeft<4>(l3)), d, low + 32);
          const auto high01 = hn::Or(hn::ShiftRight<4>(l0), hn::ShiftLeft<2>(hn::ShiftRight<4>(l1)));
          const auto high23 = hn::Or(hn::ShiftRight<4>(l2), hn::ShiftLeft<2>(hn::ShiftRight<4>(l3)));
          const auto high = hn::Or(high01, hn::ShiftLeft<4>(high23));
          hn::StoreU(high, d, output + 128 + 32 * half + i);
        }
      }
    }
  }

  static HWY_INLINE bool IsZero(const Multiples<16>& scales, size_t b) {
    for (size_t j = 0; j < 16; ++j) {
      if (scales.levels[j * kLanes + b] != 0) return false;
    }
    return true;
  }
};

// ---------------------------------------------------------------------------------------------------
// Q2_K, Q3_K: sixteen sub-blocks of 16.

// Four levels of two bits in each byte.
static HWY_INLINE void StorePairs(const uint8_t* levels, uint8_t* output) {
  const Bytes d;
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* from = levels + 128 * half;
    for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
      const auto l0 = hn::Load(d, from + i), l1 = hn::Load(d, from + 32 + i);
      const auto l2 = hn::Load(d, from + 64 + i), l3 = hn::Load(d, from + 96 + i);
      const auto low = hn::Or(l0, hn::ShiftLeft<2>(l1));
      const auto high = hn::Or(l2, hn::ShiftLeft<2>(l3));
      hn::StoreU(hn::Or(low, hn::ShiftLeft<4>(high)), d, output + 32 * half + i);
    }
  }
}

struct Q2K {
  static constexpr size_t kSize = kSuperBlock;
  static constexpr size_t kBytes = 84;

  static HWY_INLINE void Encode(const SuperBlocks& group, bool has_importance, uint8_t* output) {
    HWY_ALIGN float weights[kTogether * 16 * kLanes];
    HWY_ALIGN float sums[16 * kLanes];
    HWY_ALIGN float variance[kLanes];
    HWY_ALIGN uint8_t levels[kSuperBlock];
    Multiples<16> scales, minima;
    Affine fits[16];
    const Steps plain(16, 3, -0.5f, 0.1f);
    const Steps weighted(37, 3, -0.9f, 0.05f);
    if (has_importance) group.MeanSquares(1, variance);
    for (size_t first = 0; first < 16; first += kTogether) {
      const float* values = group.columns + 16 * first * kLanes;
      if (has_importance) {
        for (size_t k = 0; k < kTogether; ++k) {
          float* to = weights + 16 * k * kLanes;
          group.WeighByImportance(16 * (first + k), 16, variance, to);
          SumLanes(to, 16, sums + (first + k) * kLanes);
        }
        FitAffine<16, 3, false>(values, weights, weighted, fits + first);
      } else {
        for (size_t i = 0; i < kTogether * 16 * kLanes; i += hn::Lanes(F32())) {
          Store(hn::Abs(Load(values + i)), weights + i);
        }
        FitAffine<16, 3, true>(values, weights, plain, fits + first);
      }
      scales.Take(fits + first, first, &Affine::scale);
      minima.Take(fits + first, first, &Affine::minimum);
    }
    if (has_importance) {
      scales.Fit<15>(sums);
      minima.Fit<15>(sums);
    } else {
      scales.DivideByGreatest(15);
      minima.DivideByGreatest(15);
    }
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      for (size_t j = 0; j < 16; ++j) {
        const float* values = group.blocks[b] + 16 * j;
        const float scale_level = scales.levels[j * kLanes + b];
        const float minimum_level = minima.levels[j * kLanes + b];
        output[j] = static_cast<uint8_t>(static_cast<int>(scale_level) |
                                         static_cast<int>(minimum_level) << 4);
        const float scale = scales.factors[b] * scale_level;
        if (HWY_LIKELY(scale != 0)) {
          const float minimum = minima.factors[b] * minimum_level;
          StoreQuotients<16>(values, scale, minimum, 0, 3, levels + 16 * j);
        } else {
          StoreProducts<16>(values, fits[j].inverse[b], fits[j].offset[b], 0, 3, levels + 16 * j);
        }
      }
      StorePairs(levels, output + 16);
      StoreHalf(scales.bits[b], output + 80);
      StoreHalf(minima.bits[b], output + 82);
    }
  }
};

struct Q3K {
  static constexpr size_t kSize = kSuperBlock;
  static constexpr size_t kBytes = 110;

  // Scales of 6 bits, counted from -32.
  static HWY_INLINE void StoreScales(const Multiples<16>& scales, size_t b, uint8_t* to) {
    unsigned levels[16];
    for (size_t j = 0; j < 16; ++j) {
      levels[j] = static_cast<unsigned>(static_cast<int>(scales.levels[j * kLanes + b]) + 32);
    }
    for (size_t j = 0; j < 8; ++j) {
      to[j] = static_cast<uint8_t>((levels[j] & 15) | (levels[j + 8] & 15) << 4);
    }
    for (size_t j = 0; j < 4; ++j) {
      const unsigned low = levels[j] >> 4 | levels[j + 4] >> 4 << 2;
      const unsigned high = levels[j + 8] >> 4 | levels[j + 12] >> 4 << 2;
      to[j + 8] = static_cast<uint8_t>(low | high << 4);
    }
  }

  static HWY_INLINE void Encode(const SuperBlocks& group, bool has_importance, uint8_t* output) {
    const Bytes d;
    HWY_ALIGN float weights[kTogether * 16 * kLanes];
    HWY_ALIGN float sums[16 * kLanes];
    HWY_ALIGN float variance[kLanes];
    HWY_ALIGN uint8_t levels[kSuperBlock];
    HWY_ALIGN float refined[kSuperBlock * kLanes];
    Multiples<16> scales;
    Linear fits[16];
    if (has_importance) {
      group.MeanSquares(2, variance);
      for (size_t first = 0; first < 16; first += kTogether) {
        for (size_t k = 0; k < kTogether; ++k) {
          float* to = weights + 16 * k * kLanes;
          group.WeighByImportance(16 * (first + k), 16, variance, to);
          SumLanes(to, 16, sums + (first + k) * kLanes);
        }
        const float* values = group.columns + 16 * first * kLanes;
        FitLinear<kTogether, 16, 4>(values, weights, fits + first);
        scales.Take(fits + first, first, &Linear::scale);
      }
      scales.FitSigned<32>(sums);
    } else {
      for (size_t j = 0; j < 16; j += kRefinedTogether) {
        const size_t start = 16 * j * kLanes;
        FitRefined<16, 4>(group.columns + start, refined + start, scales.exact + j * kLanes);
      }
      scales.DivideByExtreme<32>(std::numeric_limits<float>::denorm_min(), -32);
    }
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      for (size_t j = 0; j < 16; ++j) {
        const float* values = group.blocks[b] + 16 * j;
        uint8_t* to = levels + 16 * j;
        const float scale = scales.factors[b] * scales.levels[j * kLanes + b];
        if (HWY_LIKELY(scale != 0)) {
          StoreQuotients<16>(values, scale, 0, -4, 3, to);
        } else if (!has_importance) {
          for (size_t i = 0; i < 16; ++i) {
            to[i] = static_cast<uint8_t>(refined[(16 * j + i) * kLanes + b]);
          }
        } else if (fits[j].inverse[b] != 0) {
          StoreProducts<16>(values, fits[j].inverse[b], 0, -4, 3, to);
        } else {
          memset(to, 0, 16);
        }
      }
      StoreScales(scales, b, output + 96);
      StoreHalf(scales.bits[b], output + 108);
      const auto low_bits = hn::Set(d, 3);
      for (size_t i = 0; i < 32; i += hn::Lanes(d)) {
        // Bit j of a byte is the third bit of level 32 * j + i.
        auto third = hn::Zero(d);
        for (size_t j = 8; j-- > 0;) {
          const auto level = hn::Load(d, levels + 32 * j + i);
          third = hn::Or(hn::ShiftLeft<1>(third), hn::ShiftRight<2>(level));
          hn::Store(hn::And(level, low_bits), d, levels + 32 * j + i);
        }
        hn::StoreU(third, d, output + i);
      }
      StorePairs(levels, output + 32);
    }
  }
};

#define NIBBLE_ENCODE(Name)                                                                \
  static void Encode##Name(const float* values, size_t rows, size_t row_length,            \
                           const float* importance, uint8_t* output) {                     \
    EncodeRows<Name>(values, rows, row_length, importance, output);                        \
  }
NIBBLE_ENCODE(Q2K)
NIBBLE_ENCODE(Q3K)
NIBBLE_ENCODE(Q4K)
NIBBLE_ENCODE(Q5K)
NIBBLE_ENCODE(Q6K)
#undef NIBBLE_ENCODE

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

#define NIBBLE_ENCODE(Name, function)                                                      \
  HWY_EXPORT(Encode##Name);                                                                \
  extern "C" void function(const float* values, size_t rows, size_t row_length,            \
                           const float* importance, uint8_t* output) {                     \
    HWY_DYNAMIC_DISPATCH(Encode##Name)(values, rows, row_length, importance, output);      \
  }
NIBBLE_ENCODE(Q2K, nibble_encode_q2_k)
NIBBLE_ENCODE(Q3K, nibble_encode_q3_k)
NIBBLE_ENCODE(Q4K, nibble_encode_q4_k)
NIBBLE_ENCODE(Q5K, nibble_encode_q5_k)
NIBBLE_ENCODE(Q6K, nibble_encode_q6_k)
#undef NIBBLE_ENCODE

}  // namespace nibble
#endif
