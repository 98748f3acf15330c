#include "blocks.h"
#include "blocks_weighted.h"
#include "nibble_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../blocks_encode.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "blocks-inl.h"
#include "extremes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

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
