#include <algorithm>
#include <limits>

#include "blocks.h"
#include "blocks_weighted.h"
#include "nibble_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../blocks_weighted.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Each lane tries a scale of its own, and adds up its values one after the other: so the sums do not depend on
// the width of the vectors.
constexpr size_t kMostCandidates = 48;

// Within these bounds all that is computed is finite.
constexpr float kLargestWeight = 1e30f;
constexpr float kSmallestDivisor = 1e-20f;
constexpr float kSmallestRange = 1e-15f;
constexpr float kLargestMagnitude = 4e6f;

// 32 values and what an error in each is to count; the largest weight is 1.
struct WeightedBlock {
  HWY_ALIGN float values[32];
  HWY_ALIGN float weights[32];
  float sum_of_weights, weighted_sum;
};

static HWY_INLINE void Weigh(const float* values, const float* importance, float mean_square,
                             WeightedBlock* block) {
  const F32 df;
  auto largest = hn::Zero(df);
  for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
    const auto value = hn::LoadU(df, values + i);
    const auto energy = hn::Add(hn::Set(df, mean_square), hn::Mul(value, value));
    const auto weight = hn::Mul(hn::LoadU(df, importance + i), hn::Sqrt(energy));
    const auto finite = hn::Min(weight, hn::Set(df, kLargestWeight));
    largest = hn::Max(largest, finite);
    hn::Store(value, df, block->values + i);
    hn::Store(finite, df, block->weights + i);
  }
  const float divisor = hn::GetLane(hn::MaxOfLanes(df, largest));
  block->sum_of_weights = 0;
  block->weighted_sum = 0;
  for (size_t i = 0; i < 32; ++i) {
    // Where no column matters, all do.
    const float weight = divisor > 0 ? block->weights[i] / divisor : 1;
    const float product = weight * block->values[i];
    block->weights[i] = weight;
    block->sum_of_weights += weight;
    block->weighted_sum += product;
  }
}

// A scale in each lane, and an offset, which is zero in formats without.
struct Fitted {
  VF d, m;
};

static HWY_INLINE VF NearestCode(VF scaled, const WeightedFormat& format) {
  const F32 df;
  return hn::Min(hn::Max(hn::Round(scaled), hn::Set(df, format.least)), hn::Set(df, format.greatest));
}

template <bool kHasOffset>
static HWY_INLINE VF Above(float value, VF offset) {
  const auto v = hn::Set(F32(), value);
  return kHasOffset ? hn::Sub(v, offset) : v;
}

static HWY_INLINE VF Inverse(VF d) {
  const F32 df;
  return hn::IfThenZeroElse(hn::Eq(d, hn::Zero(df)), hn::Div(hn::Set(df, 1.0f), d));
}

// Zero where the divisor is too small to mean anything.
static HWY_INLINE VF Quotient(VF dividend, VF divisor) {
  const F32 df;
  return hn::IfThenElseZero(hn::Gt(divisor, hn::Set(df, kSmallestDivisor)), hn::Div(dividend, divisor));
}

static HWY_INLINE VF RoundedToHalf(VF value) { return F16::ToFloat(F16::FromFloat(value)); }

// What leaves the least error with the codes that another scale and offset give.
template <bool kHasOffset>
static HWY_INLINE Fitted Fit(const WeightedBlock& block, const WeightedFormat& format, VF inverse, VF base) {
  const F32 df;
  auto codes = hn::Zero(df), squares = hn::Zero(df), products = hn::Zero(df);
  for (size_t i = 0; i < 32; ++i) {
    const auto above = Above<kHasOffset>(block.values[i], base);
    const auto code = NearestCode(hn::Mul(above, inverse), format);
    const auto weighted = hn::Mul(hn::Set(df, block.weights[i]), code);
    if (kHasOffset) codes = hn::Add(codes, weighted);
    squares = hn::Add(squares, hn::Mul(weighted, code));
    products = hn::Add(products, hn::Mul(weighted, hn::Set(df, block.values[i])));
  }
  if (!kHasOffset) return {Quotient(products, squares), hn::Zero(df)};
  const auto weights = hn::Set(df, block.sum_of_weights);
  const auto values = hn::Set(df, block.weighted_sum);
  const auto determinant = hn::Sub(hn::Mul(weights, squares), hn::Mul(codes, codes));
  const auto d = Quotient(hn::Sub(hn::Mul(weights, products), hn::Mul(values, codes)), determinant);
  const auto m = hn::Div(hn::Sub(values, hn::Mul(d, codes)), weights);
  return {d, m};
}

template <bool kHasOffset>
static HWY_INLINE VF Error(const WeightedBlock& block, const WeightedFormat& format, Fitted fitted) {
  const F32 df;
  const auto inverse = Inverse(fitted.d);
  auto error = hn::Zero(df);
  for (size_t i = 0; i < 32; ++i) {
    const auto above = Above<kHasOffset>(block.values[i], fitted.m);
    const auto code = NearestCode(hn::Mul(above, inverse), format);
    const auto difference = hn::Sub(hn::Mul(fitted.d, code), above);
    error = hn::Add(error, hn::Mul(hn::Set(df, block.weights[i]), hn::Mul(difference, difference)));
  }
  return error;
}

// Finds the scale and the offset that leave the least error. False when none is finite.
template <bool kHasOffset>
static HWY_INLINE bool Search(const WeightedBlock& block, const WeightedFormat& format, float range,
                              float base, float* d, float* m) {
  const F32 df;
  HWY_ALIGN float inverses[kMostCandidates];
  HWY_ALIGN float errors[16], scales[16], offsets[16];
  float least = std::numeric_limits<float>::infinity();
  for (size_t k = 0; k < format.candidates; ++k) inverses[k] = CandidateCode(format, k) / range;
  for (size_t k = 0; k < format.candidates; k += hn::Lanes(df)) {
    auto fitted = Fit<kHasOffset>(block, format, hn::Load(df, inverses + k), hn::Set(df, base));
    fitted = Fit<kHasOffset>(block, format, Inverse(fitted.d), fitted.m);
    fitted = {RoundedToHalf(fitted.d), RoundedToHalf(fitted.m)};
    hn::Store(Error<kHasOffset>(block, format, fitted), df, errors);
    hn::Store(fitted.d, df, scales);
    hn::Store(fitted.m, df, offsets);
    for (size_t lane = 0; lane < hn::Lanes(df); ++lane) {
      if (!(errors[lane] < least)) continue;
      least = errors[lane];
      *d = scales[lane];
      *m = offsets[lane];
    }
  }
  return least < std::numeric_limits<float>::infinity();
}

static HWY_INLINE void StoreFound(const WeightedBlock& block, const WeightedFormat& format, float d,
                                  float m, uint8_t* to) {
  const F32 df;
  const I32 di;
  HWY_ALIGN int32_t codes[32];
  const auto inverse = Inverse(hn::Set(df, d));
  for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
    const auto above = hn::Sub(hn::Load(df, block.values + i), hn::Set(df, m));
    const auto code = NearestCode(hn::Mul(above, inverse), format);
    hn::Store(hn::ConvertTo(di, hn::Sub(code, hn::Set(df, format.least))), di, codes + i);
  }
  const Half scale = HalfOfFloat(d), offset = HalfOfFloat(m);
  *to++ = scale.bytes[0];
  *to++ = scale.bytes[1];
  if (format.has_offset) {
    *to++ = offset.bytes[0];
    *to++ = offset.bytes[1];
  }
  if (format.has_fifth_bits) {
    uint32_t fifths = 0;
    for (size_t i = 0; i < 32; ++i) fifths |= static_cast<uint32_t>(codes[i] >> 4) << i;
    for (int i = 0; i < 4; ++i) *to++ = static_cast<uint8_t>(fifths >> (8 * i));
  }
  for (size_t i = 0; i < 16; ++i) {
    *to++ = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  }
}

static HWY_INLINE float MeanSquare(const float* values, size_t count) {
  // The square of a 32-bit value is exact, so that fusing the addition would change nothing.
  double sums[8] = {};
  for (size_t i = 0; i < count; i += 8) {
    for (size_t j = 0; j < 8; ++j) {
      const double value = static_cast<double>(values[i + j]);
      sums[j] += value * value;
    }
  }
  const double sum = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
  return static_cast<float>(sum / static_cast<double>(count));
}

template <bool kHasOffset>
static HWY_INLINE void EncodeRow(const WeightedFormat& format, const float* values, size_t count,
                                 const float* importance, uint8_t* output) {
  WeightedBlock block;
  const float mean_square = MeanSquare(values, count);
  for (size_t column = 0; column < count; column += 32, values += 32, output += format.bytes) {
    float low = values[0], high = values[0];
    for (size_t i = 1; i < 32; ++i) {
      low = std::min(low, values[i]);
      high = std::max(high, values[i]);
    }
    // Without an offset the largest magnitude, with its sign.
    const float range = kHasOffset ? high - low : high >= -low ? high : low;
    float d, m;
    // A scale below is zero in 16 bits, one above infinite, with any codes.
    if (std::max(range, -range) > kSmallestRange && std::max(-low, high) < kLargestMagnitude) {
      Weigh(values, importance + column, mean_square, &block);
      if (Search<kHasOffset>(block, format, range, kHasOffset ? low : 0, &d, &m)) {
        StoreFound(block, format, d, m, output);
        continue;
      }
    }
    format.encode(values, 1, 32, nullptr, output);
  }
}

static void EncodeWeighted(const WeightedFormat& format, const float* values, size_t rows,
                           size_t row_length, const float* importance, uint8_t* output) {
  for (size_t row = 0; row < rows; ++row) {
    format.has_offset ? EncodeRow<true>(format, values, row_length, importance, output)
                      : EncodeRow<false>(format, values, row_length, importance, output);
    values += row_length;
    output += row_length / 32 * format.bytes;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(EncodeWeighted);

void EncodeWithImportance(const WeightedFormat& format, const float* values, size_t rows,
                          size_t row_length, const float* importance, uint8_t* output) {
  HWY_DYNAMIC_DISPATCH(EncodeWeighted)(format, values, rows, row_length, importance, output);
}

}  // namespace nibble
#endif
