// What the kernels of MLX's groups share: codes of 2 to 8 bits in a stream of bits, and extremes of values
// by their bit patterns.
#include <string.h>

#include <algorithm>

#include <hwy/highway.h>

#include "lookup-inl.h"
#include "nibble_kernels.h"

#if defined(NIBBLE_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_GROUPS_INL_H_
#undef NIBBLE_GROUPS_INL_H_
#else
#define NIBBLE_GROUPS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Groups that are treated together; their codes, a byte each, lie in the first-level cache.
constexpr size_t kGroupsAtOnce = 16;
constexpr size_t kCodesAtOnce = kGroupsAtOnce * 128;

// Bits of codes, with room for the whole vectors in which they are moved.
struct PackedCodes {
  HWY_ALIGN uint8_t bytes[kCodesAtOnce + 16];
};

// ---------------------------------------------------------------------------------------------------
// Code i takes the bits from i * kBits on, of bytes in order: 8 codes fill kBits bytes.

// Each lane of D holds two codes of kWidth bits, one in each half: moved together to one of 2 * kWidth bits.
template <int kWidth, class D>
static HWY_INLINE hn::Vec<D> JoinPairs(D d, hn::Vec<D> pairs) {
  using T = hn::TFromD<D>;
  constexpr int kHalf = sizeof(T) * 4;
  const auto first = hn::And(pairs, hn::Set(d, static_cast<T>((T{1} << kWidth) - 1)));
  const auto second = hn::ShiftLeft<kWidth>(hn::ShiftRight<kHalf>(pairs));
  return hn::Or(first, second);
}

// The opposite.
template <int kWidth, class D>
static HWY_INLINE hn::Vec<D> SplitPairs(D d, hn::Vec<D> joined) {
  using T = hn::TFromD<D>;
  constexpr int kHalf = sizeof(T) * 4;
  const auto first = hn::And(joined, hn::Set(d, static_cast<T>((T{1} << kWidth) - 1)));
  const auto second = hn::ShiftLeft<kHalf>(hn::ShiftRight<kWidth>(joined));
  return hn::Or(first, second);
}

// Where the bytes of twice 8 codes are among the 16 of a vector: contiguous, or at the start of each half.
struct BytePlaces {
  HWY_ALIGN uint8_t gather[16];
  HWY_ALIGN uint8_t spread[16];
};

template <int kBits>
static constexpr BytePlaces PlacesOf() {
  BytePlaces places = {};
  for (int i = 0; i < 16; ++i) {
    // A place with the highest bit set gives zero.
    places.gather[i] = static_cast<uint8_t>(i < 2 * kBits ? i / kBits * 8 + i % kBits : 0x80);
    places.spread[i] = static_cast<uint8_t>(i % 8 < kBits ? i / 8 * kBits + i % 8 : 0x80);
  }
  return places;
}

template <int kBits>
static constexpr BytePlaces kPlaces = PlacesOf<kBits>();

using U16 = hn::Repartition<uint16_t, U8>;
using U32 = hn::Repartition<uint32_t, U8>;
using U64 = hn::Repartition<uint64_t, U8>;

template <int kBits>
static HWY_INLINE void Pack(const uint8_t* codes, size_t count, uint8_t* to) {
  const U8 d;
  const auto places = hn::Load(d, kPlaces<kBits>.gather);
  for (size_t i = 0; i < count; i += 16, to += 2 * kBits) {
    const auto pairs = JoinPairs<kBits>(U16(), hn::BitCast(U16(), hn::Load(d, codes + i)));
    const auto fours = JoinPairs<2 * kBits>(U32(), hn::BitCast(U32(), pairs));
    const auto eights = JoinPairs<4 * kBits>(U64(), hn::BitCast(U64(), fours));
    hn::StoreU(hn::TableLookupBytesOr0(hn::BitCast(d, eights), places), d, to);
  }
}

template <int kBits>
static HWY_INLINE void Unpack(const uint8_t* from, size_t count, uint8_t* codes) {
  const U8 d;
  const auto places = hn::Load(d, kPlaces<kBits>.spread);
  for (size_t i = 0; i < count; i += 16, from += 2 * kBits) {
    const auto eights = hn::TableLookupBytesOr0(hn::LoadU(d, from), places);
    const auto fours = SplitPairs<4 * kBits>(U64(), hn::BitCast(U64(), eights));
    const auto pairs = SplitPairs<2 * kBits>(U32(), hn::BitCast(U32(), fours));
    hn::Store(hn::BitCast(d, SplitPairs<kBits>(U16(), hn::BitCast(U16(), pairs))), d, codes + i);
  }
}

// Writes count * bits / 8 bytes. `count` is a multiple of 32, `codes` aligned.
static HWY_INLINE void PackCodes(int32_t bits, const uint8_t* codes, size_t count, uint8_t* to) {
  if (bits == 8) {
    memcpy(to, codes, count);
    return;
  }
  PackedCodes packed;
  switch (bits) {
    case 2: Pack<2>(codes, count, packed.bytes); break;
    case 3: Pack<3>(codes, count, packed.bytes); break;
    case 4: Pack<4>(codes, count, packed.bytes); break;
    case 5: Pack<5>(codes, count, packed.bytes); break;
    default: Pack<6>(codes, count, packed.bytes);
  }
  memcpy(to, packed.bytes, count * static_cast<size_t>(bits) / 8);
}

static HWY_INLINE void UnpackCodes(int32_t bits, const uint8_t* from, size_t count, uint8_t* codes) {
  if (bits == 8) {
    memcpy(codes, from, count);
    return;
  }
  PackedCodes packed;
  const size_t bytes = count * static_cast<size_t>(bits) / 8;
  memcpy(packed.bytes, from, bytes);
  memset(packed.bytes + bytes, 0, 16);
  switch (bits) {
    case 1: Unpack<1>(packed.bytes, count, codes); break;
    case 2: Unpack<2>(packed.bytes, count, codes); break;
    case 3: Unpack<3>(packed.bytes, count, codes); break;
    case 4: Unpack<4>(packed.bytes, count, codes); break;
    case 5: Unpack<5>(packed.bytes, count, codes); break;
    case 6: Unpack<6>(packed.bytes, count, codes); break;
    default: Unpack<7>(packed.bytes, count, codes);
  }
}

// ---------------------------------------------------------------------------------------------------
// How values are stored, and what stored values are as whole numbers.

template <class Half>
struct HalfValues : HalfCodec<Half> {
  using Lane = int16_t;
  using Table = HalfTable<Half>;
  static constexpr int32_t kInfinity = Half::kInfinity;

  // The values of bit patterns, and the nearest ones that can be stored; a NaN stays one.
  static HWY_INLINE VF FromBits(VI bits) { return Half::ToFloat(bits); }
  static HWY_INLINE VF Round(VF value) {
    const auto is_nan = hn::RebindMask(I32(), hn::IsNaN(value));
    return FromBits(hn::IfThenElse(is_nan, Half::FromNaN(value), Half::FromFloat(value)));
  }
};

struct FloatValues : FloatCodec {
  using Lane = int32_t;
  using Table = FloatTable;
  static constexpr int32_t kInfinity = 0x7F800000;

  static HWY_INLINE VF FromBits(VI bits) { return hn::BitCast(F32(), bits); }
  static HWY_INLINE VF Round(VF value) { return value; }
};

// Lanes of stored values; 32 values are a whole number of vectors.
template <class Values>
using Stored = hn::CappedTag<typename Values::Lane, 64 / sizeof(typename Values::Lane)>;

// One value of those that are stored.
template <class Values>
static HWY_INLINE float ValueAt(const typename Values::Bits* values, size_t index) {
  return hn::GetLane(Values::FromBits(hn::Set(I32(), static_cast<int32_t>(values[index]))));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
