// Takes what a column lost from the columns behind it. Included once for each target.
#if defined(NIBBLE_FEEDBACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_FEEDBACK_INL_H_
#undef NIBBLE_FEEDBACK_INL_H_
#else
#define NIBBLE_FEEDBACK_INL_H_
#endif

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// `matrix` and `errors` lie column by column, each `rows` long; `factor` is the row of column `j`, from the first of the
// `columns` on. A product is never fused with the sum that follows.
static inline void SubtractBehind(float* matrix, size_t rows, size_t columns, size_t j, const float* factor,
                                  const float* errors) {
  const F32 df;
  for (size_t k = j + 1; k < columns; ++k) {
    const auto weight = hn::Set(df, factor[k]);
    float* behind = matrix + k * rows;
    for (size_t r = 0; r < rows; r += hn::Lanes(df)) {
      const auto change = hn::Mul(weight, hn::LoadU(df, errors + j * rows + r));
      hn::StoreU(hn::Sub(hn::LoadU(df, behind + r), change), df, behind + r);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif
