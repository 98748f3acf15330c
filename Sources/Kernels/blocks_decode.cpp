#include "blocks.h"
#include "nibble_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../blocks_decode.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// How the codes of a block become values: d · code, or d · code + m.
struct Scaled {
  VF d;

  HWY_INLINE VF operator()(VI code) const { return hn::Mul(hn::ConvertTo(F32(), code), d); }
};

struct Shifted {
  VF d, m;

  HWY_INLINE VF operator()(VI code) const {
    return hn::Add(hn::Mul(hn::ConvertTo(F32(), code), d), m);
  }
};

// 32 values whose codes are nibbles, with `adjust` applied to the codes: it is given the codes and the index of
// the first.
template <class Value, class Adjust>
static HWY_INLINE void DecodeNibbles(const uint8_t* codes, const Value& value, const Adjust& adjust,
                                     float* to) {
  const F32 df;
  const I32 di;
  for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
    const auto bytes = LoadCodes(codes + i);
    const auto low = hn::And(bytes, hn::Set(di, 15));
    const auto high = hn::ShiftRight<4>(bytes);
    hn::StoreU(value(adjust(low, i)), df, to + i);
    hn::StoreU(value(adjust(high, i + 16)), df, to + i + 16);
  }
}

static void DecodeQ4_0(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q4_0*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    DecodeNibbles(
        from->codes, Scaled{hn::Set(df, FloatOfHalf(from->d))},
        [&](VI code, size_t) HWY_ATTR { return hn::Sub(code, hn::Set(di, 8)); }, values);
  }
}

static void DecodeQ4_1(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const Q4_1*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    const Shifted value{hn::Set(df, FloatOfHalf(from->d)), hn::Set(df, FloatOfHalf(from->m))};
    DecodeNibbles(from->codes, value, [&](VI code, size_t) HWY_ATTR { return code; }, values);
  }
}

static void DecodeQ5_0(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q5_0*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    const uint32_t high = Word32(from->high);
    DecodeNibbles(
        from->codes, Scaled{hn::Set(df, FloatOfHalf(from->d))},
        [&](VI code, size_t i) HWY_ATTR {
          return hn::Sub(hn::Or(code, FromBits(high >> i, 16)), hn::Set(di, 16));
        },
        values);
  }
}

static void DecodeQ5_1(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const Q5_1*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    const Shifted value{hn::Set(df, FloatOfHalf(from->d)), hn::Set(df, FloatOfHalf(from->m))};
    const uint32_t high = Word32(from->high);
    DecodeNibbles(
        from->codes, value,
        [&](VI code, size_t i) HWY_ATTR { return hn::Or(code, FromBits(high >> i, 16)); }, values);
  }
}

static void DecodeQ8_0(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const Q8_0*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    const Scaled value{hn::Set(df, FloatOfHalf(from->d))};
    for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
      hn::StoreU(value(LoadSigned(from->codes + i)), df, values + i);
    }
  }
}

static void DecodeIQ4_NL(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const IQ4_NL*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    DecodeLevels(kUnevenLevels, from->codes, hn::Set(df, FloatOfHalf(from->d)), values);
  }
}

static void DecodeMXFP4(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const MXFP4*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from, values += 32) {
    DecodeLevels(kFloatLevels, from->codes, hn::Set(df, HalfPowerOfTwo(from->exponent)), values);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
#define NIBBLE_DECODER(kernel, name)                                                        \
  HWY_EXPORT(kernel);                                                                       \
  extern "C" void nibble_decode_##name(const uint8_t* blocks, size_t count, float* values) { \
    HWY_DYNAMIC_DISPATCH(kernel)(blocks, count, values);                                    \
  }

NIBBLE_DECODER(DecodeQ4_0, q4_0)
NIBBLE_DECODER(DecodeQ4_1, q4_1)
NIBBLE_DECODER(DecodeQ5_0, q5_0)
NIBBLE_DECODER(DecodeQ5_1, q5_1)
NIBBLE_DECODER(DecodeQ8_0, q8_0)
NIBBLE_DECODER(DecodeIQ4_NL, iq4_nl)
NIBBLE_DECODER(DecodeMXFP4, mxfp4)
}  // namespace nibble
#endif
