// The search of a scale for blocks of 32 values in which some columns matter more than others.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace nibble {

// Values are d · code, or d · code + m, with codes from `least` to `greatest`.
struct WeightedFormat {
  float least, greatest;
  bool has_offset, has_fifth_bits;
  // Scales to try: a multiple of 16.
  size_t candidates;
  size_t bytes;
  // Without importance.
  void (*encode)(const float*, size_t, size_t, const float*, uint8_t*);
};

// The code, fractional, that the largest magnitude or the range gets with candidate `k`. Without an offset the
// first 19 lie around the least code, the others around the greatest one.
inline float CandidateCode(const WeightedFormat& format, size_t k) {
  const int step = static_cast<int>(k);
  if (format.has_offset) return format.greatest + static_cast<float>(step - 20) / 20;
  if (k < 19) return format.least + static_cast<float>(9 - step) / 10;
  return format.greatest + static_cast<float>(step - 25) / 10;
}

void EncodeWithImportance(const WeightedFormat& format, const float* values, size_t rows,
                          size_t row_length, const float* importance, uint8_t* output);

}  // namespace nibble
