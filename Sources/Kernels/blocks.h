// ggml's blocks as they lie in memory: bytes only, so that they may stand anywhere. How the bits are meant
// is told by the Swift twin of the same name.
#pragma once
#include <stdint.h>
#include <string.h>

namespace nibble {

struct Half {
  uint8_t bytes[2];
};

struct Q4_0 {
  Half d;
  uint8_t codes[16];
};
static_assert(sizeof(Q4_0) == 18);

struct Q4_1 {
  Half d, m;
  uint8_t codes[16];
};
static_assert(sizeof(Q4_1) == 20);

struct Q5_0 {
  Half d;
  uint8_t high[4], codes[16];
};
static_assert(sizeof(Q5_0) == 22);

struct Q5_1 {
  Half d, m;
  uint8_t high[4], codes[16];
};
static_assert(sizeof(Q5_1) == 24);

struct Q8_0 {
  Half d;
  uint8_t codes[32];
};
static_assert(sizeof(Q8_0) == 34);

struct Q2_K {
  uint8_t scales[16], codes[64];
  Half d, dmin;
};
static_assert(sizeof(Q2_K) == 84);

struct Q3_K {
  uint8_t high[32], codes[64], scales[12];
  Half d;
};
static_assert(sizeof(Q3_K) == 110);

struct Q4_K {
  Half d, dmin;
  uint8_t scales[12], codes[128];
};
static_assert(sizeof(Q4_K) == 144);

struct Q5_K {
  Half d, dmin;
  uint8_t scales[12], high[32], codes[128];
};
static_assert(sizeof(Q5_K) == 176);

struct Q6_K {
  uint8_t low[128], high[64];
  int8_t scales[16];
  Half d;
};
static_assert(sizeof(Q6_K) == 210);

struct IQ4_NL {
  Half d;
  uint8_t codes[16];
};
static_assert(sizeof(IQ4_NL) == 18);

struct IQ4_XS {
  Half d;
  uint8_t scales_high[2], scales_low[4], codes[128];
};
static_assert(sizeof(IQ4_XS) == 136);

struct MXFP4 {
  uint8_t exponent, codes[16];
};
static_assert(sizeof(MXFP4) == 17);

inline uint16_t Word(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

inline uint32_t Word32(const uint8_t* bytes) {
  return Word(bytes) | static_cast<uint32_t>(Word(bytes + 2)) << 16;
}

inline float FloatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// 16-bit floating point as in half-inl.h, one at a time.
inline float FloatOfHalf(Half half) {
  const uint32_t bits = Word(half.bytes);
  const uint32_t sign = (bits & 0x8000) << 16;
  const uint32_t magnitude = (bits & 0x7FFF) << 13;
  if (magnitude < 1u << 23) {
    const uint32_t one = 113u << 23;
    return FloatOfBits(sign | BitsOfFloat(FloatOfBits(magnitude + one) - FloatOfBits(one)));
  }
  const uint32_t rebias = magnitude >= 0x7C00u << 13 ? 224u << 23 : 112u << 23;
  return FloatOfBits(sign | (magnitude + rebias));
}

// `value` is not NaN.
inline Half HalfOfFloat(float value) {
  const uint32_t bits = BitsOfFloat(value);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t half;
  if (magnitude < 113u << 23) {
    half = BitsOfFloat(FloatOfBits(magnitude) + 0.5f) - BitsOfFloat(0.5f);
  } else if (magnitude >= 143u << 23) {
    half = 0x7C00;
  } else {
    half = (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  }
  half |= bits >> 16 & 0x8000;
  return {{static_cast<uint8_t>(half), static_cast<uint8_t>(half >> 8)}};
}

// What the codes of IQ4_NL and IQ4_XS stand for, before scaling.
constexpr int8_t kUnevenLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

// The four-bit floating point numbers of MXFP4, doubled.
constexpr int8_t kFloatLevels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace nibble
