#include "blocks.h"
#include "nibble_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../blocks_decode_k.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// d · code - m.
static HWY_INLINE VF Value(VI code, float d, float m) {
  const F32 df;
  return hn::Sub(hn::Mul(hn::ConvertTo(df, code), hn::Set(df, d)), hn::Set(df, m));
}

// d · (code - zero).
static HWY_INLINE VF Value(VI code, int32_t zero, float d) {
  const F32 df;
  return hn::Mul(hn::ConvertTo(df, hn::Sub(code, hn::Set(I32(), zero))), hn::Set(df, d));
}

static void DecodeQ2_K(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q2_K*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    float scales[16], offsets[16];
    const float d = FloatOfHalf(from->d), dmin = FloatOfHalf(from->dmin);
    for (size_t group = 0; group < 16; ++group) {
      scales[group] = d * static_cast<float>(from->scales[group] & 15);
      offsets[group] = dmin * static_cast<float>(from->scales[group] >> 4);
    }
    for (size_t group = 0; group < 16; ++group, values += 16) {
      const uint8_t* codes = from->codes + group / 8 * 32 + group % 2 * 16;
      const int shift = static_cast<int>(group / 2 % 4 * 2);
      for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
        const auto code = hn::And(hn::ShiftRightSame(LoadCodes(codes + i), shift), hn::Set(di, 3));
        hn::StoreU(Value(code, scales[group], offsets[group]), df, values + i);
      }
    }
  }
}

static void DecodeQ3_K(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q3_K*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    const float d = FloatOfHalf(from->d);
    for (size_t group = 0; group < 16; ++group, values += 16) {
      const int low = from->scales[group % 8] >> (group < 8 ? 0 : 4) & 15;
      const int high = from->scales[8 + group % 4] >> (group / 4 * 2) & 3;
      const float scale = d * static_cast<float>((high << 4 | low) - 32);
      const uint8_t* codes = from->codes + group / 8 * 32 + group % 2 * 16;
      const uint8_t* thirds = from->high + group % 2 * 16;
      const int shift = static_cast<int>(group / 2 % 4 * 2);
      for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
        const auto two = hn::And(hn::ShiftRightSame(LoadCodes(codes + i), shift), hn::Set(di, 3));
        const auto third = hn::And(
            hn::ShiftRightSame(LoadCodes(thirds + i), static_cast<int>(group / 2)), hn::Set(di, 1));
        const auto code = hn::Or(two, hn::ShiftLeft<2>(third));
        hn::StoreU(Value(code, 4, scale), df, values + i);
      }
    }
  }
}

// The scales and offsets of Q4_K and Q5_K.
struct SixBitGroups {
  float scales[8], offsets[8];

  HWY_INLINE SixBitGroups(const uint8_t* packed, float d, float dmin) {
    for (size_t group = 0; group < 4; ++group) {
      const uint8_t first = packed[group], second = packed[group + 4], rest = packed[group + 8];
      scales[group] = d * static_cast<float>(first & 63);
      offsets[group] = dmin * static_cast<float>(second & 63);
      scales[group + 4] = d * static_cast<float>((rest & 15) | first >> 6 << 4);
      offsets[group + 4] = dmin * static_cast<float>(rest >> 4 | second >> 6 << 4);
    }
  }
};

static void DecodeQ4_K(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q4_K*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    const SixBitGroups groups(from->scales, FloatOfHalf(from->d), FloatOfHalf(from->dmin));
    for (size_t pair = 0; pair < 8; pair += 2, values += 64) {
      for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
        const auto bytes = LoadCodes(from->codes + pair * 16 + i);
        const auto low = hn::And(bytes, hn::Set(di, 15));
        const auto high = hn::ShiftRight<4>(bytes);
        hn::StoreU(Value(low, groups.scales[pair], groups.offsets[pair]), df, values + i);
        hn::StoreU(Value(high, groups.scales[pair + 1], groups.offsets[pair + 1]), df,
                   values + i + 32);
      }
    }
  }
}

static void DecodeQ5_K(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q5_K*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    const SixBitGroups groups(from->scales, FloatOfHalf(from->d), FloatOfHalf(from->dmin));
    for (size_t pair = 0; pair < 8; pair += 2, values += 64) {
      for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
        const auto bytes = LoadCodes(from->codes + pair * 16 + i);
        const auto fifths = hn::ShiftRightSame(LoadCodes(from->high + i), static_cast<int>(pair));
        const auto low = hn::Or(hn::And(bytes, hn::Set(di, 15)),
                                hn::ShiftLeft<4>(hn::And(fifths, hn::Set(di, 1))));
        const auto high = hn::Or(hn::ShiftRight<4>(bytes),
                                 hn::ShiftLeft<3>(hn::And(fifths, hn::Set(di, 2))));
        hn::StoreU(Value(low, groups.scales[pair], groups.offsets[pair]), df, values + i);
        hn::StoreU(Value(high, groups.scales[pair + 1], groups.offsets[pair + 1]), df,
                   values + i + 32);
      }
    }
  }
}

static void DecodeQ6_K(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const I32 di;
  const auto* from = reinterpret_cast<const Q6_K*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    const float d = FloatOfHalf(from->d);
    for (size_t half = 0; half < 2; ++half, values += 128) {
      float scales[8];
      for (size_t group = 0; group < 8; ++group) {
        scales[group] = d * static_cast<float>(from->scales[half * 8 + group]);
      }
      for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
        const auto first = LoadCodes(from->low + half * 64 + i);
        const auto second = LoadCodes(from->low + half * 64 + 32 + i);
        const auto upper = LoadCodes(from->high + half * 32 + i);
        const float* scale = scales + i / 16;
        const auto nibble = hn::Set(di, 15), bits = hn::Set(di, 0x30);
        const auto store = [&](VI low, VI high, size_t quarter) HWY_ATTR {
          hn::StoreU(Value(hn::Or(low, hn::And(high, bits)), 32, scale[quarter * 2]), df,
                     values + quarter * 32 + i);
        };
        store(hn::And(first, nibble), hn::ShiftLeft<4>(upper), 0);
        store(hn::And(second, nibble), hn::ShiftLeft<2>(upper), 1);
        store(hn::ShiftRight<4>(first), upper, 2);
        store(hn::ShiftRight<4>(second), hn::ShiftRight<2>(upper), 3);
      }
    }
  }
}

static void DecodeIQ4_XS(const uint8_t* blocks, size_t count, float* values) {
  const F32 df;
  const auto* from = reinterpret_cast<const IQ4_XS*>(blocks);
  for (size_t b = 0; b < count; ++b, ++from) {
    const float d = FloatOfHalf(from->d);
    const int high = Word(from->scales_high);
    for (size_t group = 0; group < 8; ++group, values += 32) {
      const int low = from->scales_low[group / 2] >> (group % 2 * 4) & 15;
      const int scale = ((high >> (group * 2) & 3) << 4 | low) - 32;
      DecodeLevels(kUnevenLevels, from->codes + group * 16,
                   hn::Set(df, d * static_cast<float>(scale)), values);
    }
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

NIBBLE_DECODER(DecodeQ2_K, q2_k)
NIBBLE_DECODER(DecodeQ3_K, q3_k)
NIBBLE_DECODER(DecodeQ4_K, q4_k)
NIBBLE_DECODER(DecodeQ5_K, q5_k)
NIBBLE_DECODER(DecodeQ6_K, q6_k)
NIBBLE_DECODER(DecodeIQ4_XS, iq4_xs)
}  // namespace nibble
#endif
