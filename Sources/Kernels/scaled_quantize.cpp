#include "nibble_scaled.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../scaled_quantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "groups-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The least distance from 1 in a type: what a scale is where all values are zero.
template <class Values>
struct Least;
template <>
struct Least<HalfValues<BF16>> { static constexpr float kStep = 0x1p-7f; };
template <>
struct Least<HalfValues<F16>> { static constexpr float kStep = 0x1p-10f; };
template <>
struct Least<FloatValues> { static constexpr float kStep = 0x1p-23f; };

// The bits of the nearest number of E4M3; magnitudes are 448 at most. Integer operations and one exact addition.
static HWY_INLINE VI NearestE4M3(VF value) {
  const F32 df;
  const I32 di;
  const auto bits = hn::BitCast(di, value);
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
  const auto odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(di, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(hn::Add(magnitude, hn::Set(di, 0x7FFFF)), odd));
  const auto normal = hn::Sub(rounded, hn::Set(di, (127 - 7) << 3));
  // The last place of 2^14 is 2^-9, that of a subnormal: the addition rounds.
  const auto base = hn::Set(df, 0x1p14f);
  const auto subnormal = hn::Sub(hn::BitCast(di, hn::Add(hn::BitCast(df, magnitude), base)), hn::BitCast(di, base));
  const auto is_small = hn::Lt(magnitude, hn::Set(di, (127 - 6) << 23));
  const auto sign = hn::And(hn::ShiftRight<24>(bits), hn::Set(di, 0x80));
  return hn::Or(hn::IfThenElse(is_small, subnormal, normal), sign);
}

static HWY_INLINE float FirstLane(VI bits) { return hn::GetLane(hn::BitCast(F32(), bits)); }

// The value of positive bits of E4M3.
static inline float ValueOfE4M3(int32_t code) {
  const int32_t exponent = code >> 3;
  const float fraction = static_cast<float>(code & 7) * 0.125f;
  if (exponent == 0) return fraction * 0x1p-6f;
  return (1.0f + fraction) * FirstLane(hn::Set(I32(), (exponent + 127 - 7) << 23));
}

template <class Values>
static HWY_INLINE float Rounded(float value) {
  return hn::GetLane(Values::Round(hn::Set(F32(), value)));
}

struct FP8 {
  static constexpr int kBits = 8;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    const F32 df;
    // There is a zero point of 0, and so there is one zero only among the quotients.
    const auto quotient = hn::Add(Values::Round(hn::Div(value, scale)), hn::Zero(df));
    return NearestE4M3(hn::Min(hn::Max(quotient, hn::Set(df, -448.0f)), hn::Set(df, 448.0f)));
  }
  // What the values are divided by, and the scale that is stored.
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    return Own<Values>(largest, 448.0f, at, scales);
  }
  template <class Values>
  static HWY_INLINE float Own(float largest, float range, size_t at, void* scales) {
    float scale = Rounded<Values>(largest / range);
    if (scale == 0.0f) scale = Least<Values>::kStep;
    HWY_ALIGN typename Values::Bits stored[16];
    Values::Store(hn::Set(F32(), scale), stored);
    memcpy(static_cast<typename Values::Bits*>(scales) + at, stored, sizeof(stored[0]));
    return scale;
  }
};

struct Int4 {
  static constexpr int kBits = 4;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) {
    const F32 df;
    const auto quotient = Values::Round(hn::Div(value, scale));
    const auto bounded = hn::Min(hn::Max(quotient, hn::Set(df, -8.0f)), hn::Set(df, 7.0f));
    return hn::Add(hn::NearestInt(bounded), hn::Set(I32(), 8));
  }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    return FP8::Own<Values>(largest, 7.5f, at, scales);
  }
};

static HWY_INLINE VI NearestE2M1(VF quotient) {
  const F32 df;
  const I32 di;
  const auto magnitude = hn::Abs(quotient);
  auto code = hn::Zero(di);
  // Halfway between two numbers the even one is taken.
  for (const float midpoint : {0.25f, 1.25f, 2.5f, 5.0f}) {
    code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(magnitude, hn::Set(df, midpoint)))));
  }
  for (const float midpoint : {0.75f, 1.75f, 3.5f}) {
    code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, hn::Ge(magnitude, hn::Set(df, midpoint)))));
  }
  const auto is_negative = hn::RebindMask(di, hn::Lt(quotient, hn::Zero(df)));
  return hn::Or(code, hn::IfThenElseZero(is_negative, hn::Set(di, 8)));
}

struct MXFP4 {
  static constexpr int kBits = 4;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) { return NearestE2M1(hn::Div(value, scale)); }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float, size_t at, void* scales) {
    int32_t bits;
    memcpy(&bits, &largest, 4);
    // From 1.75 on the next power of two is taken; 4 is the greatest power of two that has a code.
    const int32_t exponent = HWY_MAX(((bits + (1 << 21)) >> 23) - 2, 0);
    static_cast<uint8_t*>(scales)[at] = static_cast<uint8_t>(exponent);
    return FirstLane(hn::Set(I32(), exponent == 0 ? 0x400000 : exponent << 23));
  }
};

struct NVFP4 {
  static constexpr int kBits = 4;
  template <class Values>
  static HWY_INLINE VI Code(VF value, VF scale) { return NearestE2M1(hn::Div(value, scale)); }
  template <class Values>
  static HWY_INLINE float Scale(float largest, float global_scale, size_t at, void* scales) {
    const float scaled = HWY_MIN(Rounded<Values>(largest / 6.0f) * global_scale, 448.0f);
    int32_t code = hn::GetLane(NearestE4M3(hn::Set(F32(), scaled)));
    // 0.125 stands in for zero.
    if (code == 0) code = 0x20;
    static_cast<uint8_t*>(scales)[at] = static_cast<uint8_t>(code);
    return ValueOfE4M3(code) / global_scale;
  }
};

template <class Values>
static HWY_INLINE int32_t LargestBits(const typename Values::Bits* values, size_t count) {
  using T = typename Values::Lane;
  const hn::CappedTag<T, 64 / sizeof(T)> d;
  const auto* from = reinterpret_cast<const T*>(values);
  const auto mask = hn::Set(d, hwy::LimitsMax<T>());
  const size_t lanes = hn::Lanes(d);
  auto largest = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) largest = hn::Max(largest, hn::And(hn::LoadU(d, from + i), mask));
  if (i < count) {
    T rest[64 / sizeof(T)] = {};
    memcpy(rest, from + i, (count - i) * sizeof(T));
    largest = hn::Max(largest, hn::And(hn::LoadU(d, rest), mask));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Codes of values that share a divisor, a byte each.
template <class Format, class Values>
static HWY_INLINE void Encode(const typename Values::Bits* values, size_t count, float divisor, uint8_t* codes) {
  const F32 df;
  const hn::RebindToUnsigned<F32> du;
  const hn::Rebind<uint8_t, F32> d8;
  const size_t lanes = hn::Lanes(df);
  const auto scale = hn::Set(df, divisor);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto code = Format::template Code<Values>(Values::Load(values + i), scale);
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, code)), d8, codes + i);
  }
  if (i < count) {
    HWY_ALIGN typename Values::Bits rest[16] = {};
    HWY_ALIGN uint8_t last[16];
    memcpy(rest, values + i, (count - i) * sizeof(rest[0]));
    const auto code = Format::template Code<Values>(Values::Load(rest), scale);
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, code)), d8, last);
    memcpy(codes + i, last, count - i);
  }
}

template <class Format, class Values>
static size_t QuantizeValues(const void* from, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, float global_scale, uint8_t* codes, void* scales) {
  const auto* values = static_cast<const typename Values::Bits*>(from);
  HWY_ALIGN uint8_t unpacked[kCodesAtOnce];
  size_t at = 0;
  for (size_t top = 0; top < rows; top += block_rows) {
    const size_t bottom = HWY_MIN(rows, top + block_rows);
    for (size_t left = 0; left < columns; left += block_columns, ++at) {
      const size_t width = HWY_MIN(block_columns, columns - left);
      int32_t largest = 0;
      for (size_t row = top; row < bottom; ++row) {
        largest = HWY_MAX(largest, LargestBits<Values>(values + row * columns + left, width));
        if (HWY_UNLIKELY(largest >= Values::kInfinity)) return row * columns + left;
      }
      const float magnitude = hn::GetLane(Values::FromBits(hn::Set(I32(), largest)));
      const float divisor = Format::template Scale<Values>(magnitude, global_scale, at, scales);
      for (size_t row = top; row < bottom; ++row) {
        const size_t start = row * columns + left;
        if (Format::kBits == 8) {
          Encode<Format, Values>(values + start, width, divisor, codes + start);
          continue;
        }
        for (size_t i = 0; i < width; i += kCodesAtOnce) {
          const size_t here = HWY_MIN(kCodesAtOnce, width - i);
          Encode<Format, Values>(values + start + i, here, divisor, unpacked);
          PackCodes(4, unpacked, here, codes + (start + i) / 2);
        }
      }
    }
  }
  return rows * columns;
}

template <class Format>
static size_t QuantizeFormat(const void* values, int32_t type, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, float global_scale, uint8_t* codes, void* scales) {
  const auto quantize = type == nibble_bf16  ? QuantizeValues<Format, HalfValues<BF16>>
                        : type == nibble_f16 ? QuantizeValues<Format, HalfValues<F16>>
                                             : QuantizeValues<Format, FloatValues>;
  return quantize(values, rows, columns, block_rows, block_columns, global_scale, codes, scales);
}

static size_t QuantizeScaled(const void* values, int32_t type, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, int32_t format, float global_scale, uint8_t* codes,
                             void* scales) {
  const auto quantize = format == nibble_scaled_fp8     ? QuantizeFormat<FP8>
                        : format == nibble_scaled_int4  ? QuantizeFormat<Int4>
                        : format == nibble_scaled_mxfp4 ? QuantizeFormat<MXFP4>
                                                        : QuantizeFormat<NVFP4>;
  return quantize(values, type, rows, columns, block_rows, block_columns, global_scale, codes, scales);
}

template <class Values>
static uint32_t Largest(const void* values, size_t count) {
  const int32_t bits = LargestBits<Values>(static_cast<const typename Values::Bits*>(values), count);
  return static_cast<uint32_t>(hn::GetLane(hn::BitCast(I32(), Values::FromBits(hn::Set(I32(), bits)))));
}

static uint32_t LargestMagnitude(const void* values, int32_t type, size_t count) {
  const auto largest = type == nibble_bf16  ? Largest<HalfValues<BF16>>
                       : type == nibble_f16 ? Largest<HalfValues<F16>>
                                            : Largest<FloatValues>;
  return largest(values, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(QuantizeScaled);
HWY_EXPORT(LargestMagnitude);

extern "C" size_t nibble_quantize_scaled(const void* values, int32_t float_type, size_t rows, size_t columns,
                                         size_t block_rows, size_t block_columns, int32_t format,
                                         float global_scale, uint8_t* codes, void* scales) {
  return HWY_DYNAMIC_DISPATCH(QuantizeScaled)(values, float_type, rows, columns, block_rows, block_columns,
                                              format, global_scale, codes, scales);
}

extern "C" uint32_t nibble_largest_magnitude(const void* values, int32_t float_type, size_t count) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitude)(values, float_type, count);
}

}  // namespace nibble
#endif
