#include "nibble_scaled.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../scaled_search.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "scaled-e2m1-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

template <class Format, class Values>
static size_t SearchValues(const void* from, size_t count, const nibble_scaled_search* search, uint8_t* codes,
                           void* scales) {
  const auto* values = static_cast<const typename Values::Bits*>(from);
  Groups groups;
  groups.size = search->group_size;
  const size_t total = count / groups.size;
  for (size_t i = 0; i < groups.size * kLanes; i += hn::Lanes(F32())) Store(Splat(1.0f), groups.weights + i);
  HWY_ALIGN float divisors[kLanes];
  HWY_ALIGN uint8_t unpacked[kLargestGroup];
  for (size_t first = 0; first < total; first += kLanes) {
    const size_t here = HWY_MIN(kLanes, total - first);
    const size_t finite = groups.template Read<Values>(values, first, here, search->columns, search->roots);
    if (HWY_UNLIKELY(finite < here)) return (first + finite) * groups.size;
    Format::template Search<Values>(groups, here, search->global_scale, search->is_signed != 0, first, scales,
                                    divisors);
    for (size_t b = 0; b < here; ++b) {
      const size_t start = (first + b) * groups.size;
      Encode<Format, Values>(values + start, groups.size, divisors[b], unpacked);
      PackCodes(4, unpacked, groups.size, codes + start / 2);
    }
  }
  return count;
}

template <class Format>
static size_t SearchFormat(const void* values, int32_t type, size_t count, const nibble_scaled_search* search,
                           uint8_t* codes, void* scales) {
  const auto find = type == nibble_bf16  ? SearchValues<Format, HalfValues<BF16>>
                    : type == nibble_f16 ? SearchValues<Format, HalfValues<F16>>
                                         : SearchValues<Format, FloatValues>;
  return find(values, count, search, codes, scales);
}

static size_t SearchScaled(const void* values, int32_t type, size_t count, const nibble_scaled_search* search,
                           uint8_t* codes, void* scales) {
  const auto find = search->format == nibble_scaled_int4    ? SearchFormat<SearchedInt4>
                    : search->format == nibble_scaled_mxfp4 ? SearchFormat<SearchedE2M1<ScalesOfMXFP4>>
                                                            : SearchFormat<SearchedE2M1<ScalesOfNVFP4>>;
  return find(values, type, count, search, codes, scales);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(SearchScaled);

extern "C" size_t nibble_search_scaled(const void* values, int32_t float_type, size_t count,
                                       const nibble_scaled_search* search, uint8_t* codes, void* scales) {
  return HWY_DYNAMIC_DISPATCH(SearchScaled)(values, float_type, count, search, codes, scales);
}

}  // namespace nibble
#endif
