#include "levels.h"
#include "nibble_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../feedback_four_bit.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "feedback-inl.h"
#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// A product is never fused with the sum that follows.
static void FeedbackFourBit(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride,
                            int32_t code_kind, const float* scales, uint8_t* codes, float* errors) {
  const F32 df;
  const I32 di;
  const hn::Rebind<uint8_t, I32> d8;
  const Code& code = code_kind == nibble_fp4 ? kFP4 : kNF4;
  for (size_t j = 0; j < columns; ++j) {
    float* column = matrix + j * rows;
    const auto diagonal = hn::Set(df, factor[j * stride + j]);
    for (size_t r = 0; r < rows; r += hn::Lanes(df)) {
      const auto scale = hn::LoadU(df, scales + r), value = hn::LoadU(df, column + r);
      const auto is_zero = hn::Eq(scale, hn::Zero(df));
      const auto scaled = hn::IfThenZeroElse(is_zero, hn::Div(value, scale));
      auto level = hn::Set(df, code.levels[code.codes[0]]);
      auto number = hn::Set(di, code.codes[0]);
      for (int k = 0; k < 15; ++k) {
        const auto above = hn::Gt(scaled, hn::Set(df, code.midpoints[k]));
        level = hn::IfThenElse(above, hn::Set(df, code.levels[code.codes[k + 1]]), level);
        number = hn::IfThenElse(hn::RebindMask(di, above), hn::Set(di, code.codes[k + 1]), number);
      }
      hn::StoreU(hn::DemoteTo(d8, number), d8, codes + j * rows + r);
      const auto error = hn::Div(hn::Sub(value, hn::Mul(level, scale)), diagonal);
      hn::StoreU(error, df, errors + j * rows + r);
    }
    SubtractBehind(matrix, rows, columns, j, factor + j * stride, errors);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(FeedbackFourBit);

extern "C" void nibble_feedback_four_bit(float* matrix, size_t rows, size_t columns, const float* factor,
                                         size_t stride, int32_t code, const float* scales, uint8_t* codes,
                                         float* errors) {
  HWY_DYNAMIC_DISPATCH(FeedbackFourBit)(matrix, rows, columns, factor, stride, code, scales, codes, errors);
}

}  // namespace nibble
#endif
