// Blocks side by side: lane b of every vector belongs to block b of a group of 16, whatever the width
// of the vectors. Each lane so adds in the order in which ggml's loops do, and rounds as they do.
#include <string.h>

#include <algorithm>
#include <limits>

#include <hwy/highway.h>

#include "half-inl.h"

#if defined(NIBBLE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_LANES_INL_H_
#undef NIBBLE_LANES_INL_H_
#else
#define NIBBLE_LANES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

constexpr size_t kLanes = 16;

// ggml takes a block below this for zeros.
constexpr float kNegligible = 1e-15f;
// Above 2^30 no factor of 16 bits is finite; up to there nothing that the searches compute overflows.
constexpr float kHuge = 0x1p30f;

static HWY_INLINE VF Load(const float* from) { return hn::Load(F32(), from); }
static HWY_INLINE void Store(VF value, float* to) { hn::Store(value, F32(), to); }
static HWY_INLINE VF Splat(float value) { return hn::Set(F32(), value); }

// A group of blocks of `kSize` values, in memory and in lanes.
template <size_t kSize>
struct Group {
  // Lanes beyond the last block repeat it.
  size_t count;
  const float* blocks[kLanes];
  const float* weights[kLanes];
  // Value i of block b is columns[i * kLanes + b].
  HWY_ALIGN float columns[kSize * kLanes];
  HWY_ALIGN float replaced[kLanes * kSize];

  HWY_INLINE void Read(const float* values, size_t first, size_t total, size_t row_length,
                       const float* importance) {
    count = std::min(kLanes, total - first);
    const size_t per_row = row_length / kSize;
    for (size_t b = 0; b < kLanes; ++b) {
      const size_t block = first + std::min(b, count - 1);
      blocks[b] = Ordinary(values + block * kSize, replaced + b * kSize);
      if (importance != nullptr) weights[b] = importance + block % per_row * kSize;
    }
    Transpose(blocks, kSize, columns);
  }

  // `values`, or else the same within bounds.
  static HWY_INLINE const float* Ordinary(const float* values, float* replacement) {
    const F32 df;
    const auto limit = Splat(kHuge);
    auto largest = hn::Zero(df);
    for (size_t i = 0; i < kSize; i += hn::Lanes(df)) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(df, values + i)));
    }
    if (HWY_LIKELY(hn::AllTrue(df, hn::Le(largest, limit)))) return values;
    for (size_t i = 0; i < kSize; i += hn::Lanes(df)) {
      const auto value = hn::LoadU(df, values + i);
      Store(hn::Min(hn::Max(value, hn::Neg(limit)), limit), replacement + i);
    }
    return replacement;
  }

  // Four by four.
  static HWY_INLINE void Transpose(const float* const* rows, size_t size, float* to) {
    const hn::Full128<float> d;
    const hn::Full128<double> dd;
    for (size_t i = 0; i < size; i += 4) {
      for (size_t b = 0; b < kLanes; b += 4) {
        const auto r0 = hn::LoadU(d, rows[b] + i), r1 = hn::LoadU(d, rows[b + 1] + i);
        const auto r2 = hn::LoadU(d, rows[b + 2] + i), r3 = hn::LoadU(d, rows[b + 3] + i);
        const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1));
        const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3));
        const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
        const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
        float* out = to + i * kLanes + b;
        hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, low01, low23)), d, out);
        hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23)), d, out + kLanes);
        hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, high01, high23)), d, out + 2 * kLanes);
        hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23)), d, out + 3 * kLanes);
      }
    }
  }

  // The weights of `length` columns from `start` on, in lanes.
  HWY_INLINE void ReadWeights(size_t start, size_t length, float* to) const {
    const float* rows[kLanes];
    for (size_t b = 0; b < kLanes; ++b) rows[b] = weights[b] + start;
    Transpose(rows, length, to);
  }

  // `factor` times the mean square of each block.
  HWY_INLINE void MeanSquares(float factor, float* means) const {
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      auto sum = hn::Zero(F32());
      for (size_t i = 0; i < kSize; ++i) {
        const auto x = Load(columns + i * kLanes + g);
        sum = hn::Add(sum, hn::Mul(x, x));
      }
      Store(hn::Mul(sum, Splat(factor / kSize)), means + g);
    }
  }

  // Weights of `length` columns from `start` on: importance * sqrt(variance + value^2).
  HWY_INLINE void WeighByImportance(size_t start, size_t length, const float* variance,
                                    float* to) const {
    ReadWeights(start, length, to);
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      const auto sigma2 = Load(variance + g);
      for (size_t i = 0; i < length * kLanes; i += kLanes) {
        const auto x = Load(columns + start * kLanes + i + g);
        const auto root = hn::Sqrt(hn::Add(sigma2, hn::Mul(x, x)));
        Store(hn::Mul(Load(to + i + g), root), to + i + g);
      }
    }
  }
};

// The value of greatest magnitude, the first of several.
template <size_t kCount>
static HWY_INLINE VF Extreme(const float* x) {
  auto extreme = hn::Zero(F32());
  for (size_t i = 0; i < kCount; ++i) {
    const auto value = Load(x + i * kLanes);
    extreme = hn::IfThenElse(hn::Gt(hn::Abs(value), hn::Abs(extreme)), value, extreme);
  }
  return extreme;
}

// Nearest integers, ties to even, within bounds. `value` is no NaN.
static HWY_INLINE VF RoundWithin(VF value, float least, float greatest) {
  return hn::Min(hn::Max(hn::Round(value), Splat(least)), Splat(greatest));
}

// ggml's nearest integer: beyond 22 bits it is what is left of the fraction, and 0 for a NaN. Within
// these bounds afterwards.
static HWY_INLINE VF NearestWithin(VF value, int32_t least, int32_t greatest) {
  const F32 df;
  const I32 di;
  const auto bits = hn::BitCast(di, hn::Add(value, Splat(12582912.0f)));
  const auto integer = hn::Sub(hn::And(bits, hn::Set(di, 0x7FFFFF)), hn::Set(di, 0x400000));
  const auto within = hn::Min(hn::Max(integer, hn::Set(di, least)), hn::Set(di, greatest));
  return hn::ConvertTo(df, within);
}

// The factor of a block as it is stored: infinite where it is too great for 16 bits. The value that
// the levels are found with is finite nevertheless.
struct Factor {
  VF value;
  VI bits;

  HWY_INLINE explicit Factor(VF exact) {
    const auto greatest = Splat(65504.0f);
    const auto infinity = Splat(std::numeric_limits<float>::infinity());
    bits = F16::FromFloat(hn::IfThenElse(hn::IsNaN(exact), infinity, exact));
    value = hn::Min(hn::Max(F16::ToFloat(bits), hn::Neg(greatest)), greatest);
  }
};

// Encodes rows as blocks of `Type`.
template <class Type>
static HWY_INLINE void EncodeRows(const float* values, size_t rows, size_t row_length,
                                  const float* importance, uint8_t* output) {
  Group<Type::kSize> group;
  const size_t total = rows * (row_length / Type::kSize);
  for (size_t first = 0; first < total; first += kLanes) {
    group.Read(values, first, total, row_length, importance);
    Type::Encode(group, importance != nullptr, output + first * Type::kBytes);
  }
}

static HWY_INLINE void StoreHalf(int32_t bits, uint8_t* to) {
  to[0] = static_cast<uint8_t>(bits & 0xFF);
  to[1] = static_cast<uint8_t>(bits >> 8);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
