// 16-bit floating point in 32-bit lanes, with integer operations only, so that all instruction sets
// agree to the last bit: rounding, subnormals and NaN payloads included.
#include <hwy/highway.h>

#if defined(NIBBLE_HALF_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_HALF_INL_H_
#undef NIBBLE_HALF_INL_H_
#else
#define NIBBLE_HALF_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes of 32 bits; capped so that no vector is longer than half the smallest block.
using F32 = hn::CappedTag<float, 16>;
using I32 = hn::RebindToSigned<F32>;
using VF = hn::Vec<F32>;
using VI = hn::Vec<I32>;

struct BF16 {
  static constexpr int32_t kInfinity = 0x7F80;

  // From bit patterns in the low halves; the upper halves are ignored.
  static HWY_INLINE VF ToFloat(VI bits) { return hn::BitCast(F32(), hn::ShiftLeft<16>(bits)); }

  // To bit patterns in the low halves, the upper ones zero; `value` is not NaN.
  static HWY_INLINE VI FromFloat(VF value) {
    const hn::RebindToUnsigned<F32> du;
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu)));
    return hn::BitCast(I32(), hn::ShiftRight<16>(rounded));
  }

  // The upper bits of a NaN that is already quiet.
  static HWY_INLINE VI FromNaN(VF value) {
    const hn::RebindToUnsigned<F32> du;
    return hn::BitCast(I32(), hn::ShiftRight<16>(hn::BitCast(du, value)));
  }
};

struct F16 {
  static constexpr int32_t kInfinity = 0x7C00;

  static HWY_INLINE VF ToFloat(VI bits) {
    const F32 df;
    const I32 di;
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(di, 0x8000)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(di, 0x7FFF)));
    // Rebias the exponent: 127 - 15 = 112; an infinity or a NaN by as much again.
    const auto rebias = hn::Set(di, 112 << 23);
    auto normal = hn::Add(magnitude, rebias);
    const auto special = hn::Gt(magnitude, hn::Set(di, (0x7C00 << 13) - 1));
    normal = hn::Add(normal, hn::IfThenElseZero(special, rebias));
    // A subnormal is its fraction over 2^-14 with an implicit one, less that one.
    const auto one = hn::Set(di, 113 << 23);
    const auto subnormal =
        hn::BitCast(di, hn::Sub(hn::BitCast(df, hn::Add(magnitude, one)), hn::BitCast(df, one)));
    const auto result =
        hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 1 << 23)), subnormal, normal);
    return hn::BitCast(df, hn::Or(result, sign));
  }

  static HWY_INLINE VI FromFloat(VF value) {
    const F32 df;
    const I32 di;
    const auto bits = hn::BitCast(di, value);
    const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
    const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 0x8000));
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 1));
    const auto rounded = hn::Add(hn::Sub(magnitude, hn::Set(di, (112 << 23) - 0xFFF)), odd);
    const auto normal = hn::Min(hn::ShiftRight<13>(rounded), hn::Set(di, kInfinity));
    // The last place of 0.5 is 2^-24, that of a subnormal: the addition rounds.
    const auto half = hn::Set(df, 0.5f);
    const auto subnormal = hn::Sub(hn::BitCast(di, hn::Add(hn::BitCast(df, magnitude), half)),
                                   hn::BitCast(di, half));
    const auto small = hn::Lt(magnitude, hn::Set(di, 113 << 23));
    return hn::Or(hn::IfThenElse(small, subnormal, normal), sign);
  }

  static HWY_INLINE VI FromNaN(VF value) {
    const I32 di;
    const auto bits = hn::BitCast(di, value);
    const auto payload = hn::And(hn::ShiftRight<13>(bits), hn::Set(di, 0x3FF));
    const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 0x8000));
    return hn::Or(hn::Or(payload, hn::Set(di, kInfinity)), sign);
  }
};

// One vector of 32-bit lanes from 16-bit patterns, and back; `bits` must lie in 0...65535.
static HWY_INLINE VI LoadHalves(const uint16_t* from) {
  return hn::PromoteTo(I32(), hn::LoadU(hn::Rebind<uint16_t, F32>(), from));
}

static HWY_INLINE void StoreHalves(VI bits, uint16_t* to) {
  const hn::Rebind<uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> du;
  hn::StoreU(hn::TruncateTo(d16, hn::BitCast(du, bits)), d16, to);
}

// How one vector of values is read into 32-bit lanes, and written from them.
template <class Half>
struct HalfCodec {
  using Bits = uint16_t;

  static HWY_INLINE VF Load(const Bits* from) { return Half::ToFloat(LoadHalves(from)); }

  // Returns which lanes became infinite.
  static HWY_INLINE hn::Mask<I32> Store(VF value, Bits* to) {
    const I32 di;
    const auto is_nan = hn::RebindMask(di, hn::IsNaN(value));
    const auto bits = hn::IfThenElse(is_nan, Half::FromNaN(value), Half::FromFloat(value));
    StoreHalves(bits, to);
    return hn::Eq(hn::And(bits, hn::Set(di, 0x7FFF)), hn::Set(di, Half::kInfinity));
  }
};

struct FloatCodec {
  using Bits = uint32_t;

  static HWY_INLINE VF Load(const Bits* from) {
    const hn::RebindToUnsigned<F32> du;
    return hn::BitCast(F32(), hn::LoadU(du, from));
  }

  static HWY_INLINE hn::Mask<I32> Store(VF value, Bits* to) {
    const hn::RebindToUnsigned<F32> du;
    hn::StoreU(hn::BitCast(du, value), du, to);
    // Every value of a 16-bit type fits.
    return hn::FirstN(I32(), 0);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
