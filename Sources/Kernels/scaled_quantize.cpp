#include "nibble_scaled.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../scaled_quantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "scaled-encode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

template <class Format, class Values>
static size_t QuantizeValues(const void* from, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, float global_scale, uint8_t* codes, void* scales) {
  const auto* values = static_cast<const typename Values::Bits*>(from);
  HWY_ALIGN uint8_t unpacked[kCodesAtOnce];
  size_t at = 0;
  for (size_t top = 0; top < rows; top += block_rows) {
    const size_t bottom = HWY_MIN(rows, top + block_rows);
    for (size_t left = 0; left < columns; left += block_columns, ++at) {
      const size_t width = HWY_MIN(block_columns, columns - left);
      int32_t largest = 0;
      for (size_t row = top; row < bottom; ++row) {
        largest = HWY_MAX(largest, LargestBits<Values>(values + row * columns + left, width));
        if (HWY_UNLIKELY(largest >= Values::kInfinity)) return row * columns + left;
      }
      const float magnitude = hn::GetLane(Values::FromBits(hn::Set(I32(), largest)));
      float divisor;
      if constexpr (Format::kSearches) {
        divisor = Format::template Search<Values>(values + top * columns + left, width, magnitude, at, scales);
      } else {
        divisor = Format::template Scale<Values>(magnitude, global_scale, at, scales);
      }
      for (size_t row = top; row < bottom; ++row) {
        const size_t start = row * columns + left;
        if (Format::kBits == 8) {
          Encode<Format, Values>(values + start, width, divisor, codes + start);
          continue;
        }
        for (size_t i = 0; i < width; i += kCodesAtOnce) {
          const size_t here = HWY_MIN(kCodesAtOnce, width - i);
          Encode<Format, Values>(values + start + i, here, divisor, unpacked);
          PackCodes(4, unpacked, here, codes + (start + i) / 2);
        }
      }
    }
  }
  return rows * columns;
}

template <class Format>
static size_t QuantizeFormat(const void* values, int32_t type, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, float global_scale, uint8_t* codes, void* scales) {
  const auto quantize = type == nibble_bf16  ? QuantizeValues<Format, HalfValues<BF16>>
                        : type == nibble_f16 ? QuantizeValues<Format, HalfValues<F16>>
                                             : QuantizeValues<Format, FloatValues>;
  return quantize(values, rows, columns, block_rows, block_columns, global_scale, codes, scales);
}

static size_t QuantizeScaled(const void* values, int32_t type, size_t rows, size_t columns, size_t block_rows,
                             size_t block_columns, int32_t format, float global_scale, uint8_t* codes,
                             void* scales) {
  const auto quantize = format == nibble_scaled_fp8             ? QuantizeFormat<FP8>
                        : format == nibble_scaled_int4          ? QuantizeFormat<Int4>
                        : format == nibble_scaled_mxfp4         ? QuantizeFormat<MXFP4>
                        : format == nibble_scaled_nearest_mxfp4 ? QuantizeFormat<NearestMXFP4>
                                                                : QuantizeFormat<NVFP4>;
  return quantize(values, type, rows, columns, block_rows, block_columns, global_scale, codes, scales);
}

template <class Values>
static uint32_t Largest(const void* values, size_t count) {
  const int32_t bits = LargestBits<Values>(static_cast<const typename Values::Bits*>(values), count);
  return static_cast<uint32_t>(hn::GetLane(hn::BitCast(I32(), Values::FromBits(hn::Set(I32(), bits)))));
}

static uint32_t LargestMagnitude(const void* values, int32_t type, size_t count) {
  const auto largest = type == nibble_bf16  ? Largest<HalfValues<BF16>>
                       : type == nibble_f16 ? Largest<HalfValues<F16>>
                                            : Largest<FloatValues>;
  return largest(values, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(QuantizeScaled);
HWY_EXPORT(LargestMagnitude);

extern "C" size_t nibble_quantize_scaled(const void* values, int32_t float_type, size_t rows, size_t columns,
                                         size_t block_rows, size_t block_columns, int32_t format,
                                         float global_scale, uint8_t* codes, void* scales) {
  return HWY_DYNAMIC_DISPATCH(QuantizeScaled)(values, float_type, rows, columns, block_rows, block_columns,
                                              format, global_scale, codes, scales);
}

extern "C" uint32_t nibble_largest_magnitude(const void* values, int32_t float_type, size_t count) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitude)(values, float_type, count);
}

}  // namespace nibble
#endif
