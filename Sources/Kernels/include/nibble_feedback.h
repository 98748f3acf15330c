// What ggml's blocks lose, made good in later columns.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What the codes of a block stand for: level * scale - minimum.
typedef struct {
  // Whole numbers from `lowest` to `greatest`, or 16 rising numbers in `table`, NULL where there are none.
  int32_t lowest, greatest;
  const float *table;
  // Columns that share their scales and minima.
  size_t group_size;
} nibble_levels;

// Quantizes `columns` columns of a matrix that lies column by column, each `rows` long (a multiple of 16): every column
// less what its error, over the diagonal of `factor`, is times the columns behind it in their row of `factor`, which has
// `stride` numbers from one row to the next. `scales`, `minima`: one for each row, group by group. `codes`: counted from
// the lowest level, one for each value, `errors`: over the diagonal, both column by column. A column of the matrix is
// left as it was quantized.
void nibble_feedback_levels(float *matrix, size_t rows, size_t columns, const float *factor, size_t stride,
                            const nibble_levels *levels, const float *scales, const float *minima, uint8_t *codes,
                            float *errors);

#ifdef __cplusplus
}
#endif
