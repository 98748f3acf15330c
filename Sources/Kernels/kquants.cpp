#include "nibble_kquants.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../kquants.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "kquants-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

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

NIBBLE_ROW_ENCODER(Q4K)
NIBBLE_ROW_ENCODER(Q5K)
NIBBLE_ROW_ENCODER(Q6K)

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

NIBBLE_EXPORT_ENCODER(Q4K, nibble_encode_q4_k)
NIBBLE_EXPORT_ENCODER(Q5K, nibble_encode_q5_k)
NIBBLE_EXPORT_ENCODER(Q6K, nibble_encode_q6_k)

}  // namespace nibble
#endif
