// The largest magnitude of values, and codes of those that share a divisor.
#include "scaled-inl.h"

#if defined(NIBBLE_SCALED_ENCODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCALED_ENCODE_INL_H_
#undef NIBBLE_SCALED_ENCODE_INL_H_
#else
#define NIBBLE_SCALED_ENCODE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

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

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
