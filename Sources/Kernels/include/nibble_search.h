// Searched scales of the four-bit codes.
#pragma once
#include "nibble_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// Which scales are tried: of both signs, positive ones, or the largest magnitude alone.
enum nibble_scale_kind { nibble_signed = 0, nibble_positive = 1, nibble_maximum = 2 };

typedef struct {
  // Which 16 levels: `nibble_code`.
  int32_t code;
  int32_t kind;
  size_t block_size;
  // The roots of what a squared error counts in each column, or NULL for all alike; repeated so that a block that begins
  // in the last column finds as many as it has values. `first_column` is that of the first value.
  const float *roots;
  size_t columns, first_column;
  // The 256 rising values that scales have relative to the greatest of 256 of them, or NULL for scales in 32 bits.
  const float *map;
  // For each block what its scale is relative to, where that is known before; else NULL.
  const float *given;
} nibble_search_options;

// Quantizes `count` values, whole blocks but for the last. `scales` has one for each block; where there is a map, one
// for each 256 blocks, and `scale_codes` one for each block. Returns the first block with a value that is not finite, or
// the number of blocks; in the former case the outputs are unspecified. Without room for `codes` only scales are found.
size_t nibble_search_four_bit(const void *values, int32_t float_type, size_t count,
                              const nibble_search_options *options, uint8_t *codes, float *scales,
                              uint8_t *scale_codes);

// Quantizes `columns` columns of a matrix that lies column by column, each `rows` long (a multiple of 16): every column
// less what its error, over the diagonal of `factor`, is times the columns behind it in their row of `factor`, which has
// `stride` numbers from one row to the next. `scales`: one for each row. `codes`: one for each value, `errors`: over the
// diagonal, both column by column.
void nibble_feedback_four_bit(float *matrix, size_t rows, size_t columns, const float *factor, size_t stride,
                              int32_t code, const float *scales, uint8_t *codes, float *errors);

#ifdef __cplusplus
}
#endif
