#include "nibble_feedback.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../feedback_levels.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "feedback-inl.h"
#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

struct Chosen {
  VF level;
  VI code;
};

// The nearest of whole numbers, the even one of two. Comparisons send a NaN to the lowest on every target.
struct WholeLevels {
  explicit WholeLevels(const nibble_levels& levels) : lowest(levels.lowest), greatest(levels.greatest) {}

  HWY_INLINE Chosen operator()(VF value) const {
    const F32 df;
    const I32 di;
    const auto low = hn::Set(df, static_cast<float>(lowest)), high = hn::Set(df, static_cast<float>(greatest));
    value = hn::IfThenElse(hn::Gt(value, low), value, low);
    value = hn::Round(hn::IfThenElse(hn::Lt(value, high), value, high));
    return {value, hn::Sub(hn::ConvertTo(di, value), hn::Set(di, lowest))};
  }

  int32_t lowest, greatest;
};

// The nearest number of a table, the lower one of two.
struct TableLevels {
  explicit TableLevels(const nibble_levels& levels) : table(levels.table) {}

  HWY_INLINE Chosen operator()(VF value) const {
    const F32 df;
    const I32 di;
    Chosen chosen = {hn::Set(df, table[0]), hn::Zero(di)};
    for (int k = 0; k < 15; ++k) {
      const auto above = hn::Gt(value, hn::Set(df, (table[k] + table[k + 1]) / 2));
      chosen.level = hn::IfThenElse(above, hn::Set(df, table[k + 1]), chosen.level);
      chosen.code = hn::IfThenElse(hn::RebindMask(di, above), hn::Set(di, k + 1), chosen.code);
    }
    return chosen;
  }

  const float* table;
};

// A product is never fused with the sum that follows.
template <class Levels>
static void Feedback(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride, size_t group_size,
                     const Levels& levels, const float* scales, const float* minima, uint8_t* codes, float* errors) {
  const F32 df;
  const hn::Rebind<uint8_t, I32> d8;
  for (size_t j = 0; j < columns; ++j) {
    float* column = matrix + j * rows;
    const size_t group = j / group_size * rows;
    const auto diagonal = hn::Set(df, factor[j * stride + j]);
    for (size_t r = 0; r < rows; r += hn::Lanes(df)) {
      const auto value = hn::LoadU(df, column + r);
      const auto scale = hn::LoadU(df, scales + group + r), minimum = hn::LoadU(df, minima + group + r);
      const auto is_zero = hn::Eq(scale, hn::Zero(df));
      const auto chosen = levels(hn::IfThenZeroElse(is_zero, hn::Div(hn::Add(value, minimum), scale)));
      hn::StoreU(hn::DemoteTo(d8, chosen.code), d8, codes + j * rows + r);
      const auto decoded = hn::Sub(hn::Mul(chosen.level, scale), minimum);
      hn::StoreU(hn::Div(hn::Sub(value, decoded), diagonal), df, errors + j * rows + r);
    }
    SubtractBehind(matrix, rows, columns, j, factor + j * stride, errors);
  }
}

static void FeedbackLevels(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride,
                           const nibble_levels* levels, const float* scales, const float* minima, uint8_t* codes,
                           float* errors) {
  const size_t size = levels->group_size;
  if (levels->table) {
    Feedback(matrix, rows, columns, factor, stride, size, TableLevels(*levels), scales, minima, codes, errors);
  } else {
    Feedback(matrix, rows, columns, factor, stride, size, WholeLevels(*levels), scales, minima, codes, errors);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(FeedbackLevels);

extern "C" void nibble_feedback_levels(float* matrix, size_t rows, size_t columns, const float* factor, size_t stride,
                                       const nibble_levels* levels, const float* scales, const float* minima,
                                       uint8_t* codes, float* errors) {
  HWY_DYNAMIC_DISPATCH(FeedbackLevels)(matrix, rows, columns, factor, stride, levels, scales, minima, codes, errors);
}

}  // namespace nibble
#endif
