#include "nibble_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../search_four_bit.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "searched-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

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
