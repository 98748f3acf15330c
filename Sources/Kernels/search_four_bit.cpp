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
constexpr int kRounds = 3;
constexpr size_t kNestedBlock = 256;
constexpr size_t kStrip = 64;
// The greatest magnitude that the map of scales has with both signs.
constexpr float kGreatestCode = 0.99296875f;
constexpr float kSmallestDivisor = 1e-38f;
constexpr float kLargest = std::numeric_limits<float>::max();

// A code's levels by rising value, times a ratio, and the thresholds between them.
struct Table {
  HWY_ALIGN float levels[16];
  HWY_ALIGN float thresholds[16];
  float ratio;

  void Set(const Code& code, float by) {
    ratio = by;
    for (int i = 0; i < 16; ++i) {
      levels[i] = code.levels[code.codes[by < 0 ? 15 - i : i]] * by;
      thresholds[i] = i == 15 ? kInfinity : code.midpoints[by < 0 ? 14 - i : i] * by;
    }
  }
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
    unit.Set(*code, 1.0f);
    table_count = options->is_signed ? 2 * kRatios : kRatios;
    for (int i = 0; i < table_count; ++i) {
      const float product = static_cast<float>(i % kRatios) * kRatioStep;
      const float ratio = kFirstRatio + product;
      tables[i].Set(*code, i < kRatios ? ratio : -ratio);
    }
  }

  // Some values as floats; what is beyond the last is zero. `to` has room for whole vectors.
  HWY_INLINE void Read(size_t start, size_t length, float* to) const {
    const F32 df;
    const size_t there = start < count ? std::min(length, count - start) : 0;
    if (type == nibble_f32) {
      memcpy(to, static_cast<const float*>(values) + start, 4 * there);
    } else {
      const uint16_t* from = static_cast<const uint16_t*>(values) + start;
      size_t i = 0;
      for (; i + hn::Lanes(df) <= there; i += hn::Lanes(df)) Widen(from + i, to + i);
      if (i < there) {
        HWY_ALIGN uint16_t rest[16] = {};
        memcpy(rest, from + i, 2 * (there - i));
        Widen(rest, to + i);
      }
    }
    for (size_t i = there; i < length; ++i) to[i] = 0;
  }

  HWY_INLINE void Widen(const uint16_t* from, float* to) const {
    const auto bits = LoadHalves(from);
    hn::StoreU(type == nibble_bf16 ? BF16::ToFloat(bits) : F16::ToFloat(bits), F32(), to);
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

// Up to 16 blocks side by side, one in each lane; lanes beyond the last repeat it.
struct Blocks {
  const Search& search;
  size_t first, count;
  HWY_ALIGN float largest[kLanes];
  HWY_ALIGN float reciprocal[kLanes];
  HWY_ALIGN float values[kStrip * kLanes];
  HWY_ALIGN float weights[kStrip * kLanes];

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

  // Calls `body` with the number of values for each strip of the blocks, when its values lie in lanes.
  template <class Body>
  HWY_INLINE void ForEachStrip(Body body) {
    const F32 df;
    const nibble_search_options& options = *search.options;
    HWY_ALIGN float rows[kLanes][kStrip];
    const float* pointers[kLanes];
    for (size_t i = 0; i < options.block_size; i += kStrip) {
      const size_t length = std::min(kStrip, options.block_size - i);
      for (size_t b = 0; b < kLanes; ++b) {
        pointers[b] = rows[b];
        search.Read(Start(b) + i, length, rows[b]);
        const auto factor = hn::Set(df, reciprocal[b]);
        for (size_t j = 0; j < length; j += hn::Lanes(df)) {
          hn::Store(hn::Mul(hn::Load(df, rows[b] + j), factor), df, rows[b] + j);
        }
      }
      Group<kStrip>::Transpose(pointers, length, values);
      if (options.importance != nullptr) {
        for (size_t b = 0; b < kLanes; ++b) {
          pointers[b] = options.importance + (options.first_column + Start(b)) % options.columns + i;
        }
        Group<kStrip>::Transpose(pointers, length, weights);
      }
      body(length);
    }
  }

  HWY_INLINE VF Weighted(VF term, size_t at) const {
    return search.options->importance == nullptr ? term : hn::Mul(Load(weights + at), term);
  }

  // The best of the ratios that are tried first.
  HWY_INLINE void Coarse(float* ratios) {
    const F32 df;
    HWY_ALIGN float errors[2 * kRatios][kLanes] = {};
    ForEachStrip([&](size_t length) HWY_ATTR {
      for (int k = 0; k < search.table_count; ++k) {
        const Levels levels(search.tables[k].levels, search.tables[k].thresholds);
        for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
          auto error = Load(errors[k] + g);
          for (size_t i = g; i < length * kLanes; i += kLanes) {
            const auto value = Load(values + i);
            const auto difference = hn::Sub(value, levels.Nearest(value));
            error = hn::Add(error, Weighted(hn::Mul(difference, difference), i));
          }
          Store(error, errors[k] + g);
        }
      }
    });
    for (size_t b = 0; b < kLanes; ++b) {
      int best = 0;
      for (int k = 1; k < search.table_count; ++k) {
        if (errors[k][b] < errors[best][b]) best = k;
      }
      ratios[b] = search.tables[best].ratio;
    }
  }

  struct Sums {
    HWY_ALIGN float error[kLanes], products[kLanes], squares[kLanes];
  };

  // Errors of one ratio for each block, and the sums of which the best ratio for the same codes is the quotient.
  template <bool kWantsSums, int kCount>
  HWY_INLINE void Measure(const float (*ratios)[kLanes], Sums* sums) {
    const F32 df;
    HWY_ALIGN float inverses[kCount][kLanes];
    for (int k = 0; k < kCount; ++k) {
      for (size_t b = 0; b < kLanes; ++b) {
        inverses[k][b] = ratios[k][b] == 0 ? 0 : 1.0f / ratios[k][b];
        sums[k].error[b] = sums[k].products[b] = sums[k].squares[b] = 0;
      }
    }
    const Levels levels(search.unit.levels, search.unit.thresholds);
    ForEachStrip([&](size_t length) HWY_ATTR {
      for (int k = 0; k < kCount; ++k) {
        for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
          const auto ratio = Load(ratios[k] + g), inverse = Load(inverses[k] + g);
          auto error = Load(sums[k].error + g);
          auto products = Load(sums[k].products + g), squares = Load(sums[k].squares + g);
          for (size_t i = g; i < length * kLanes; i += kLanes) {
            const auto value = Load(values + i);
            const auto level = levels.Nearest(hn::Mul(value, inverse));
            const auto difference = hn::Sub(value, hn::Mul(level, ratio));
            error = hn::Add(error, Weighted(hn::Mul(difference, difference), i));
            if (kWantsSums) {
              products = hn::Add(products, Weighted(hn::Mul(level, value), i));
              squares = hn::Add(squares, Weighted(hn::Mul(level, level), i));
            }
          }
          Store(error, sums[k].error + g);
          Store(products, sums[k].products + g);
          Store(squares, sums[k].squares + g);
        }
      }
    });
  }

  // Least squares for the codes, codes for the scale, by turns.
  HWY_INLINE void Refine(float* ratios) {
    HWY_ALIGN float tried[1][kLanes];
    float best[kLanes];
    Sums sums;
    memcpy(tried[0], ratios, sizeof(tried[0]));
    for (int round = 0; round <= kRounds; ++round) {
      Measure<true, 1>(tried, &sums);
      for (size_t b = 0; b < kLanes; ++b) {
        if (round == 0 || sums.error[b] < best[b]) {
          best[b] = sums.error[b];
          ratios[b] = tried[0][b];
        }
        if (sums.squares[b] > 0) tried[0][b] = sums.products[b] / sums.squares[b];
      }
    }
  }
};

static HWY_INLINE float Bounded(float value) { return std::min(std::max(value, -kLargest), kLargest); }

// The codes of one block for a scale. A reciprocal of the largest magnitude comes first, as in the search.
static HWY_INLINE void WriteCodes(const Search& search, size_t start, float reciprocal, float ratio,
                                  uint8_t* codes) {
  const F32 df;
  const I32 di;
  const hn::Repartition<uint64_t, F32> d64;
  const hn::Rebind<uint8_t, decltype(d64)> d8;
  const size_t there = std::min(search.options->block_size, search.count - start);
  const auto factor = hn::Set(df, reciprocal), inverse = hn::Set(df, ratio == 0 ? 0 : 1.0f / ratio);
  const Thresholds thresholds(search.unit.thresholds);
  HWY_ALIGN int32_t table[16];
  HWY_ALIGN float strip[kStrip];
  uint8_t bytes[kStrip / 2];
  for (int i = 0; i < 16; ++i) table[i] = search.code->codes[i];
  for (size_t i = 0; i < there; i += kStrip) {
    const size_t length = std::min(kStrip, search.options->block_size - i);
    search.Read(start + i, length, strip);
    for (size_t j = 0; j < length; j += hn::Lanes(df)) {
      const auto scaled = hn::Mul(hn::Mul(hn::Load(df, strip + j), factor), inverse);
      auto rank = thresholds.Rank(scaled);
      if (search.options->code == nibble_fp4) {
        const hn::Repartition<uint8_t, I32> du8;
        const auto looked = hn::TableLookupBytes(hn::LoadDup128(du8, kFP4.codes), hn::BitCast(du8, rank));
        rank = hn::And(hn::BitCast(di, looked), hn::Set(di, 0xFF));
      }
      const auto pair = hn::BitCast(d64, rank);
      hn::StoreU(hn::TruncateTo(d8, hn::Or(hn::ShiftLeft<4>(pair), hn::ShiftRight<32>(pair))), d8, bytes + j / 2);
    }
    memcpy(codes + i / 2, bytes, (std::min(length, there - i) + 1) / 2);
  }
}

// Returns the first block that is not finite, or the number of blocks.
static size_t SearchPlain(const Search& search, uint8_t* codes, float* scales) {
  const size_t block_size = search.options->block_size;
  const size_t blocks = (search.count + block_size - 1) / block_size;
  HWY_ALIGN float ratios[kLanes];
  for (size_t first = 0; first < blocks; first += kLanes) {
    Blocks some(search, first, std::min(kLanes, blocks - first));
    const size_t finite = some.ReadLargest();
    if (finite < some.count) return first + finite;
    some.Coarse(ratios);
    some.Refine(ratios);
    for (size_t b = 0; b < some.count; ++b) {
      const float scale = Bounded(ratios[b] * some.largest[b]);
      scales[first + b] = scale;
      WriteCodes(search, some.Start(b), some.reciprocal[b], scale * some.reciprocal[b],
                 codes + some.Start(b) / 2);
    }
  }
  return blocks;
}

// The position of the nearest value of the map.
static HWY_INLINE int Nearest(const float* map, float value) {
  const int above = static_cast<int>(std::lower_bound(map, map + 256, value) - map);
  if (above == 0) return 0;
  if (above == 256) return 255;
  return value - map[above - 1] <= map[above] - value ? above - 1 : above;
}

static size_t SearchNested(const Search& search, uint8_t* codes, uint8_t* scale_codes, float* nested) {
  const size_t block_size = search.options->block_size;
  const size_t blocks = (search.count + block_size - 1) / block_size;
  const float* map = search.options->map;
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
        ratios[i + b] = Bounded(ratios[i + b] * largest[i + b]);
        greatest = std::max(greatest, std::fabs(ratios[i + b]));
      }
    }
    const float group = Bounded(greatest / kGreatestCode);
    nested[start / kNestedBlock] = group;
    const float inverse = group == 0 ? 0 : 1.0f / std::max(group, kSmallestDivisor);
    for (size_t i = 0; i < count; i += kLanes) {
      Blocks some(search, start + i, std::min(kLanes, count - i));
      HWY_ALIGN float tried[3][kLanes];
      Blocks::Sums sums[3];
      int position[kLanes];
      for (size_t b = 0; b < kLanes; ++b) {
        const size_t at = i + std::min(b, some.count - 1);
        some.largest[b] = largest[at];
        some.reciprocal[b] = 1.0f / std::max(largest[at], kSmallestDivisor);
        position[b] = std::min(std::max(Nearest(map, ratios[at] * inverse), 1), 254);
        for (int k = 0; k < 3; ++k) {
          const float scale = map[position[b] + k - 1] * group;
          tried[k][b] = scale * some.reciprocal[b];
          if (!search.options->is_signed && tried[k][b] < 0) tried[k][b] = 0;
        }
      }
      some.template Measure<false, 3>(tried, sums);
      for (size_t b = 0; b < some.count; ++b) {
        int best = 1;
        if (sums[0].error[b] < sums[best].error[b]) best = 0;
        if (sums[2].error[b] < sums[best].error[b]) best = 2;
        scale_codes[start + i + b] = static_cast<uint8_t>(position[b] + best - 1);
        WriteCodes(search, some.Start(b), some.reciprocal[b], tried[best][b], codes + some.Start(b) / 2);
      }
    }
  }
  return blocks;
}

static size_t SearchFourBit(const void* values, int32_t type, size_t count, const nibble_search_options* options,
                            uint8_t* codes, float* scales, uint8_t* scale_codes) {
  const Search search(values, type, count, options);
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
