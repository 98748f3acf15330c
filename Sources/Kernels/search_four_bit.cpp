#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "levels.h"
#include "nibble_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../search_four_bit.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "lanes-inl.h"
#include "rank-inl.h"

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

// The codes of one block for a scale. The reciprocal of the largest magnitude comes first, as in the search.
static HWY_INLINE void WriteCodes(const Search& search, size_t start, float reciprocal, float ratio,
                                  uint8_t* codes) {
  const F32 df;
  const I16 d;
  const hn::Repartition<uint8_t, I16> d8;
  const hn::Repartition<uint32_t, I16> d32;
  const hn::Rebind<uint8_t, decltype(d32)> narrow;
  const size_t there = std::min(search.options->block_size, search.count - start);
  const auto factor = hn::Set(df, reciprocal);
  const float inverse = ratio == 0 ? 0 : 1.0f / ratio;
  const Ranks ranks(search.unit.ranks.thresholds);
  HWY_ALIGN float strip[kStrip];
  HWY_ALIGN int16_t whole[kStrip];
  uint8_t bytes[kStrip / 2];
  for (size_t i = 0; i < there; i += kStrip) {
    const size_t length = std::min(kStrip, search.options->block_size - i);
    search.Read(start + i, length, strip);
    for (size_t j = 0; j < length; j += hn::Lanes(df)) {
      hn::Store(hn::Mul(hn::Load(df, strip + j), factor), df, strip + j);
    }
    Blocks::ToWhole(strip, length, inverse * kOwnUnit, kOwnLimit, whole);
    for (size_t j = 0; j < length; j += hn::Lanes(d)) {
      auto rank = ranks(hn::Load(d, whole + j));
      if (search.options->code == nibble_fp4) {
        const auto looked = hn::TableLookupBytes(hn::LoadDup128(d8, kFP4.codes), hn::BitCast(d8, rank));
        rank = hn::And(hn::BitCast(d, looked), hn::Set(d, 15));
      }
      const auto pair = hn::BitCast(d32, rank);
      hn::StoreU(hn::TruncateTo(narrow, hn::Or(hn::ShiftLeft<4>(pair), hn::ShiftRight<16>(pair))), narrow,
                 bytes + j / 2);
    }
    memcpy(codes + i / 2, bytes, (std::min(length, there - i) + 1) / 2);
  }
}

// Returns the first block that is not finite, or the number of blocks.
static size_t SearchPlain(const Search& search, uint8_t* codes, float* scales) {
  const size_t block_size = search.options->block_size;
  const size_t blocks = (search.count + block_size - 1) / block_size;
  HWY_ALIGN float ratios[kLanes];
  HWY_ALIGN float tried[kFineRatios][kLanes], errors[kFineRatios][kLanes];
  for (size_t first = 0; first < blocks; first += kLanes) {
    Blocks some(search, first, std::min(kLanes, blocks - first));
    const size_t finite = some.ReadLargest();
    if (finite < some.count) return first + finite;
    some.Coarse(ratios);
    for (size_t b = 0; b < kLanes; ++b) {
      for (int k = 0; k < kFineRatios; ++k) {
        const float step = search.Step(k);
        const float scale = search.Bounded((ratios[b] + step) * some.largest[b]);
        tried[k][b] = scale * some.reciprocal[b];
      }
    }
    some.template Measure<kFineRatios>(tried, errors);
    for (size_t b = 0; b < some.count; ++b) {
      int best = 0;
      for (int k = 1; k < kFineRatios; ++k) {
        if (errors[k][b] < errors[best][b]) best = k;
      }
      const float step = search.Step(best);
      scales[first + b] = search.Bounded((ratios[b] + step) * some.largest[b]);
      WriteCodes(search, some.Start(b), some.reciprocal[b], tried[best][b], codes + some.Start(b) / 2);
    }
  }
  return blocks;
}

// The position of the value of the map that is nearest, or next to it. The greatest decade has 64 values of either sign,
// evenly spaced.
static HWY_INLINE int Nearest(const float* map, float value) {
  const float magnitude = std::fabs(value);
  if (magnitude >= 0.1f) {
    const int step = std::min(static_cast<int>((magnitude - 0.1f) * (64 / 0.9f)), 63);
    return value < 0 ? 63 - step : 191 + step;
  }
  const int above = static_cast<int>(std::lower_bound(map, map + 256, value) - map);
  return value - map[above - 1] <= map[above] - value ? above - 1 : above;
}

// The best of the three scales that can be stored next to the one found, and the codes for it.
static HWY_INLINE void ChooseStored(Blocks& some, const float* scales, const float* groups, uint8_t* codes,
                                    uint8_t* scale_codes) {
  const Search& search = some.search;
  const float* map = search.options->map;
  HWY_ALIGN float tried[3][kLanes], errors[3][kLanes];
  int position[kLanes];
  for (size_t b = 0; b < kLanes; ++b) {
    const float inverse = groups[b] == 0 ? 0 : 1.0f / std::max(groups[b], kSmallestDivisor);
    const float wanted = std::min(std::max(scales[std::min(b, some.count - 1)] * inverse, -1.0f), 1.0f);
    position[b] = std::min(std::max(Nearest(map, wanted), 1), 254);
    for (int k = 0; k < 3; ++k) {
      const float scale = map[position[b] + k - 1] * groups[b];
      tried[k][b] = scale * some.reciprocal[b];
      if (search.options->kind != nibble_signed && tried[k][b] < 0) tried[k][b] = 0;
    }
  }
  some.template Measure<3>(tried, errors);
  for (size_t b = 0; b < some.count; ++b) {
    int best = 1;
    if (search.options->kind != nibble_maximum) {
      if (errors[0][b] < errors[best][b]) best = 0;
      if (errors[2][b] < errors[best][b]) best = 2;
    }
    scale_codes[b] = static_cast<uint8_t>(position[b] + best - 1);
    if (codes != nullptr) {
      WriteCodes(search, some.Start(b), some.reciprocal[b], tried[best][b], codes + some.Start(b) / 2);
    }
  }
}

static size_t SearchNested(const Search& search, uint8_t* codes, uint8_t* scale_codes, float* nested) {
  const size_t block_size = search.options->block_size;
  const size_t blocks = (search.count + block_size - 1) / block_size;
  HWY_ALIGN float ratios[kNestedBlock], largest[kNestedBlock];
  for (size_t start = 0; start < blocks; start += kNestedBlock) {
    const size_t count = std::min(kNestedBlock, blocks - start);
    float greatest = 0;
    for (size_t i = 0; i < count; i += kLanes) {
      Blocks some(search, start + i, std::min(kLanes, count - i));
      const size_t finite = some.ReadLargest();
      if (finite < some.count) return start + i + finite;
      some.Coarse(ratios + i);
      memcpy(largest + i, some.largest, sizeof(some.largest));
      for (size_t b = 0; b < some.count; ++b) {
        ratios[i + b] = search.Bounded(ratios[i + b] * largest[i + b]);
        greatest = std::max(greatest, std::fabs(ratios[i + b]));
      }
    }
    const float group = search.Bounded(greatest / kGreatestCode);
    nested[start / kNestedBlock] = group;
    for (size_t i = 0; i < count; i += kLanes) {
      Blocks some(search, start + i, std::min(kLanes, count - i));
      HWY_ALIGN float groups[kLanes];
      for (size_t b = 0; b < kLanes; ++b) {
        const size_t at = i + std::min(b, some.count - 1);
        some.largest[b] = largest[at];
        some.reciprocal[b] = 1.0f / std::max(largest[at], kSmallestDivisor);
        groups[b] = group;
      }
      ChooseStored(some, ratios + i, groups, codes, scale_codes + start + i);
    }
  }
  return blocks;
}

// The same where the greatest scale of each block's group is given.
static size_t SearchGiven(const Search& search, uint8_t* codes, uint8_t* scale_codes) {
  const size_t block_size = search.options->block_size;
  const size_t blocks = (search.count + block_size - 1) / block_size;
  HWY_ALIGN float scales[kLanes], groups[kLanes];
  for (size_t first = 0; first < blocks; first += kLanes) {
    Blocks some(search, first, std::min(kLanes, blocks - first));
    const size_t finite = some.ReadLargest();
    if (finite < some.count) return first + finite;
    some.Coarse(scales);
    for (size_t b = 0; b < kLanes; ++b) {
      scales[b] = search.Bounded(scales[b] * some.largest[b]);
      groups[b] = search.options->given[first + std::min(b, some.count - 1)];
    }
    ChooseStored(some, scales, groups, codes, scale_codes + first);
  }
  return blocks;
}

static size_t SearchFourBit(const void* values, int32_t type, size_t count, const nibble_search_options* options,
                            uint8_t* codes, float* scales, uint8_t* scale_codes) {
  const Search search(values, type, count, options);
  if (options->given != nullptr) return SearchGiven(search, codes, scale_codes);
  return options->map == nullptr ? SearchPlain(search, codes, scales)
                                 : SearchNested(search, codes, scale_codes, scales);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(SearchFourBit);

extern "C" size_t nibble_search_four_bit(const void* values, int32_t type, size_t count,
                                         const nibble_search_options* options, uint8_t* codes, float* scales,
                                         uint8_t* scale_codes) {
  return HWY_DYNAMIC_DISPATCH(SearchFourBit)(values, type, count, options, codes, scales, scale_codes);
}

}  // namespace nibble
#endif
