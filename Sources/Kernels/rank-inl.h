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

// How many of 15 rising thresholds numbers are greater than.
class Ranks {
 public:
  // `thresholds` has 16 entries, of which the last is never compared with.
  explicit HWY_INLINE Ranks(const int16_t* thresholds) {
    const I16 d;
    const hn::Full128<int16_t> d128;
    const auto lower = hn::LoadU(d128, thresholds), upper = hn::LoadU(d128, thresholds + 8);
    HWY_ALIGN int16_t even[8], odd[8];
    hn::Store(hn::ConcatEven(d128, upper, lower), d128, even);
    hn::Store(hn::ConcatOdd(d128, upper, lower), d128, odd);
    even_ = hn::LoadDup128(d, even);
    odd_ = hn::LoadDup128(d, odd);
    first_ = hn::Set(d, thresholds[7]);
    below_ = hn::Set(d, thresholds[3]);
    above_ = hn::Set(d, thresholds[11]);
  }

  HWY_INLINE V16 operator()(V16 value) const {
    const auto all_but_last = Index(value);
    return hn::Or(hn::And(all_but_last, hn::Set(I16(), 14)), Digit(Last(value, all_but_last), 1));
  }

  // The same in two parts: twice the number of thresholds at even places below the last one, in both bytes of a lane;
  // and whether that last one is below, too.
  HWY_INLINE V16 Index(V16 value) const {
    const auto is_upper = hn::Gt(value, first_);
    const auto second = hn::IfThenElse(is_upper, above_, below_);
    const auto index = hn::Or(Digit(is_upper, 0x0808), Digit(hn::Gt(value, second), 0x0404));
    return hn::Or(index, Digit(hn::Gt(value, Lookup(odd_, index)), 0x0202));
  }
  HWY_INLINE hn::Mask<I16> Last(V16 value, V16 index) const { return hn::Gt(value, Lookup(even_, index)); }
  HWY_INLINE hn::Mask<I16> IsUpper(V16 value) const { return hn::Gt(value, first_); }

  static HWY_INLINE V16 Digit(hn::Mask<I16> is_above, int16_t digit) {
    return hn::And(hn::VecFromMask(I16(), is_above), hn::Set(I16(), digit));
  }

  // One of 8 numbers of a table for each lane.
  static HWY_INLINE V16 Lookup(V16 table, V16 index) {
    const I16 d;
    const hn::Repartition<uint8_t, I16> d8;
    const auto bytes = hn::BitCast(d8, hn::Or(index, hn::Set(d, 0x0100)));
    return hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, table), bytes));
  }

 private:
  V16 even_, odd_, first_, below_, above_;
};

// 16 rising levels, and the thresholds between them.
struct RankTable {
  HWY_ALIGN int16_t levels[16], thresholds[16];
};

class Levels {
 public:
  explicit HWY_INLINE Levels(const RankTable& table) : ranks_(table.thresholds) {
    const I16 d;
    lower_ = hn::LoadDup128(d, table.levels);
    upper_ = hn::LoadDup128(d, table.levels + 8);
  }

  // The level nearest to each value.
  HWY_INLINE V16 Nearest(V16 value) const {
    const auto index = ranks_.Index(value);
    const auto last = Ranks::Digit(ranks_.Last(value, index), 0x0202);
    // Of 8 levels, once the half is known.
    const auto place = hn::Or(hn::And(hn::Add(index, index), hn::Set(I16(), 0x0C0C)), last);
    return hn::IfThenElse(ranks_.IsUpper(value), Ranks::Lookup(upper_, place), Ranks::Lookup(lower_, place));
  }

 private:
  Ranks ranks_;
  V16 lower_, upper_;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
