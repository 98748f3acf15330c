#include "nibble_scaled.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../feedback_scaled.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "feedback-inl.h"
#include "scaled-e2m1-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// A product is never fused with the sum that follows.
template <bool kIsInt4>
static void FeedbackColumns(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride,
                            const float* divisors, uint8_t* codes, float* errors) {
  const F32 df;
  const I32 di;
  const hn::Rebind<uint8_t, I32> d8;
  for (size_t j = 0; j < columns; ++j) {
    float* column = matrix + j * rows;
    const auto diagonal = hn::Set(df, factor[j * stride + j]);
    for (size_t r = 0; r < rows; r += hn::Lanes(df)) {
      const auto scale = hn::LoadU(df, divisors + r), value = hn::LoadU(df, column + r);
      const auto quotient = hn::Div(value, scale);
      auto level = quotient;
      auto code = hn::Zero(di);
      if (kIsInt4) {
        level = RoundWithin(quotient, -8.0f, 7.0f);
        code = hn::Add(hn::NearestInt(level), hn::Set(di, 8));
      } else {
        level = hn::CopySign(LevelOfE2M1(hn::Min(hn::Abs(quotient), Splat(6.0f))), quotient);
        code = NearestE2M1(quotient);
      }
      hn::StoreU(hn::DemoteTo(d8, code), d8, codes + j * rows + r);
      const auto error = hn::Div(hn::Sub(value, hn::Mul(level, scale)), diagonal);
      hn::StoreU(error, df, errors + j * rows + r);
    }
    SubtractBehind(matrix, rows, columns, j, factor + j * stride, errors);
  }
}

static void FeedbackScaled(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride,
                           int32_t format, const float* divisors, uint8_t* codes, float* errors) {
  const auto make = format == nibble_scaled_int4 ? FeedbackColumns<true> : FeedbackColumns<false>;
  make(matrix, rows, columns, factor, stride, divisors, codes, errors);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(FeedbackScaled);

extern "C" void nibble_feedback_scaled(float* matrix, size_t rows, size_t columns, const float* factor,
                                       size_t stride, int32_t format, const float* divisors, uint8_t* codes,
                                       float* errors) {
  HWY_DYNAMIC_DISPATCH(FeedbackScaled)(matrix, rows, columns, factor, stride, format, divisors, codes, errors);
}

}  // namespace nibble
#endif
