#include "nibble_codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../codes_dequantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "groups-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// A number of a few bits: sign, exponent with the usual bias, mantissa; subnormals but neither infinities nor
// NaN. Integer operations and one exact subtraction, so that no instruction set flushes anything.
template <int kExponentBits, int kMantissaBits>
static HWY_INLINE VF SmallFloat(VI code) {
  const F32 df;
  const I32 di;
  constexpr int kMagnitudeBits = kExponentBits + kMantissaBits;
  constexpr int32_t kRebias = 127 - ((1 << (kExponentBits - 1)) - 1);
  const auto sign = hn::ShiftLeft<31 - kMagnitudeBits>(hn::And(code, hn::Set(di, 1 << kMagnitudeBits)));
  const auto all = hn::Set(di, (1 << kMagnitudeBits) - 1);
  const auto magnitude = hn::ShiftLeft<23 - kMantissaBits>(hn::And(code, all));
  // A subnormal is its fraction with an implicit one, less that one.
  const auto one = hn::Set(di, (kRebias + 1) << 23);
  const auto subnormal =
      hn::BitCast(di, hn::Sub(hn::BitCast(df, hn::Add(magnitude, one)), hn::BitCast(df, one)));
  const auto normal = hn::Add(magnitude, hn::Set(di, kRebias << 23));
  const auto is_small = hn::Lt(magnitude, hn::Set(di, 1 << 23));
  return hn::BitCast(df, hn::Or(hn::IfThenElse(is_small, subnormal, normal), sign));
}

struct E4M3 {
  HWY_INLINE explicit E4M3(float) {}
  HWY_INLINE VF operator()(VI code) const {
    const I32 di;
    const auto is_nan = hn::Eq(hn::And(code, hn::Set(di, 0x7F)), hn::Set(di, 0x7F));
    const auto bits = hn::BitCast(di, SmallFloat<4, 3>(code));
    return hn::BitCast(F32(), hn::IfThenElse(is_nan, hn::Set(di, 0x7FC00000), bits));
  }
};

struct E5M2 {
  HWY_INLINE explicit E5M2(float) {}
  // The upper half of a float16.
  HWY_INLINE VF operator()(VI code) const { return F16::ToFloat(hn::ShiftLeft<8>(code)); }
};

struct E2M1 {
  HWY_INLINE explicit E2M1(float) {}
  HWY_INLINE VF operator()(VI code) const { return SmallFloat<2, 1>(code); }
};

struct E8M0 {
  HWY_INLINE explicit E8M0(float) {}
  HWY_INLINE VF operator()(VI code) const {
    const I32 di;
    // 2^-127 is a subnormal.
    const auto least = hn::IfThenElseZero(hn::Eq(code, hn::Zero(di)), hn::Set(di, 1 << 22));
    const auto is_nan = hn::Eq(code, hn::Set(di, 255));
    const auto bits = hn::Or(hn::ShiftLeft<23>(code), least);
    return hn::BitCast(F32(), hn::IfThenElse(is_nan, hn::Set(di, 0x7FC00000), bits));
  }
};

struct Int8 {
  HWY_INLINE explicit Int8(float) {}
  HWY_INLINE VF operator()(VI code) const {
    return hn::ConvertTo(F32(), hn::ShiftRight<24>(hn::ShiftLeft<24>(code)));
  }
};

struct Unsigned {
  VF origin;
  HWY_INLINE explicit Unsigned(float from) : origin(hn::Set(F32(), from)) {}
  HWY_INLINE VF operator()(VI code) const { return hn::Sub(hn::ConvertTo(F32(), code), origin); }
};

static HWY_INLINE VI LoadCodes(const uint8_t* codes) {
  const hn::Rebind<uint8_t, F32> d8;
  return hn::PromoteTo(I32(), hn::LoadU(d8, codes));
}

template <class Type, class Output>
struct Dequantizer {
  using Bits = typename Output::Bits;
  Type type;

  // Values of one vector of codes.
  HWY_INLINE void Vector(const uint8_t* codes, VF scale, const VF* zero, Bits* to) const {
    auto value = type(LoadCodes(codes));
    if (zero != nullptr) value = hn::Sub(value, *zero);
    Output::Store(hn::Mul(value, scale), to);
  }

  // Values of codes that share a scale.
  HWY_INLINE void Run(const uint8_t* codes, size_t count, float scale_of_run, const float* zero_of_run,
                      bool is_narrow, Bits* to) const {
    const size_t lanes = hn::Lanes(F32());
    const auto scale = hn::Set(F32(), scale_of_run);
    const auto zero = hn::Set(F32(), zero_of_run == nullptr ? 0.0f : *zero_of_run);
    const VF* subtracted = zero_of_run == nullptr ? nullptr : &zero;
    size_t i = 0;
    // Where codes have 4 bits at most, all 16 are computed once. This pays for outputs of 16 bits.
    if (is_narrow && sizeof(Bits) == 2 && count >= 16) {
      HWY_ALIGN static constexpr uint8_t kAll[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
      HWY_ALIGN Bits values[16];
      for (size_t j = 0; j < 16; j += lanes) Vector(kAll + j, scale, subtracted, values + j);
      const typename Output::Table table(values);
      for (; i + 16 <= count; i += 16) table.Store(hn::LoadU(U8(), codes + i), to + i);
    }
    for (; i + lanes <= count; i += lanes) Vector(codes + i, scale, subtracted, to + i);
    if (i < count) {
      HWY_ALIGN uint8_t rest[16] = {};
      HWY_ALIGN Bits values[16];
      memcpy(rest, codes + i, count - i);
      Vector(rest, scale, subtracted, values);
      memcpy(to + i, values, (count - i) * sizeof(Bits));
    }
  }

  // Values of codes with a scale each.
  HWY_INLINE void Each(const uint8_t* codes, size_t count, const float* scales, const float* zeros,
                       Bits* to) const {
    const size_t lanes = hn::Lanes(F32());
    size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      const auto zero = zeros == nullptr ? hn::Zero(F32()) : hn::LoadU(F32(), zeros + i);
      Vector(codes + i, hn::LoadU(F32(), scales + i), zeros == nullptr ? nullptr : &zero, to + i);
    }
    for (; i < count; ++i) Run(codes + i, 1, scales[i], zeros == nullptr ? nullptr : zeros + i, false, to + i);
  }
};

template <class Type, class Output>
static void Dequantize(const uint8_t* packed, int32_t bits, float origin, size_t count, const float* scales,
                       const float* zeros, size_t group_size, size_t lead, void* values) {
  const Dequantizer<Type, Output> dequantizer{Type(origin)};
  auto* to = static_cast<typename Output::Bits*>(values);
  HWY_ALIGN uint8_t unpacked[kCodesAtOnce];
  HWY_ALIGN uint8_t last[kCodesAtOnce];
  for (size_t start = 0; start < count; start += kCodesAtOnce) {
    const size_t here = HWY_MIN(kCodesAtOnce, count - start);
    const uint8_t* codes = packed + start / 8 * static_cast<size_t>(bits);
    if (bits < 8) {
      if (here < kCodesAtOnce) {
        // Codes are unpacked by the vector.
        const size_t bytes = (here * static_cast<size_t>(bits) + 7) / 8;
        memcpy(last, codes, bytes);
        memset(last + bytes, 0, kCodesAtOnce - bytes);
        codes = last;
      }
      UnpackCodes(bits, codes, kCodesAtOnce, unpacked);
      codes = unpacked;
    }
    if (group_size == 1) {
      dequantizer.Each(codes, here, scales + start, zeros == nullptr ? nullptr : zeros + start, to + start);
      continue;
    }
    for (size_t i = 0; i < here;) {
      const size_t position = lead + start + i;
      const size_t group = position / group_size;
      const size_t run = HWY_MIN(group_size - position % group_size, here - i);
      dequantizer.Run(codes + i, run, scales[group], zeros == nullptr ? nullptr : zeros + group, bits <= 4,
                      to + start + i);
      i += run;
    }
  }
}

template <class Output>
static void DequantizeAs(const uint8_t* codes, int32_t code_type, int32_t bits, float origin, size_t count,
                         const float* scales, const float* zeros, size_t group_size, size_t lead, void* values) {
  const auto dequantize = code_type == nibble_e4m3   ? Dequantize<E4M3, Output>
                          : code_type == nibble_e5m2 ? Dequantize<E5M2, Output>
                          : code_type == nibble_e2m1 ? Dequantize<E2M1, Output>
                          : code_type == nibble_e8m0 ? Dequantize<E8M0, Output>
                          : code_type == nibble_int8 ? Dequantize<Int8, Output>
                                                     : Dequantize<Unsigned, Output>;
  dequantize(codes, bits, origin, count, scales, zeros, group_size, lead, values);
}

static void DequantizeCodes(const uint8_t* codes, int32_t code_type, int32_t bits, float origin, size_t count,
                            const float* scales, const float* zeros, size_t group_size, size_t lead,
                            void* values, int32_t type) {
  const auto dequantize = type == nibble_bf16  ? DequantizeAs<HalfValues<BF16>>
                          : type == nibble_f16 ? DequantizeAs<HalfValues<F16>>
                                               : DequantizeAs<FloatValues>;
  dequantize(codes, code_type, bits, origin, count, scales, zeros, group_size, lead, values);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(DequantizeCodes);

extern "C" void nibble_dequantize_codes(const uint8_t* codes, int32_t code_type, int32_t bits, float origin,
                                        size_t count, const float* scales, const float* zeros,
                                        size_t group_size, size_t lead, void* values, int32_t float_type) {
  HWY_DYNAMIC_DISPATCH(DequantizeCodes)
  (codes, code_type, bits, origin, count, scales, zeros, group_size, lead, values, float_type);
}

}  // namespace nibble
#endif
