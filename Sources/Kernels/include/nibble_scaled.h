// Weights as compressed-tensors stores them: codes of 4 or 8 bits, and a scale for each block of a matrix.
// Nothing needs alignment beyond that of its type in C; nothing may overlap. The function has a plain Swift
// twin in Quantization.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum nibble_scaled_format {
  // Codes E4M3, scales of the values' type.
  nibble_scaled_fp8 = 0,
  // Whole numbers from -8, each stored 8 higher, scales of the values' type.
  nibble_scaled_int4 = 1,
  // E2M1, scales E8M0.
  nibble_scaled_mxfp4 = 2,
  // E2M1, scales E4M3 that have been multiplied with `global_scale`.
  nibble_scaled_nvfp4 = 3,
  // As MXFP4, each scale the one of two by which the values are nearer. `block_columns` is 32.
  nibble_scaled_nearest_mxfp4 = 4,
};

// Quantizes `rows` of `columns` values; `block_rows` by `block_columns` of them share a scale, fewer at the
// lower and right edges. Codes of 4 bits need `block_columns` and `columns` to be multiples of 16, and lie
// with the first in the low half of a byte. Scales lie row by row. Returns the index of the first value of
// the first block with a NaN or an infinity, or rows * columns; in the former case the outputs are
// unspecified.
size_t nibble_quantize_scaled(const void *values, int32_t float_type, size_t rows, size_t columns,
                              size_t block_rows, size_t block_columns, int32_t format, float global_scale,
                              uint8_t *codes, void *scales);

// The bit pattern, as a float32, of the largest magnitude of `count` values; that of an infinity or a NaN if
// there is one.
uint32_t nibble_largest_magnitude(const void *values, int32_t float_type, size_t count);

#ifdef __cplusplus
}
#endif
