#include "nibble_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../groups_dequantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "groups-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// How codes become values: the product is rounded to the type of the scales, and then the sum.
template <class Scales>
struct Line {
  VF scale, bias;

  HWY_INLINE Line(float scale_of_group, float bias_of_group)
      : scale(hn::Set(F32(), scale_of_group)), bias(hn::Set(F32(), bias_of_group)) {}

  HWY_INLINE VF operator()(const uint8_t* codes) const {
    const hn::Rebind<uint8_t, F32> d8;
    const auto code = hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(d8, codes)));
    return Scales::Round(hn::Add(Scales::Round(hn::Mul(code, scale)), bias));
  }
};

template <class Scales, class Output>
static HWY_INLINE void ComputeValues(const uint8_t* codes, size_t size, const Line<Scales>& line,
                                     typename Output::Bits* to) {
  for (size_t i = 0; i < size; i += hn::Lanes(F32())) Output::Store(line(codes + i), to + i);
}

// Where codes have 4 bits at most, all 16 are computed once. This pays for outputs of 16 bits.
template <class Scales, class Output>
static HWY_INLINE void LookUpValues(const uint8_t* codes, size_t size, const Line<Scales>& line,
                                    typename Output::Bits* to) {
  HWY_ALIGN static constexpr uint8_t kAll[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  HWY_ALIGN typename Output::Bits values[16];
  ComputeValues<Scales, Output>(kAll, 16, line, values);
  const typename Output::Table table(values);
  for (size_t i = 0; i < size; i += 16) table.Store(hn::Load(U8(), codes + i), to + i);
}

template <class Scales, class Output>
static void DequantizeValues(const uint8_t* packed, const void* scale_bytes, const void* bias_bytes,
                             size_t count, int32_t bits, size_t size, void* values) {
  const auto* scales = static_cast<const typename Scales::Bits*>(scale_bytes);
  const auto* biases = static_cast<const typename Scales::Bits*>(bias_bytes);
  auto* to = static_cast<typename Output::Bits*>(values);
  HWY_ALIGN uint8_t codes[kCodesAtOnce];
  const size_t at_once = kGroupsAtOnce * size;
  for (size_t start = 0; start < count; start += at_once) {
    const size_t here = std::min(at_once, count - start);
    UnpackCodes(bits, packed + start * static_cast<size_t>(bits) / 8, here, codes);
    for (size_t i = 0; i < here; i += size, ++scales, ++biases, to += size) {
      const Line<Scales> line(ValueAt<Scales>(scales, 0), ValueAt<Scales>(biases, 0));
      if (bits <= 4 && sizeof(*to) == 2) {
        LookUpValues<Scales, Output>(codes + i, size, line, to);
      } else {
        ComputeValues<Scales, Output>(codes + i, size, line, to);
      }
    }
  }
}

static void DequantizeGroups(const uint8_t* packed, const void* scales, const void* biases,
                             int32_t scale_type, size_t count, int32_t bits, size_t size, void* values,
                             int32_t type) {
  using B = HalfValues<BF16>;
  using H = HalfValues<F16>;
  using F = FloatValues;
  const bool is_wide = type == nibble_f32;
  const auto dequantize = scale_type == nibble_bf16  ? (is_wide ? DequantizeValues<B, F> : DequantizeValues<B, B>)
                          : scale_type == nibble_f16 ? (is_wide ? DequantizeValues<H, F> : DequantizeValues<H, H>)
                                                     : DequantizeValues<F, F>;
  dequantize(packed, scales, biases, count, bits, size, values);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(DequantizeGroups);

extern "C" void nibble_dequantize_groups(const uint8_t* packed, const void* scales, const void* biases,
                                         int32_t scale_type, size_t count, int32_t bits, size_t group_size,
                                         void* values, int32_t float_type) {
  HWY_DYNAMIC_DISPATCH(DequantizeGroups)
  (packed, scales, biases, scale_type, count, bits, group_size, values, float_type);
}

}  // namespace nibble
#endif
