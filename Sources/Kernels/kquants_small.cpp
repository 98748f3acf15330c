#include "nibble_kquants.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../kquants_small.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "kquants-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

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

NIBBLE_ROW_ENCODER(Q2K)
NIBBLE_ROW_ENCODER(Q3K)

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

NIBBLE_EXPORT_ENCODER(Q2K, nibble_encode_q2_k)
NIBBLE_EXPORT_ENCODER(Q3K, nibble_encode_q3_k)

}  // namespace nibble
#endif
