#include <string.h>

#include <algorithm>

#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../convert.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// One vector. Returns which finite lanes became infinite.
template <class From, class To>
static HWY_INLINE hn::Mask<I32> ConvertVector(const typename From::Bits* from,
                                              typename To::Bits* to) {
  const F32 df;
  const I32 di;
  auto value = From::Load(from);
  const auto quiet = hn::BitCast(df, hn::Or(hn::BitCast(di, value), hn::Set(di, 1 << 22)));
  value = hn::IfThenElse(hn::IsNaN(value), quiet, value);
  const auto magnitude = hn::And(hn::BitCast(di, value), hn::Set(di, 0x7FFFFFFF));
  const auto is_infinite = hn::Eq(magnitude, hn::Set(di, 0x7F800000));
  return hn::AndNot(is_infinite, To::Store(value, to));
}

template <class From, class To>
static HWY_INLINE size_t ConvertAll(const void* values, size_t count, void* output) {
  using FromBits = typename From::Bits;
  using ToBits = typename To::Bits;
  const I32 di;
  const size_t lanes = hn::Lanes(di);
  const auto* from = static_cast<const FromBits*>(values);
  auto* to = static_cast<ToBits*>(output);
  size_t i = 0;
  for (; count - i >= lanes; i += lanes) {
    const auto overflow = ConvertVector<From, To>(from + i, to + i);
    const intptr_t first = hn::FindFirstTrue(di, overflow);
    if (HWY_UNLIKELY(first >= 0)) return i + static_cast<size_t>(first);
  }
  if (i == count) return count;
  HWY_ALIGN FromBits rest[16] = {};
  HWY_ALIGN ToBits converted[16];
  memcpy(rest, static_cast<const uint8_t*>(values) + i * sizeof(FromBits),
         (count - i) * sizeof(FromBits));
  const intptr_t first = hn::FindFirstTrue(di, ConvertVector<From, To>(rest, converted));
  if (first >= 0) return i + static_cast<size_t>(first);
  memcpy(static_cast<uint8_t*>(output) + i * sizeof(ToBits), converted,
         (count - i) * sizeof(ToBits));
  return count;
}

template <class From>
static HWY_INLINE size_t ConvertFrom(const void* values, int32_t to, size_t count, void* output) {
  if (to == nibble_bf16) return ConvertAll<From, HalfCodec<BF16>>(values, count, output);
  if (to == nibble_f16) return ConvertAll<From, HalfCodec<F16>>(values, count, output);
  return ConvertAll<From, FloatCodec>(values, count, output);
}

static size_t Convert(const void* values, int32_t from, int32_t to, size_t count, void* output) {
  if (from == nibble_bf16) return ConvertFrom<HalfCodec<BF16>>(values, to, count, output);
  if (from == nibble_f16) return ConvertFrom<HalfCodec<F16>>(values, to, count, output);
  return ConvertFrom<FloatCodec>(values, to, count, output);
}

// Values of this many doubles are narrowed to 32 bits at a time.
constexpr size_t kNarrowedAtOnce = 512;

// `value` in 32 bits; what is cut off shows in the last bit ("round to odd"), so that rounding the
// result once more to 16 bits gives what rounding `value` would.
static HWY_INLINE float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = nearest;
  uint32_t bits;
  memcpy(&bits, &nearest, sizeof(bits));
  if (back == value || value != value || (bits & 1) != 0) return nearest;
  // Of the two neighbours around the value, the odd one.
  const bool is_larger = value < 0 ? back < value : back > value;
  bits = is_larger ? bits - 1 : bits + 1;
  float odd;
  memcpy(&odd, &bits, sizeof(odd));
  return odd;
}

static size_t Narrow(const void* values, int32_t to, size_t count, void* output) {
  const auto* from = static_cast<const uint8_t*>(values);
  auto* target = static_cast<uint8_t*>(output);
  const size_t bytes = to == nibble_f32 ? 4 : 2;
  HWY_ALIGN double wide[kNarrowedAtOnce];
  HWY_ALIGN float single[kNarrowedAtOnce];
  for (size_t start = 0; start < count; start += kNarrowedAtOnce) {
    const size_t length = std::min(kNarrowedAtOnce, count - start);
    memcpy(wide, from + start * sizeof(double), length * sizeof(double));
    for (size_t i = 0; i < length; ++i) {
      single[i] = to == nibble_f32 ? static_cast<float>(wide[i]) : RoundToOdd(wide[i]);
    }
    size_t first = length;
    if (to == nibble_f32) {
      for (size_t i = length; i > 0; --i) {
        if (single[i - 1] - single[i - 1] != 0 && wide[i - 1] - wide[i - 1] == 0) first = i - 1;
      }
      memcpy(target + start * bytes, single, length * bytes);
    } else {
      first = ConvertFrom<FloatCodec>(single, to, length, target + start * bytes);
    }
    if (first < length) return start + first;
  }
  return count;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(Convert);
HWY_EXPORT(Narrow);

extern "C" size_t nibble_convert(const void* values, int32_t from, int32_t to, size_t count,
                                 void* output) {
  if (from == to) {
    memcpy(output, values, count * (from == nibble_f32 ? 4 : 2));
    return count;
  }
  return HWY_DYNAMIC_DISPATCH(Convert)(values, from, to, count, output);
}

extern "C" size_t nibble_narrow(const void* values, int32_t to, size_t count, void* output) {
  return HWY_DYNAMIC_DISPATCH(Narrow)(values, to, count, output);
}

}  // namespace nibble
#endif
