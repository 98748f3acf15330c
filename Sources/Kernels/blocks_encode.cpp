#include <algorithm>

#include "blocks.h"
#include "blocks_weighted.h"
#include "nibble_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../blocks_encode.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The largest magnitude of 32 values.
static HWY_INLINE float LargestMagnitude32(const float* values) {
  const F32 df;
  auto largest = hn::Abs(hn::LoadU(df, values));
  for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(df, values + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(df, largest));
}

// The first of 32 values whose magnitude is `magnitude`, which one of them has.
static HWY_INLINE float FirstOfMagnitude(const float* values, float magnitude) {
  const F32 df;
  size_t i = 0;
  intptr_t lane = -1;
  for (; lane < 0; i += hn::Lanes(df)) {
    lane = hn::FindFirstTrue(df, hn::Eq(hn::Abs(hn::LoadU(df, values + i)), hn::Set(df, magnitude)));
  }
  return values[i - hn::Lanes(df) + static_cast<size_t>(lane)];
}

static HWY_INLINE float Reciprocal(float value) { return value == 0 ? 0 : 1 / value; }

// Rounded toward zero; what is not finite, where the reciprocal of a scale is not, becomes zero.
static HWY_INLINE VI Codes(VF scaled, int32_t largest) {
  const F32 df;
  const I32 di;
  const auto is_finite = hn::RebindMask(di, hn::Lt(scaled, hn::Set(df, 1024.0f)));
  return hn::Min(hn::IfThenElseZero(is_finite, hn::ConvertTo(di, scaled)), hn::Set(di, largest));
}

// How a value becomes a code: the reciprocal of a negative scale, and where zero is.
struct SignedCodes {
  VF inverse, zero;
  int32_t largest;

  HWY_INLINE SignedCodes(float d, float levels)
      : inverse(hn::Set(F32(), Reciprocal(d))),
        zero(hn::Set(F32(), levels + 0.5f)),
        largest(static_cast<int32_t>(2 * levels) - 1) {}

  HWY_INLINE VI operator()(const float* values) const {
    return Codes(hn::Add(hn::Mul(hn::LoadU(F32(), values), inverse), zero), largest);
  }
};

struct OffsetCodes {
  VF inverse, offset;
  int32_t largest;

  HWY_INLINE OffsetCodes(float d, float m, int32_t largest_code)
      : inverse(hn::Set(F32(), Reciprocal(d))), offset(hn::Set(F32(), m)), largest(largest_code) {}

  HWY_INLINE VI operator()(const float* values) const {
    const auto above = hn::Sub(hn::LoadU(F32(), values), offset);
    return Codes(hn::Add(hn::Mul(above, inverse), hn::Set(F32(), 0.5f)), largest);
  }
};

static HWY_INLINE void StoreCodes(VI codes, uint8_t* to) {
  const hn::Rebind<uint8_t, F32> d8;
  const hn::RebindToUnsigned<F32> du;
  hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, codes)), d8, to);
}

template <class Code>
static HWY_INLINE void EncodeNibbles(const float* values, const Code& code, uint8_t* to) {
  for (size_t i = 0; i < 16; i += hn::Lanes(F32())) {
    StoreCodes(hn::Or(code(values + i), hn::ShiftLeft<4>(code(values + i + 16))), to + i);
  }
}

// `high` and `to` receive the fifth bits and the nibbles.
template <class Code>
static HWY_INLINE void EncodeFiveBits(const float* values, const Code& code, uint8_t* high, uint8_t* to) {
  const I32 di;
  uint32_t fifths = 0;
  for (size_t i = 0; i < 16; i += hn::Lanes(di)) {
    const auto first = code(values + i), second = code(values + i + 16);
    fifths |= Bits(hn::Gt(first, hn::Set(di, 15))) << i;
    fifths |= Bits(hn::Gt(second, hn::Set(di, 15))) << (i + 16);
    const auto low = hn::And(first, hn::Set(di, 15));
    StoreCodes(hn::Or(low, hn::ShiftLeft<4>(hn::And(second, hn::Set(di, 15)))), to + i);
  }
  for (int i = 0; i < 4; ++i) high[i] = static_cast<uint8_t>(fifths >> (8 * i));
}

// The negative scale of Q4_0 and Q5_0.
static HWY_INLINE float NegativeScale(const float* values, float levels) {
  const float largest = LargestMagnitude32(values);
  return (largest == 0 ? 0 : FirstOfMagnitude(values, largest)) / -levels;
}

// The extremes of four times 32 values, found side by side: one after the other, most lanes would idle while so few
// values are reduced to one.
struct Extremes4 {
  alignas(16) float greatest[4];
  // Negated.
  alignas(16) float least[4];

  HWY_INLINE explicit Extremes4(const float* values) {
    const F32 df;
    VF high[4], low[4];
    for (size_t b = 0; b < 4; ++b) {
      const float* block = values + 32 * b;
      auto most = hn::LoadU(df, block), fewest = most;
      for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
        const auto value = hn::LoadU(df, block + i);
        most = hn::Max(most, value);
        fewest = hn::Min(fewest, value);
      }
      high[b] = most;
      low[b] = hn::Neg(fewest);
    }
    MaxOfEach(high, greatest);
    MaxOfEach(low, least);
  }

 private:
  // One number for each of four vectors.
  static HWY_INLINE void MaxOfEach(const VF (&v)[4], float* to) {
    const F32 df;
    const hn::RepartitionToWide<F32> dw;
    const hn::CappedTag<float, 4> d4;
    // Within 128 bits first: each lane of `all` is the greatest of one vector's four.
    const auto first = hn::Max(hn::InterleaveLower(df, v[0], v[1]), hn::InterleaveUpper(df, v[0], v[1]));
    const auto second = hn::Max(hn::InterleaveLower(df, v[2], v[3]), hn::InterleaveUpper(df, v[2], v[3]));
    const auto wide_first = hn::BitCast(dw, first), wide_second = hn::BitCast(dw, second);
    const auto all = hn::Max(hn::BitCast(df, hn::InterleaveLower(dw, wide_first, wide_second)),
                             hn::BitCast(df, hn::InterleaveUpper(dw, wide_first, wide_second)));
    HWY_ALIGN float lanes[16];
    hn::Store(all, df, lanes);
    auto result = hn::Load(d4, lanes);
    for (size_t i = 4; i < hn::Lanes(df); i += 4) result = hn::Max(result, hn::Load(d4, lanes + i));
    hn::Store(result, d4, to);
  }
};

// The negative scales of four blocks of Q4_0 or Q5_0.
static HWY_INLINE void NegativeScales(const float* values, float levels, float* scales) {
  const hn::CappedTag<float, 4> d4;
  const Extremes4 extremes(values);
  const auto greatest = hn::Load(d4, extremes.greatest), least = hn::Load(d4, extremes.least);
  const auto largest = hn::Max(greatest, least);
  const auto value = hn::IfThenElse(hn::Gt(greatest, least), greatest, hn::Neg(least));
  // A zero of either sign counts as positive.
  const auto is_zero = hn::Eq(largest, hn::Zero(d4));
  hn::StoreU(hn::Div(hn::IfThenZeroElse(is_zero, value), hn::Set(d4, -levels)), d4, scales);
  // Of both signs: the first counts.
  const auto is_both = hn::AndNot(is_zero, hn::Eq(greatest, least));
  if (HWY_UNLIKELY(!hn::AllFalse(d4, is_both))) {
    for (size_t b = 0; b < 4; ++b) scales[b] = NegativeScale(values + 32 * b, levels);
  }
}

// The least and the greatest of 32 values; of two zeros the first is the least.
struct ValueRange {
  float low, high;

  HWY_INLINE explicit ValueRange(const float* values) {
    const F32 df;
    auto least = hn::LoadU(df, values), greatest = least;
    for (size_t i = hn::Lanes(df); i < 32; i += hn::Lanes(df)) {
      const auto value = hn::LoadU(df, values + i);
      least = hn::Min(least, value);
      greatest = hn::Max(greatest, value);
    }
    low = hn::GetLane(hn::MinOfLanes(df, least));
    // Zero is added for the sake of the sign, which a scale of zero must not have.
    high = hn::GetLane(hn::MaxOfLanes(df, greatest)) + 0.0f;
    if (low == 0) low = *std::find(values, values + 32, 0.0f);
  }
};

static HWY_INLINE void EncodeOneQ4_0(const float* values, float d, Q4_0* to) {
  to->d = HalfOfFloat(d);
  EncodeNibbles(values, SignedCodes(d, 8), to->codes);
}

static void EncodeQ4_0(const float* values, size_t count, uint8_t* output) {
  auto* to = reinterpret_cast<Q4_0*>(output);
  float scales[4];
  for (; count >= 4; count -= 4, values += 4 * 32) {
    NegativeScales(values, 8, scales);
    for (size_t b = 0; b < 4; ++b, ++to) EncodeOneQ4_0(values + 32 * b, scales[b], to);
  }
  for (; count > 0; --count, ++to, values += 32) EncodeOneQ4_0(values, NegativeScale(values, 8), to);
}

static void EncodeQ4_1(const float* values, size_t count, uint8_t* output) {
  auto* to = reinterpret_cast<Q4_1*>(output);
  for (size_t b = 0; b < count; ++b, ++to, values += 32) {
    const ValueRange range(values);
    const float d = (range.high - range.low) / 15;
    to->d = HalfOfFloat(d);
    to->m = HalfOfFloat(range.low);
    EncodeNibbles(values, OffsetCodes(d, range.low, 15), to->codes);
  }
}

static HWY_INLINE void EncodeOneQ5_0(const float* values, float d, Q5_0* to) {
  to->d = HalfOfFloat(d);
  EncodeFiveBits(values, SignedCodes(d, 16), to->high, to->codes);
}

static void EncodeQ5_0(const float* values, size_t count, uint8_t* output) {
  auto* to = reinterpret_cast<Q5_0*>(output);
  float scales[4];
  for (; count >= 4; count -= 4, values += 4 * 32) {
    NegativeScales(values, 16, scales);
    for (size_t b = 0; b < 4; ++b, ++to) EncodeOneQ5_0(values + 32 * b, scales[b], to);
  }
  for (; count > 0; --count, ++to, values += 32) EncodeOneQ5_0(values, NegativeScale(values, 16), to);
}

static void EncodeQ5_1(const float* values, size_t count, uint8_t* output) {
  auto* to = reinterpret_cast<Q5_1*>(output);
  for (size_t b = 0; b < count; ++b, ++to, values += 32) {
    const ValueRange range(values);
    const float d = (range.high - range.low) / 31;
    to->d = HalfOfFloat(d);
    to->m = HalfOfFloat(range.low);
    EncodeFiveBits(values, OffsetCodes(d, range.low, 31), to->high, to->codes);
  }
}

static void EncodeQ8_0(const float* values, size_t count, uint8_t* output) {
  const F32 df;
  const I32 di;
  // Added before the fraction is cut off it rounds halves away from zero, and nothing else: one half
  // itself would make the largest value below it one.
  const auto almost_half = hn::Set(df, 0x1.fffffep-2f);
  auto* to = reinterpret_cast<Q8_0*>(output);
  for (size_t b = 0; b < count; ++b, ++to, values += 32) {
    const float d = LargestMagnitude32(values) / 127;
    to->d = HalfOfFloat(d);
    const auto inverse = hn::Set(df, Reciprocal(d));
    for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
      const auto scaled = hn::Mul(hn::LoadU(df, values + i), inverse);
      const auto rounded = hn::Add(scaled, hn::CopySign(almost_half, scaled));
      const auto is_finite = hn::RebindMask(di, hn::Lt(hn::Abs(scaled), hn::Set(df, 1024.0f)));
      StoreCodes(hn::IfThenElseZero(is_finite, hn::ConvertTo(di, rounded)), to->codes + i);
    }
  }
}

// The exponent of MXFP4, as its Swift twin explains it.
static HWY_INLINE uint8_t ExponentOfScale(float largest) {
  if (largest < 0x1p-125f) return 0;
  const uint32_t bits = BitsOfFloat(largest);
  const int whole = static_cast<int>(bits >> 23) - 127;
  const int next = whole + 1;
  const int magnitude = next > 0 ? next - 1 : -next;
  if (magnitude != 0) {
    const int unit = 31 - static_cast<int>(hwy::Num0BitsAboveMS1Bit_Nonzero32(static_cast<uint32_t>(magnitude)));
    // Steps of 2^-23 below two, of which each takes 2^-24 from half the mantissa.
    const double below = static_cast<double>(0x800000 - (bits & 0x7FFFFF)) * 0x1p-24;
    if (below * 1.4426950408889634 < static_cast<double>(1u << unit) * 0x1p-24) {
      return static_cast<uint8_t>(next + 125);
    }
  }
  return static_cast<uint8_t>(whole + 125);
}

static void EncodeMXFP4(const float* values, size_t count, uint8_t* output) {
  auto* to = reinterpret_cast<MXFP4*>(output);
  // Halfway between two levels the lower code is taken.
  constexpr float kMidpoints[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};
  for (size_t b = 0; b < count; ++b, ++to, values += 32) {
    to->exponent = ExponentOfScale(LargestMagnitude32(values));
    const float d = HalfPowerOfTwo(to->exponent);
    // With the largest exponent of all, levels above are infinite.
    const int32_t greatest = to->exponent > 252 ? 5 : 7;
    const auto code = [&](const float* from) HWY_ATTR {
      const F32 df;
      const I32 di;
      const auto value = hn::LoadU(df, from);
      auto level = hn::Zero(di);
      for (const float midpoint : kMidpoints) {
        const auto above = hn::RebindMask(di, hn::Gt(hn::Abs(value), hn::Set(df, midpoint * d)));
        level = hn::Sub(level, hn::VecFromMask(di, above));
      }
      level = hn::Min(level, hn::Set(di, greatest));
      const auto sign = hn::And(hn::ShiftRight<28>(hn::BitCast(di, value)), hn::Set(di, 8));
      // There is one zero only.
      return hn::IfThenZeroElse(hn::Eq(level, hn::Zero(di)), hn::Or(level, sign));
    };
    EncodeNibbles(values, code, to->codes);
  }
}

static size_t FirstNonFinite(const float* values, size_t count) {
  const F32 df;
  const I32 di;
  const size_t lanes = hn::Lanes(df);
  const auto infinity = hn::Set(di, 0x7F800000);
  const auto not_finite = [&](size_t i) HWY_ATTR {
    return hn::And(hn::BitCast(di, hn::LoadU(df, values + i)), infinity);
  };
  size_t i = 0;
  for (; count - i >= 4 * lanes; i += 4 * lanes) {
    const auto largest = hn::Max(hn::Max(not_finite(i), not_finite(i + lanes)),
                                 hn::Max(not_finite(i + 2 * lanes), not_finite(i + 3 * lanes)));
    if (HWY_UNLIKELY(!hn::AllFalse(di, hn::Eq(largest, infinity)))) break;
  }
  for (; i < count; ++i) {
    if ((BitsOfFloat(values[i]) & 0x7F800000) == 0x7F800000) return i;
  }
  return count;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
#define NIBBLE_ENCODER(kernel, name)                                                        \
  HWY_EXPORT(kernel);                                                                       \
  extern "C" void nibble_encode_##name(const float* values, size_t rows, size_t row_length, \
                                       const float*, uint8_t* output) {                     \
    HWY_DYNAMIC_DISPATCH(kernel)(values, rows * row_length / 32, output);                   \
  }

// The same, with a search where there is importance; then follow the members of WeightedFormat.
#define NIBBLE_WEIGHTED_ENCODER(kernel, name, ...)                                              \
  HWY_EXPORT(kernel);                                                                           \
  extern "C" void nibble_encode_##name(const float* values, size_t rows, size_t row_length,     \
                                       const float* importance, uint8_t* output) {              \
    if (importance == nullptr) {                                                                \
      HWY_DYNAMIC_DISPATCH(kernel)(values, rows * row_length / 32, output);                     \
    } else {                                                                                    \
      EncodeWithImportance({__VA_ARGS__, nibble_encode_##name}, values, rows, row_length,       \
                           importance, output);                                                 \
    }                                                                                           \
  }

NIBBLE_WEIGHTED_ENCODER(EncodeQ4_0, q4_0, -8, 7, false, false, 32, sizeof(Q4_0))
NIBBLE_WEIGHTED_ENCODER(EncodeQ4_1, q4_1, 0, 15, true, false, 48, sizeof(Q4_1))
NIBBLE_WEIGHTED_ENCODER(EncodeQ5_0, q5_0, -16, 15, false, true, 32, sizeof(Q5_0))
NIBBLE_WEIGHTED_ENCODER(EncodeQ5_1, q5_1, 0, 31, true, true, 48, sizeof(Q5_1))
NIBBLE_ENCODER(EncodeQ8_0, q8_0)
NIBBLE_ENCODER(EncodeMXFP4, mxfp4)

extern "C" size_t nibble_first_overflow(const uint8_t* blocks, size_t count, size_t size, size_t half) {
  // The second byte has all bits of the exponent.
  const uint8_t* high = blocks + half + 1;
  for (size_t b = 0; b < count; ++b, high += size) {
    if ((*high & 0x7C) == 0x7C) return b;
  }
  return count;
}

HWY_EXPORT(FirstNonFinite);

extern "C" size_t nibble_first_non_finite(const float* values, size_t count) {
  return HWY_DYNAMIC_DISPATCH(FirstNonFinite)(values, count);
}

}  // namespace nibble
#endif
