// Searched scales of the four-bit codes.
#pragma once
#include "nibble_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  // Which 16 levels: `nibble_code`.
  int32_t code;
  int32_t is_signed;
  size_t block_size;
  // The roots of what a squared error counts in each column, or NULL for all alike; repeated so that a block that begins
  // in the last column finds as many as it has values. `first_column` is that of the first value.
  const float *roots;
  size_t columns, first_column;
  // The 256 rising values that scales have relative to the greatest of 256 of them, or NULL for scales in 32 bits.
  const float *map;
} nibble_search_options;

// Quantizes `count` values, whole blocks but for the last. `scales` has one for each block; where there is a map, one
// for each 256 blocks, and `scale_codes` one for each block. Returns the first block with a value that is not finite, or
// the number of blocks; in the former case the outputs are unspecified.
size_t nibble_search_four_bit(const void *values, int32_t float_type, size_t count,
                              const nibble_search_options *options, uint8_t *codes, float *scales,
                              uint8_t *scale_codes);

#ifdef __cplusplus
}
#endif
