// Four-bit codes with scales that are searched: what the values of blocks lose with each scale that is tried, in whole
// numbers of 16 bits, so that all instruction sets agree.
#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <hwy/highway.h>

#include "lanes-inl.h"
#include "levels.h"
#include "nibble_search.h"
#include "rank-inl.h"

#if defined(NIBBLE_SEARCHED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SEARCHED_INL_H_
#undef NIBBLE_SEARCHED_INL_H_
#else
#define NIBBLE_SEARCHED_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Of a block's largest magnitude: the scales that are tried first, with both signs.
constexpr int kRatios = 10;
constexpr float kFirstRatio = 0.76f, kRatioStep = 0.04f;
// The ratios that are tried around the best of these where scales have 32 bits.
constexpr int kFineRatios = 5;
constexpr float kFineStep = 0.01f;
constexpr size_t kNestedBlock = 256;
constexpr size_t kStrip = 64;
// The greatest magnitude that the map of scales has with both signs.
constexpr float kGreatestCode = 0.99296875f;
constexpr float kSmallestDivisor = 1e-38f;
constexpr float kLargest = std::numeric_limits<float>::max();

// Values relative to their block's largest magnitude as whole numbers of 16 bits, where one ratio is meant for all; and
// relative to a scale of each block's own.
constexpr float kUnit = 16384.0f, kOwnUnit = 8192.0f;
constexpr float kWeightUnit = 32767.0f;
// No farther from any level than leaves room for 64 squares in 32 bits.
constexpr float kOwnLimit = 8192.0f + 5760.0f;

// A code's levels by rising value, times a ratio, and the thresholds between them.
struct Table {
  RankTable ranks;
  float ratio;

  void Set(const Code& code, float by, float unit) {
    ratio = by;
    for (int i = 0; i < 16; ++i) {
      ranks.levels[i] = Whole(code.levels[code.codes[by < 0 ? 15 - i : i]] * by * unit);
      ranks.thresholds[i] = i == 15 ? 0 : Whole(code.midpoints[by < 0 ? 14 - i : i] * by * unit);
    }
  }

  static int16_t Whole(float value) { return static_cast<int16_t>(std::nearbyint(value)); }
};

// What is searched for: with the values of each block divided by the block's largest magnitude, so that nothing
// overflows.
struct Search {
  const void* values;
  int32_t type;
  size_t count;
  const nibble_search_options* options;
  const Code* code;
  Table unit;
  Table tables[2 * kRatios];
  int table_count;

  Search(const void* values, int32_t type, size_t count, const nibble_search_options* options)
      : values(values), type(type), count(count), options(options) {
    code = options->code == nibble_fp4 ? &kFP4 : &kNF4;
    unit.Set(*code, 1.0f, kOwnUnit);
    table_count = options->kind == nibble_signed ? 2 * kRatios : kRatios;
    if (options->kind == nibble_maximum) {
      table_count = 1;
      tables[0].Set(*code, 1.0f, kUnit);
      return;
    }
    for (int i = 0; i < table_count; ++i) {
      const float product = static_cast<float>(i % kRatios) * kRatioStep;
      const float ratio = kFirstRatio + product;
      tables[i].Set(*code, i < kRatios ? ratio : -ratio, kUnit);
    }
  }

  // No scale makes of a level what the values' type cannot hold.
  HWY_INLINE float Bounded(float value) const {
    const float limit = type == nibble_f16 ? 65504.0f : type == nibble_bf16 ? 0x1.FEp127f : kLargest;
    return std::min(std::max(value, -limit), limit);
  }

  // Of the ratios that are tried around the best.
  HWY_INLINE float Step(int k) const {
    return options->kind == nibble_maximum ? 0 : static_cast<float>(k - kFineRatios / 2) * kFineStep;
  }

  // Some values as floats; what is beyond the last is zero. `to` has room for whole vectors.
  HWY_INLINE void Read(size_t start, size_t length, float* to) const {
    const size_t there = start < count ? std::min(length, count - start) : 0;
    const auto* from = static_cast<const uint8_t*>(values) + start * (type == nibble_f32 ? 4 : 2);
    if (type == nibble_f32) {
      memcpy(to, from, 4 * there);
    } else if (type == nibble_bf16) {
      Widen<BF16>(reinterpret_cast<const uint16_t*>(from), there, to);
    } else {
      Widen<F16>(reinterpret_cast<const uint16_t*>(from), there, to);
    }
    for (size_t i = there; i < length; ++i) to[i] = 0;
  }

  template <class Half>
  static HWY_INLINE void Widen(const uint16_t* from, size_t count, float* to) {
    const F32 df;
    size_t i = 0;
    for (; i + hn::Lanes(df) <= count; i += hn::Lanes(df)) {
      hn::StoreU(Half::ToFloat(LoadHalves(from + i)), df, to + i);
    }
    if (i == count) return;
    HWY_ALIGN uint16_t rest[16] = {};
    memcpy(rest, from + i, 2 * (count - i));
    hn::StoreU(Half::ToFloat(LoadHalves(rest)), df, to + i);
  }

  // The largest magnitude of a block; infinite or NaN where one of its values is.
  HWY_INLINE float Largest(size_t start) const {
    const F32 df;
    const I32 di;
    HWY_ALIGN float strip[kStrip];
    auto largest = hn::Zero(di);
    for (size_t i = 0; i < options->block_size; i += kStrip) {
      const size_t length = std::min(kStrip, options->block_size - i);
      Read(start + i, length, strip);
      for (size_t j = 0; j < length; j += hn::Lanes(di)) {
        largest = hn::Max(largest, hn::And(hn::BitCast(di, hn::Load(df, strip + j)), hn::Set(di, 0x7FFFFFFF)));
      }
    }
    return hn::GetLane(hn::BitCast(df, hn::MaxOfLanes(di, largest)));
  }
};

// The squares of both numbers of each lane, added to the sums.
static HWY_INLINE VI AddSquares(V16 numbers, VI sums) {
  const I32 d;
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  auto unused = hn::Zero(d);
  return hn::ReorderWidenMulAccumulate(d, numbers, numbers, sums, unused);
#else
  const auto pairs = hn::BitCast(d, numbers);
  const auto even = hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)), odd = hn::ShiftRight<16>(pairs);
  return hn::Add(sums, hn::Add(hn::Mul(even, even), hn::Mul(odd, odd)));
#endif
}

// Up to 16 blocks side by side, two values of one in each lane; lanes beyond the last repeat it.
struct Blocks {
  const Search& search;
  size_t first, count;
  HWY_ALIGN float largest[kLanes];
  HWY_ALIGN float reciprocal[kLanes];
  // Of a strip: pairs of values, or of their weights' roots relative to the largest of these, whose square is
  // `weight_scale`.
  HWY_ALIGN int16_t values[kStrip * kLanes];
  HWY_ALIGN int16_t roots[kStrip * kLanes];
  HWY_ALIGN float weight_scale[kLanes];

  Blocks(const Search& search, size_t first, size_t count) : search(search), first(first), count(count) {}

  HWY_INLINE size_t Start(size_t lane) const {
    return (first + std::min(lane, count - 1)) * search.options->block_size;
  }

  // Returns the first block that is not finite, or `count`.
  HWY_INLINE size_t ReadLargest() {
    for (size_t b = 0; b < kLanes; ++b) {
      largest[b] = b < count ? search.Largest(Start(b)) : largest[count - 1];
      if (!(largest[b] <= kLargest)) return b;
      reciprocal[b] = 1.0f / std::max(largest[b], kSmallestDivisor);
    }
    return count;
  }

  // The nearest whole numbers to `factor` times some floats.
  static HWY_INLINE void ToWhole(const float* from, size_t length, float factor, float limit, int16_t* to) {
    const F32 df;
    const hn::Rebind<int16_t, F32> d16;
    for (size_t i = 0; i < length; i += hn::Lanes(df)) {
      const auto value = hn::Mul(hn::LoadU(df, from + i), hn::Set(df, factor));
      const auto bounded = hn::Min(hn::Max(value, hn::Set(df, -limit)), hn::Set(df, limit));
      hn::StoreU(hn::DemoteTo(d16, hn::NearestInt(bounded)), d16, to + i);
    }
  }

  // Rows of 16-bit numbers side by side, pair by pair.
  static HWY_INLINE void Pairs(int16_t (*rows)[kStrip], size_t length, int16_t* to) {
    const float* pointers[kLanes];
    for (size_t b = 0; b < kLanes; ++b) pointers[b] = reinterpret_cast<const float*>(rows[b]);
    Group<kStrip>::Transpose(pointers, length / 2, reinterpret_cast<float*>(to));
  }

  // Calls `body` with the number of pairs for each strip of the blocks, when the weights lie in lanes, and the values
  // as floats in `rows`.
  template <class Body>
  HWY_INLINE void ForEachStrip(float (*rows)[kStrip], Body body) {
    const F32 df;
    const nibble_search_options& options = *search.options;
    HWY_ALIGN int16_t whole[kLanes][kStrip];
    for (size_t i = 0; i < options.block_size; i += kStrip) {
      const size_t length = std::min(kStrip, options.block_size - i);
      for (size_t b = 0; b < kLanes; ++b) {
        search.Read(Start(b) + i, length, rows[b]);
        const auto factor = hn::Set(df, reciprocal[b]);
        for (size_t j = 0; j < length; j += hn::Lanes(df)) {
          hn::Store(hn::Mul(hn::Load(df, rows[b] + j), factor), df, rows[b] + j);
        }
        if (options.roots == nullptr) continue;
        const float* row = options.roots + (options.first_column + Start(b)) % options.columns + i;
        auto greatest = hn::Zero(df);
        for (size_t j = 0; j < length; j += hn::Lanes(df)) greatest = hn::Max(greatest, hn::LoadU(df, row + j));
        const float root = hn::GetLane(hn::MaxOfLanes(df, greatest));
        weight_scale[b] = root * root;
        ToWhole(row, length, root == 0 ? 0 : kWeightUnit / root, kWeightUnit, whole[b]);
      }
      if (options.roots != nullptr) Pairs(whole, length, roots);
      body(length / 2);
    }
  }

  // Adds the squared errors of a strip's values with a table of levels.
  HWY_INLINE void AddErrors(const Levels& levels, size_t pairs, float factor, float* errors) const {
    const I16 d;
    const I32 di;
    const F32 df;
    const bool is_weighted = search.options->roots != nullptr;
    for (size_t g = 0; g < kLanes; g += hn::Lanes(di)) {
      auto sum = hn::Zero(di);
      if (is_weighted) {
        for (size_t i = g; i < pairs * kLanes; i += kLanes) {
          const auto value = hn::Load(d, values + 2 * i);
          const auto difference = hn::Sub(value, levels.Nearest(value));
          const auto weighted = hn::MulFixedPoint15(difference, hn::Load(d, roots + 2 * i));
          sum = AddSquares(weighted, sum);
        }
      } else {
        for (size_t i = g; i < pairs * kLanes; i += kLanes) {
          const auto value = hn::Load(d, values + 2 * i);
          const auto difference = hn::Sub(value, levels.Nearest(value));
          sum = AddSquares(difference, sum);
        }
      }
      auto term = hn::Mul(hn::ConvertTo(df, sum), Splat(factor));
      if (is_weighted) term = hn::Mul(term, Load(weight_scale + g));
      Store(hn::Add(Load(errors + g), term), errors + g);
    }
  }

  // The best of the ratios that are tried first.
  HWY_INLINE void Coarse(float* ratios) {
    HWY_ALIGN float errors[2 * kRatios][kLanes] = {};
    HWY_ALIGN float rows[kLanes][kStrip];
    HWY_ALIGN int16_t whole[kLanes][kStrip];
    ForEachStrip(rows, [&](size_t pairs) HWY_ATTR {
      for (size_t b = 0; b < kLanes; ++b) ToWhole(rows[b], 2 * pairs, kUnit, 2 * kUnit - 1, whole[b]);
      Pairs(whole, 2 * pairs, values);
      for (int k = 0; k < search.table_count; ++k) {
        AddErrors(Levels(search.tables[k].ranks), pairs, 1.0f, errors[k]);
      }
    });
    for (size_t g = 0; g < kLanes; g += hn::Lanes(F32())) {
      auto best = Load(errors[0] + g), ratio = Splat(search.tables[0].ratio);
      for (int k = 1; k < search.table_count; ++k) {
        const auto is_better = hn::Lt(Load(errors[k] + g), best);
        best = hn::IfThenElse(is_better, Load(errors[k] + g), best);
        ratio = hn::IfThenElse(is_better, Splat(search.tables[k].ratio), ratio);
      }
      Store(ratio, ratios + g);
    }
  }

  // Errors of some ratios of each block's own.
  template <int kCount>
  HWY_INLINE void Measure(const float (*ratios)[kLanes], float (*errors)[kLanes]) {
    HWY_ALIGN float rows[kLanes][kStrip];
    HWY_ALIGN int16_t whole[kLanes][kStrip];
    memset(errors, 0, kCount * sizeof(errors[0]));
    ForEachStrip(rows, [&](size_t pairs) HWY_ATTR {
      for (int k = 0; k < kCount; ++k) {
        for (size_t b = 0; b < kLanes; ++b) {
          const float inverse = ratios[k][b] == 0 ? 0 : 1.0f / ratios[k][b];
          ToWhole(rows[b], 2 * pairs, inverse * kOwnUnit, kOwnLimit, whole[b]);
        }
        Pairs(whole, 2 * pairs, values);
        AddErrors(Levels(search.unit.ranks), pairs, 1.0f, errors[k]);
      }
    });
    for (int k = 0; k < kCount; ++k) {
      for (size_t b = 0; b < kLanes; ++b) errors[k][b] *= ratios[k][b] * ratios[k][b];
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
