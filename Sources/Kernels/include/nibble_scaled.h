// Weights as compressed-tensors stores them: codes of 4 or 8 bits, and a scale for each block of a matrix.
// Nothing needs alignment beyond that of its type in C; nothing may overlap. The functions have plain
// Swift twins in Quantization.
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

typedef struct {
  // `nibble_scaled_int4`, `nibble_scaled_mxfp4` or `nibble_scaled_nvfp4`.
  int32_t format;
  // Whether scales may be negative, where the format has such.
  int32_t is_signed;
  // Values of a row that share a scale: 16 to 128, a multiple of 16.
  size_t group_size;
  // Of a row, whole groups.
  size_t columns;
  float global_scale;
  // The roots of what a squared error counts in each column, or NULL for all alike.
  const float *roots;
} nibble_scaled_search;

// The same for `count` values, whole rows, with scales of the least squared error: of those that are tried, among them
// the one that `nibble_quantize_scaled` chooses, the first for which no other is better.
size_t nibble_search_scaled(const void *values, int32_t float_type, size_t count,
                            const nibble_scaled_search *search, uint8_t *codes, void *scales);

// Quantizes `columns` columns of a matrix that lies column by column, each `rows` long (a multiple of 16): every column
// less what its error, over the diagonal of `factor`, is times the columns behind it in their row of `factor`, which has
// `stride` numbers from one row to the next. `divisors`: one for each row, not 0. `codes`: one byte for each value,
// `errors`: over the diagonal, both column by column.
void nibble_feedback_scaled(float *matrix, size_t rows, size_t columns, const float *factor, size_t stride,
                            int32_t format, const float *divisors, uint8_t *codes, float *errors);

// The bit pattern, as a float32, of the largest magnitude of `count` values; that of an infinity or a NaN if
// there is one.
uint32_t nibble_largest_magnitude(const void *values, int32_t float_type, size_t count);

#ifdef __cplusplus
}
#endif
