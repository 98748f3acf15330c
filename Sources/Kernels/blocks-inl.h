// What the kernels of several kinds of blocks share.
#include "blocks.h"
#include "half-inl.h"

#if defined(NIBBLE_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BLOCKS_INL_H_
#undef NIBBLE_BLOCKS_INL_H_
#else
#define NIBBLE_BLOCKS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// One vector of 32-bit lanes from as many bytes.
static HWY_INLINE VI LoadCodes(const uint8_t* from) {
  return hn::PromoteTo(I32(), hn::LoadU(hn::Rebind<uint8_t, F32>(), from));
}

static HWY_INLINE VI LoadSigned(const uint8_t* from) {
  const hn::Rebind<uint8_t, F32> d8;
  const hn::Rebind<int8_t, F32> ds;
  return hn::PromoteTo(I32(), hn::BitCast(ds, hn::LoadU(d8, from)));
}

HWY_ALIGN static constexpr int32_t kLaneBits[16] = {1 << 0,  1 << 1,  1 << 2,  1 << 3,
                                                    1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                                    1 << 8,  1 << 9,  1 << 10, 1 << 11,
                                                    1 << 12, 1 << 13, 1 << 14, 1 << 15};

// `value` in the lanes whose bit is set, zero in others.
static HWY_INLINE VI FromBits(uint32_t bits, int32_t value) {
  const I32 di;
  const auto bit = hn::Load(di, kLaneBits);
  const auto is_set = hn::Eq(hn::And(hn::Set(di, static_cast<int32_t>(bits)), bit), bit);
  return hn::IfThenElseZero(is_set, hn::Set(di, value));
}

// A bit for each lane.
static HWY_INLINE uint32_t Bits(hn::Mask<I32> mask) {
  HWY_ALIGN uint8_t bytes[8] = {};
  hn::StoreMaskBits(I32(), mask, bytes);
  return Word(bytes);
}

// 32 values whose codes are nibbles that stand for 16 whole levels.
static HWY_INLINE void DecodeLevels(const int8_t* levels, const uint8_t* codes, VF d, float* to) {
  const F32 df;
  const hn::Rebind<uint8_t, F32> d8;
  const hn::Rebind<int8_t, F32> ds;
  const auto table = hn::LoadU(hn::Full128<uint8_t>(), reinterpret_cast<const uint8_t*>(levels));
  const auto value = [&](hn::Vec<decltype(d8)> code) HWY_ATTR {
    const auto level = hn::BitCast(ds, hn::TableLookupBytes(table, code));
    return hn::Mul(hn::ConvertTo(df, hn::PromoteTo(I32(), level)), d);
  };
  for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
    const auto bytes = hn::LoadU(d8, codes + i);
    hn::StoreU(value(hn::And(bytes, hn::Set(d8, uint8_t{15}))), df, to + i);
    hn::StoreU(value(hn::ShiftRight<4>(bytes)), df, to + i + 16);
  }
}

// The scale of MXFP4: 2^(exponent - 128), of which the first two are subnormal.
static HWY_INLINE float HalfPowerOfTwo(uint8_t exponent) {
  return FloatOfBits(exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
