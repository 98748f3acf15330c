#include "nibble_kquants.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../iq4.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// ggml's 16 levels, and the midpoints between them: a value on a midpoint has the level above.
alignas(64) constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};
constexpr float kMidpoints[15] = {-115.5f, -93.5f, -74, -57,   -42,   -28.5f, -16, -4.5f,
                                  7,       19,     31.5f, 45.5f, 61,  79,     101};
// What a binary search compares with in its third step, by the answers so far, and in its fourth;
// twice, for vectors of either length.
alignas(64) constexpr float kThird[16] = {-93.5f, -28.5f, 19, 79, -93.5f, -28.5f, 19, 79,
                                          -93.5f, -28.5f, 19, 79, -93.5f, -28.5f, 19, 79};
alignas(64) constexpr float kFourth[16] = {-115.5f, -74, -42, -16, 7, 31.5f, 61, 101,
                                           -115.5f, -74, -42, -16, 7, 31.5f, 61, 101};

constexpr size_t kBlock = 32;

// The level nearest to each value, and which it is.
struct Nearest {
  VF level;
  VI index;

  HWY_INLINE explicit Nearest(VF value) {
    const F32 df;
    const I32 di;
    if constexpr (hn::MaxLanes(F32()) >= 8) {
      const auto doubled = [&](VI at, hn::Mask<F32> is_above) HWY_ATTR {
        const auto twice = hn::Add(at, at);
        return hn::IfThenElse(hn::RebindMask(di, is_above), hn::Add(twice, hn::Set(di, 1)), twice);
      };
      const auto look_up = [&](const float* table, VI at) HWY_ATTR {
        return hn::TableLookupLanes(Load(table), hn::IndicesFromVec(df, at));
      };
      const auto is_upper = hn::Ge(value, Splat(kMidpoints[7]));
      const auto second =
          hn::IfThenElse(is_upper, Splat(kMidpoints[11]), Splat(kMidpoints[3]));
      index = hn::IfThenElseZero(hn::RebindMask(di, is_upper), hn::Set(di, 1));
      index = doubled(index, hn::Ge(value, second));
      index = doubled(index, hn::Ge(value, look_up(kThird, index)));
      index = doubled(index, hn::Ge(value, look_up(kFourth, index)));
      if constexpr (hn::MaxLanes(F32()) == 16) {
        level = look_up(kLevels, index);
      } else {
        const auto within = hn::And(index, hn::Set(di, 7));
        level = hn::IfThenElse(is_upper, look_up(kLevels + 8, within), look_up(kLevels, within));
      }
    } else {
      level = Splat(kLevels[0]);
      index = hn::Zero(di);
      for (size_t i = 0; i < 15; ++i) {
        const auto is_above = hn::Ge(value, Splat(kMidpoints[i]));
        level = hn::IfThenElse(is_above, Splat(kLevels[i + 1]), level);
        index = hn::Sub(index, hn::VecFromMask(di, hn::RebindMask(di, is_above)));
      }
    }
  }
};

// The scales of blocks of 32 by least squares.
static HWY_INLINE void FitScales(const float* values, const float* weights, float* scales) {
  const F32 df;
  const auto zero = hn::Zero(df);
  for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
    const float* x = values + g;
    const float* w = weights + g;
    const auto extreme = Extreme<kBlock>(x);
    const auto is_zero = hn::Lt(hn::Abs(extreme), Splat(kNegligible));
    VF sum_lx, sum_l2;
    const auto sum = [&](VF inverse) HWY_ATTR {
      sum_lx = sum_l2 = zero;
      for (size_t i = 0; i < kBlock; ++i) {
        const auto value = Load(x + i * kLanes);
        const auto level = Nearest(hn::Mul(inverse, value)).level;
        const auto weighted = hn::Mul(Load(w + i * kLanes), level);
        sum_lx = hn::Add(sum_lx, hn::Mul(weighted, value));
        sum_l2 = hn::Add(sum_l2, hn::Mul(weighted, level));
      }
    };
    const auto first = hn::Div(Splat(1.0f), hn::Div(hn::Neg(extreme), Splat(kLevels[0])));
    sum(hn::IfThenZeroElse(is_zero, first));
    auto scale = hn::IfThenElseZero(hn::Gt(sum_l2, zero), hn::Div(sum_lx, sum_l2));
    auto best = hn::Mul(scale, sum_lx);
    for (int step = -7; step <= 7; ++step) {
      const auto inverse = hn::Div(Splat(static_cast<float>(step) + kLevels[0]), extreme);
      sum(hn::IfThenZeroElse(is_zero, inverse));
      const auto is_better =
          hn::And(hn::Gt(sum_l2, zero), hn::Gt(hn::Mul(sum_lx, sum_lx), hn::Mul(best, sum_l2)));
      scale = hn::IfThenElse(is_better, hn::Div(sum_lx, sum_l2), scale);
      best = hn::IfThenElse(is_better, hn::Mul(scale, sum_lx), best);
    }
    Store(hn::IfThenZeroElse(is_zero, scale), scales + g);
  }
}

template <size_t kSize>
static HWY_INLINE void FitBlock(const Group<kSize>& group, size_t start, const float* variance,
                                float* scales) {
  HWY_ALIGN float weights[kBlock * kLanes];
  const float* values = group.columns + start * kLanes;
  if (variance != nullptr) {
    group.WeighByImportance(start, kBlock, variance, weights);
  } else {
    for (size_t i = 0; i < kBlock * kLanes; i += hn::Lanes(F32())) {
      const auto x = Load(values + i);
      Store(hn::Mul(x, x), weights + i);
    }
  }
  FitScales(values, weights, scales);
}

// The inverse of each scale; 0 for 0.
static HWY_INLINE VF Inverse(VF scale) {
  return hn::IfThenZeroElse(hn::Eq(scale, hn::Zero(F32())), hn::Div(Splat(1.0f), scale));
}

// The indices of 32 levels, two to a byte: i and i + 16.
static HWY_INLINE void StoreIndices(const float* values, float inverse, uint8_t* output) {
  const F32 df;
  const hn::Rebind<uint8_t, F32> d8;
  const hn::CappedTag<uint8_t, 16> d;
  HWY_ALIGN uint8_t indices[kBlock];
  for (size_t i = 0; i < kBlock; i += hn::Lanes(df)) {
    const auto scaled = hn::Mul(Splat(inverse), hn::LoadU(df, values + i));
    hn::StoreU(hn::DemoteTo(d8, Nearest(scaled).index), d8, indices + i);
  }
  for (size_t i = 0; i < 16; i += hn::Lanes(d)) {
    const auto low = hn::Load(d, indices + i), high = hn::Load(d, indices + 16 + i);
    hn::StoreU(hn::Or(low, hn::ShiftLeft<4>(high)), d, output + i);
  }
}

struct IQ4NL {
  static constexpr size_t kSize = kBlock;
  static constexpr size_t kBytes = 18;

  static HWY_INLINE void Encode(const Group<kSize>& group, bool has_importance, uint8_t* output) {
    HWY_ALIGN float scales[kLanes];
    HWY_ALIGN float inverses[kLanes];
    HWY_ALIGN float variance[kLanes];
    HWY_ALIGN int32_t bits[kLanes];
    if (has_importance) group.MeanSquares(2, variance);
    FitBlock(group, 0, has_importance ? variance : nullptr, scales);
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      const auto scale = Load(scales + g);
      hn::Store(Factor(scale).bits, I32(), bits + g);
      Store(Inverse(scale), inverses + g);
    }
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      StoreHalf(bits[b], output);
      StoreIndices(group.blocks[b], inverses[b], output + 2);
    }
  }
};

struct IQ4XS {
  static constexpr size_t kSize = 256;
  static constexpr size_t kSubBlocks = kSize / kBlock;
  static constexpr size_t kBytes = 136;

  static HWY_INLINE void Encode(const Group<kSize>& group, bool has_importance, uint8_t* output) {
    HWY_ALIGN float scales[kSubBlocks * kLanes];
    HWY_ALIGN float inverses[kSubBlocks * kLanes];
    HWY_ALIGN float levels[kSubBlocks * kLanes];
    HWY_ALIGN float variance[kLanes];
    HWY_ALIGN int32_t bits[kLanes];
    if (has_importance) group.MeanSquares(2, variance);
    for (size_t j = 0; j < kSubBlocks; ++j) {
      FitBlock(group, j * kBlock, has_importance ? variance : nullptr, scales + j * kLanes);
    }
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      // The levels of the sub-blocks are chosen with the factor before it is rounded.
      const auto scale = hn::Div(hn::Neg(Extreme<kSubBlocks>(scales + g)), Splat(32.0f));
      hn::Store(Factor(scale).bits, I32(), bits + g);
      const auto inverse = Inverse(scale);
      for (size_t i = g; i < kSubBlocks * kLanes; i += kLanes) {
        const auto level = NearestWithin(hn::Mul(inverse, Load(scales + i)), -32, 31);
        Store(level, levels + i);
        Store(Inverse(hn::Mul(scale, level)), inverses + i);
      }
    }
    for (size_t b = 0; b < group.count; ++b, output += kBytes) {
      StoreHalf(bits[b], output);
      unsigned high = 0;
      for (size_t j = 0; j < kSubBlocks; ++j) {
        const size_t i = j * kLanes + b;
        const unsigned level = static_cast<unsigned>(static_cast<int>(levels[i]) + 32);
        const unsigned low = level & 15;
        uint8_t& pair = output[4 + j / 2];
        pair = static_cast<uint8_t>(j % 2 == 0 ? low : pair | low << 4);
        high |= level >> 4 << (2 * j);
        StoreIndices(group.blocks[b] + j * kBlock, inverses[i], output + 8 + j * 16);
      }
      StoreHalf(static_cast<int32_t>(high), output + 2);
    }
  }
};

static void EncodeIQ4NL(const float* values, size_t rows, size_t row_length,
                        const float* importance, uint8_t* output) {
  EncodeRows<IQ4NL>(values, rows, row_length, importance, output);
}

static void EncodeIQ4XS(const float* values, size_t rows, size_t row_length,
                        const float* importance, uint8_t* output) {
  EncodeRows<IQ4XS>(values, rows, row_length, importance, output);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(EncodeIQ4NL);
HWY_EXPORT(EncodeIQ4XS);

extern "C" void nibble_encode_iq4_nl(const float* values, size_t rows, size_t row_length,
                                     const float* importance, uint8_t* output) {
  HWY_DYNAMIC_DISPATCH(EncodeIQ4NL)(values, rows, row_length, importance, output);
}

extern "C" void nibble_encode_iq4_xs(const float* values, size_t rows, size_t row_length,
                                     const float* importance, uint8_t* output) {
  HWY_DYNAMIC_DISPATCH(EncodeIQ4XS)(values, rows, row_length, importance, output);
}

}  // namespace nibble
#endif
