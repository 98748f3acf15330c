// Tables of the 16 values that the codes of a block stand for, looked up byte by byte. Vectors of 16 bytes
// keep the order of the codes without further shuffles.
#include <hwy/highway.h>

#include "half-inl.h"

#if defined(NIBBLE_LOOKUP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_LOOKUP_INL_H_
#undef NIBBLE_LOOKUP_INL_H_
#else
#define NIBBLE_LOOKUP_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

using U8 = hn::CappedTag<uint8_t, 16>;
using V8 = hn::Vec<U8>;

// The 16 values of a block as bit patterns.
template <class Half>
struct HalfTable {
  using Bits = uint16_t;
  using Codec = HalfCodec<Half>;

  V8 low, high;

  HWY_INLINE explicit HalfTable(const Bits* values) {
    const U8 d;
    const auto first = hn::LoadU(d, reinterpret_cast<const uint8_t*>(values));
    const auto second = hn::LoadU(d, reinterpret_cast<const uint8_t*>(values + 8));
    low = hn::ConcatEven(d, second, first);
    high = hn::ConcatOdd(d, second, first);
  }

  // Writes the values of 16 codes.
  HWY_INLINE void Store(V8 codes, Bits* values) const {
    const U8 d;
    const auto l = hn::TableLookupBytes(low, codes);
    const auto h = hn::TableLookupBytes(high, codes);
    auto* bytes = reinterpret_cast<uint8_t*>(values);
    hn::StoreU(hn::InterleaveLower(d, l, h), d, bytes);
    hn::StoreU(hn::InterleaveUpper(d, l, h), d, bytes + 16);
  }
};

struct FloatTable {
  using Bits = uint32_t;
  using Codec = FloatCodec;

  V8 planes[4];

  HWY_INLINE explicit FloatTable(const Bits* values) {
    const U8 d;
    const auto load = [&](size_t i) HWY_ATTR {
      return hn::LoadU(d, reinterpret_cast<const uint8_t*>(values + i));
    };
    const auto even01 = hn::ConcatEven(d, load(4), load(0));
    const auto even23 = hn::ConcatEven(d, load(12), load(8));
    const auto odd01 = hn::ConcatOdd(d, load(4), load(0));
    const auto odd23 = hn::ConcatOdd(d, load(12), load(8));
    planes[0] = hn::ConcatEven(d, even23, even01);
    planes[1] = hn::ConcatEven(d, odd23, odd01);
    planes[2] = hn::ConcatOdd(d, even23, even01);
    planes[3] = hn::ConcatOdd(d, odd23, odd01);
  }

  HWY_INLINE void Store(V8 codes, Bits* values) const {
    const U8 d;
    const hn::Repartition<uint16_t, U8> d16;
    V8 bytes[4];
    for (int i = 0; i < 4; ++i) bytes[i] = hn::TableLookupBytes(planes[i], codes);
    auto* to = reinterpret_cast<uint16_t*>(values);
    const auto low0 = hn::BitCast(d16, hn::InterleaveLower(d, bytes[0], bytes[1]));
    const auto high0 = hn::BitCast(d16, hn::InterleaveLower(d, bytes[2], bytes[3]));
    const auto low1 = hn::BitCast(d16, hn::InterleaveUpper(d, bytes[0], bytes[1]));
    const auto high1 = hn::BitCast(d16, hn::InterleaveUpper(d, bytes[2], bytes[3]));
    hn::StoreU(hn::InterleaveLower(d16, low0, high0), d16, to);
    hn::StoreU(hn::InterleaveUpper(d16, low0, high0), d16, to + 8);
    hn::StoreU(hn::InterleaveLower(d16, low1, high1), d16, to + 16);
    hn::StoreU(hn::InterleaveUpper(d16, low1, high1), d16, to + 24);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
