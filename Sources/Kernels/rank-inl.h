// The nearest of 16 rising levels, for whole numbers of 16 bits: the 15 thresholds between the levels are searched by
// halves, and what the next comparison needs is looked up byte by byte, which every instruction set can.
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

using I16 = hn::Repartition<int16_t, I32>;
using V16 = hn::Vec<I16>;

// Levels and thresholds as the search needs them. Tables of 8 numbers are 16 bytes, what one lookup reaches.
struct RankTable {
  HWY_ALIGN int16_t low[8], high[8], thirds[8], fourths[8];
  int16_t first, second[2];

  // `thresholds` are 15, rising as the 16 levels do.
  void Set(const int16_t* levels, const int16_t* thresholds) {
    for (int i = 0; i < 8; ++i) {
      low[i] = levels[i];
      high[i] = levels[8 + i];
      fourths[i] = thresholds[2 * i];
      thirds[i] = thresholds[i % 4 * 4 + 1];
    }
    first = thresholds[7];
    second[0] = thresholds[3];
    second[1] = thresholds[11];
  }
};

class Ranks {
 public:
  explicit HWY_INLINE Ranks(const RankTable& table) {
    const I16 d;
    low_ = hn::LoadDup128(d, table.low);
    high_ = hn::LoadDup128(d, table.high);
    thirds_ = hn::LoadDup128(d, table.thirds);
    fourths_ = hn::LoadDup128(d, table.fourths);
    first_ = hn::Set(d, table.first);
    lower_ = hn::Set(d, table.second[0]);
    upper_ = hn::Set(d, table.second[1]);
  }

  // The level nearest to each value.
  HWY_INLINE V16 Nearest(V16 value) const {
    const I16 d;
    const auto index = hn::And(Index(value), hn::Set(d, 0x0E0E));
    return hn::IfThenElse(hn::Gt(value, first_), Lookup(high_, index), Lookup(low_, index));
  }

  // How many thresholds each value is greater than.
  HWY_INLINE V16 Rank(V16 value) const { return hn::And(hn::ShiftRight<1>(Index(value)), hn::Set(I16(), 15)); }

 private:
  // Twice the rank, in both bytes of a lane.
  HWY_INLINE V16 Index(V16 value) const {
    const I16 d;
    const auto digit = hn::Set(d, 0x0202);
    const auto is_upper = hn::Gt(value, first_);
    const auto second = hn::Gt(value, hn::IfThenElse(is_upper, upper_, lower_));
    auto index = hn::Or(hn::And(hn::VecFromMask(d, is_upper), hn::Set(d, 0x0404)), Digit(second, digit));
    const auto third = hn::Gt(value, Lookup(thirds_, index));
    index = hn::Or(hn::Add(index, index), Digit(third, digit));
    const auto fourth = hn::Gt(value, Lookup(fourths_, index));
    return hn::Or(hn::Add(index, index), Digit(fourth, digit));
  }

  static HWY_INLINE V16 Digit(hn::Mask<I16> is_above, V16 digit) {
    return hn::And(hn::VecFromMask(I16(), is_above), digit);
  }

  static HWY_INLINE V16 Lookup(V16 table, V16 index) {
    const I16 d;
    const hn::Repartition<uint8_t, I16> d8;
    const auto bytes = hn::BitCast(d8, hn::Or(index, hn::Set(d, 0x0100)));
    return hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, table), bytes));
  }

  V16 low_, high_, thirds_, fourths_, first_, lower_, upper_;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
