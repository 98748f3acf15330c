// Which of 16 rising levels is nearest to a value, by the 15 thresholds between them.
#include <hwy/highway.h>

#include "half-inl.h"

#if defined(NIBBLE_RANK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_RANK_INL_H_
#undef NIBBLE_RANK_INL_H_
#else
#define NIBBLE_RANK_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The thresholds, rising, in the order in which a binary search needs them.
class Thresholds {
 public:
  // `rising` has 16 entries, the last of them padding.
  explicit HWY_INLINE Thresholds(const float* rising) : rising_(rising) {
    const F32 df;
    if (hn::Lanes(df) == 16) {
      first_ = hn::LoadU(df, rising);
    } else if (hn::Lanes(df) == 8) {
      HWY_ALIGN float thirds[8], fourths[8];
      for (size_t i = 0; i < 8; ++i) {
        thirds[i] = rising[i % 4 * 4 + 1];
        fourths[i] = rising[i * 2];
      }
      first_ = hn::Load(df, thirds);
      second_ = hn::Load(df, fourths);
    }
  }

  // How many thresholds each value is greater than.
  HWY_INLINE VI Rank(VF value) const {
    const F32 df;
    const I32 di;
    if (hn::Lanes(df) == 16) {
      // The whole table is one vector.
      auto rank = Digit(value, hn::Set(df, rising_[7]), 8);
      for (int32_t step = 4; step > 0; step /= 2) {
        const auto index = step == 1 ? rank : hn::Or(rank, hn::Set(di, step - 1));
        const auto threshold = hn::TableLookupLanes(first_, hn::IndicesFromVec(df, index));
        rank = hn::Or(rank, Digit(value, threshold, step));
      }
      return rank;
    }
    if (hn::Lanes(df) == 8) {
      // Each step has twice as many thresholds to choose from; at the last one they fill a vector.
      const auto is_upper = hn::Gt(value, hn::Set(df, rising_[7]));
      const auto second = hn::IfThenElse(is_upper, hn::Set(df, rising_[11]), hn::Set(df, rising_[3]));
      auto rank = hn::IfThenElseZero(hn::RebindMask(di, is_upper), hn::Set(di, 2));
      rank = hn::Or(rank, Digit(value, second, 1));
      const auto third = hn::TableLookupLanes(first_, hn::IndicesFromVec(df, rank));
      rank = hn::Or(hn::Add(rank, rank), Digit(value, third, 1));
      const auto fourth = hn::TableLookupLanes(second_, hn::IndicesFromVec(df, rank));
      return hn::Or(hn::Add(rank, rank), Digit(value, fourth, 1));
    }
    auto rank = hn::Zero(di);
    for (int i = 0; i < 15; ++i) {
      const auto above = hn::RebindMask(di, hn::Gt(value, hn::Set(df, rising_[i])));
      rank = hn::Sub(rank, hn::VecFromMask(di, above));
    }
    return rank;
  }

  HWY_INLINE float at(int index) const { return rising_[index]; }

 private:
  static HWY_INLINE VI Digit(VF value, VF threshold, int32_t digit) {
    const I32 di;
    return hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(value, threshold)), hn::Set(di, digit));
  }

  const float* rising_;
  VF first_, second_;
};

// 16 levels by rising value, with the thresholds between them.
class Levels {
 public:
  HWY_INLINE Levels(const float* rising, const float* thresholds) : rising_(rising), thresholds_(thresholds) {
    const F32 df;
    if (hn::Lanes(df) >= 8) {
      low_ = hn::LoadU(df, rising);
      high_ = hn::Lanes(df) == 8 ? hn::LoadU(df, rising + 8) : low_;
    }
  }

  // The level that is nearest to each value.
  HWY_INLINE VF Nearest(VF value) const {
    const F32 df;
    const I32 di;
    if (hn::Lanes(df) == 16) {
      return hn::TableLookupLanes(low_, hn::IndicesFromVec(df, thresholds_.Rank(value)));
    }
    if (hn::Lanes(df) == 8) {
      const auto rank = thresholds_.Rank(value);
      const auto index = hn::IndicesFromVec(df, hn::And(rank, hn::Set(di, 7)));
      const auto is_upper = hn::RebindMask(df, hn::Gt(rank, hn::Set(di, 7)));
      return hn::IfThenElse(is_upper, hn::TableLookupLanes(high_, index), hn::TableLookupLanes(low_, index));
    }
    auto level = hn::Set(df, rising_[0]);
    for (int i = 0; i < 15; ++i) {
      level = hn::IfThenElse(hn::Gt(value, hn::Set(df, thresholds_.at(i))), hn::Set(df, rising_[i + 1]), level);
    }
    return level;
  }

 private:
  const float* rising_;
  Thresholds thresholds_;
  VF low_, high_;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
