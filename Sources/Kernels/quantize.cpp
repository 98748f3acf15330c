#include <string.h>

#include <algorithm>

#include "levels.h"
#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../quantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "rank-inl.h"

#undef NIBBLE_PERMUTE_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define NIBBLE_PERMUTE_WORDS 1
#else
#define NIBBLE_PERMUTE_WORDS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// bitsandbytes clamps absmax to this before it divides.
constexpr float kSmallestDivisor = 1e-38f;

struct Output {
  uint8_t* codes;
  float* absmax;
};

// ---------------------------------------------------------------------------------------------------
// 32-bit values: compare each, scaled, with the midpoints.

// Ranks in 32-bit lanes.
template <bool kIsFP4>
static HWY_INLINE VI Rank(VF scaled) {
  constexpr const Code& code = kIsFP4 ? kFP4 : kNF4;
  const F32 df;
  const I32 di;
  auto rank = hn::Zero(di);
#if NIBBLE_PERMUTE_WORDS
  // Binary search: the whole table of midpoints is one vector.
  const auto midpoints = hn::LoadU(df, code.midpoints);
  rank = hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(scaled, hn::Set(df, code.midpoints[7]))),
                            hn::Set(di, 8));
  for (int32_t step = 4; step > 0; step /= 2) {
    const auto index = step == 1 ? rank : hn::Or(rank, hn::Set(di, step - 1));
    const auto midpoint = hn::TableLookupLanes(midpoints, hn::IndicesFromVec(df, index));
    const auto above = hn::RebindMask(di, hn::Gt(scaled, midpoint));
    rank = hn::IfThenElse(above, hn::Or(rank, hn::Set(di, step)), rank);
  }
#else
  for (int i = 0; i < 15; ++i) {
    const auto above = hn::RebindMask(di, hn::Gt(scaled, hn::Set(df, code.midpoints[i])));
    rank = hn::Sub(rank, hn::VecFromMask(di, above));
  }
#endif
  return rank;
}

// FP4's codes do not rise with the values; NF4's ranks are its codes. Lanes of any width.
template <bool kIsFP4, class D, class V>
static HWY_INLINE V CodesOfRanks(D d, V ranks) {
  if (!kIsFP4) return ranks;
  const hn::Repartition<uint8_t, D> d8;
  const auto codes = hn::TableLookupBytes(hn::LoadDup128(d8, kFP4.codes), hn::BitCast(d8, ranks));
  // The upper bytes of a lane looked up rank 0.
  return hn::And(hn::BitCast(d, codes), hn::Set(d, 0xFF));
}

template <bool kIsFP4>
static HWY_INLINE void QuantizeBlock32(const float* values, size_t count, float reciprocal,
                                       uint8_t* codes) {
  const F32 df;
  const I32 di;
  const hn::Repartition<uint64_t, F32> d64;
  const hn::Rebind<uint8_t, decltype(d64)> d8;
  const auto scale = hn::Set(df, reciprocal);
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    const auto scaled = hn::Mul(hn::LoadU(df, values + i), scale);
    const auto pair = hn::BitCast(d64, CodesOfRanks<kIsFP4>(di, Rank<kIsFP4>(scaled)));
    const auto bytes = hn::Or(hn::ShiftLeft<4>(pair), hn::ShiftRight<32>(pair));
    hn::StoreU(hn::TruncateTo(d8, bytes), d8, codes + i / 2);
  }
}

template <bool kIsFP4>
static size_t QuantizeWholeBlocks32(const float* values, size_t blocks, size_t block_size,
                                    Output output) {
  const I32 di;
  const auto mask = hn::Set(di, 0x7FFFFFFF);
  for (size_t block = 0; block < blocks; ++block) {
    const float* from = values + block * block_size;
    auto largest = hn::Zero(di);
    for (size_t i = 0; i < block_size; i += hn::Lanes(di)) {
      const auto bits = hn::BitCast(di, hn::LoadU(F32(), from + i));
      largest = hn::Max(largest, hn::And(bits, mask));
    }
    const int32_t bits = hn::GetLane(hn::MaxOfLanes(di, largest));
    if (bits >= 0x7F800000) return block;
    float absmax;
    memcpy(&absmax, &bits, sizeof(absmax));
    output.absmax[block] = absmax;
    QuantizeBlock32<kIsFP4>(from, block_size, 1.0f / std::max(absmax, kSmallestDivisor),
                            output.codes + block * (block_size / 2));
  }
  return blocks;
}

// ---------------------------------------------------------------------------------------------------
// 16-bit values: bring the midpoints to the values instead. For each block and midpoint there is a
// greatest 16-bit value whose product with the reciprocal does not exceed the midpoint. Compared with
// these thresholds as integers, twice as many values fit a vector and no value is multiplied.

// An order-preserving map of sign and magnitude to integers: -0.0 is -1, just below 0.0.
template <class D, class V>
static HWY_INLINE V Key(D d, V sign_extended) {
  return hn::Xor(sign_extended,
                 hn::And(hn::ShiftRight<15>(sign_extended), hn::Set(d, 0x7FFF)));
}

// Blocks whose statistics are computed together.
constexpr size_t kBlocksAtOnce = 16;
constexpr size_t kThresholdStride = 24;

struct BlockStatistics {
  HWY_ALIGN int32_t largest[kBlocksAtOnce];
  HWY_ALIGN float absmax[kBlocksAtOnce];
  HWY_ALIGN float reciprocal[kBlocksAtOnce];
  // 15 per block, ascending; what follows is never compared with.
  HWY_ALIGN int16_t thresholds[kBlocksAtOnce][kThresholdStride];
};

// Within these bounds the products below are exact to a few units in the last place.
static HWY_INLINE bool IsOrdinary(float absmax) { return absmax > 0x1p-100f && absmax < 0x1p+120f; }

template <bool kIsFP4, class Half>
static HWY_INLINE void ComputeThresholds(float absmax, float reciprocal, int16_t* thresholds) {
  constexpr const Code& code = kIsFP4 ? kFP4 : kNF4;
  const F32 df;
  const I32 di;
  const hn::Rebind<int16_t, F32> d16;
  for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
    const auto midpoint = hn::LoadU(df, code.midpoints + i);
    auto product = hn::Mul(hn::Set(df, absmax), midpoint);
    if (kIsFP4) {
      // FP4 has a midpoint of 0, and what matters there is when the product vanishes: at 2^-150.
      const auto vanishing = hn::Set(df, absmax * 0x1p-75f * 0x1p-75f);
      product = hn::IfThenElse(hn::Eq(midpoint, hn::Zero(df)), vanishing, product);
    }
    // The candidate is the 16-bit value nearest to the true quotient, so the threshold is either the
    // candidate or its predecessor.
    const auto candidate = Half::FromFloat(product);
    const auto is_below = hn::Le(hn::Mul(Half::ToFloat(candidate), hn::Set(df, reciprocal)), midpoint);
    const auto key = Key(di, hn::ShiftRight<16>(hn::ShiftLeft<16>(candidate)));
    const auto below = hn::VecFromMask(di, hn::RebindMask(di, is_below));
    const auto threshold = hn::Sub(hn::Sub(key, hn::Set(di, 1)), below);
    hn::StoreU(hn::DemoteTo(d16, threshold), d16, thresholds + i);
  }
}

template <bool kIsFP4>
static HWY_INLINE void QuantizeBlock16(const int16_t* values, size_t count,
                                       const int16_t* thresholds, uint8_t* codes) {
  const I16 d;
  const hn::Repartition<uint32_t, I16> d32;
  const hn::Rebind<uint8_t, decltype(d32)> d8;
#if NIBBLE_PERMUTE_WORDS
  // Tables shifted so that a rank indexes the threshold to compare it with next. Ranks reach 15 at
  // most, so that what lies beyond the lower half is never looked up.
  const hn::CappedTag<int16_t, 16> dt;
  const auto table = [&](size_t shift) HWY_ATTR {
    return _mm512_castsi256_si512(hn::LoadU(dt, thresholds + shift).raw);
  };
  const auto by4 = table(3), by2 = table(1), by1 = table(0);
#else
  const Ranks ranks(thresholds);
#endif
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto key = Key(d, hn::LoadU(d, values + i));
#if NIBBLE_PERMUTE_WORDS
    auto rank = hn::IfThenElseZero(hn::Gt(key, hn::Set(d, thresholds[7])), hn::Set(d, 8));
    const auto advance = [&](__m512i by, int16_t step) HWY_ATTR {
      const decltype(rank) threshold{_mm512_permutexvar_epi16(rank.raw, by)};
      rank = hn::IfThenElse(hn::Gt(key, threshold), hn::Or(rank, hn::Set(d, step)), rank);
    };
    advance(by4, 4);
    advance(by2, 2);
    advance(by1, 1);
#else
    const auto rank = ranks(key);
#endif
    const auto pair = hn::BitCast(d32, CodesOfRanks<kIsFP4>(d, rank));
    const auto bytes = hn::Or(hn::ShiftLeft<4>(pair), hn::ShiftRight<16>(pair));
    hn::StoreU(hn::TruncateTo(d8, bytes), d8, codes + i / 2);
  }
}

template <class Half>
static HWY_INLINE void ToFloats(const uint16_t* from, size_t count, float* to) {
  const F32 df;
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    hn::StoreU(Half::ToFloat(LoadHalves(from + i)), df, to + i);
  }
}

template <bool kIsFP4, class Half>
static size_t QuantizeWholeBlocks16(const int16_t* values, size_t blocks, size_t block_size,
                                    Output output) {
  const F32 df;
  const I16 d;
  const auto mask = hn::Set(d, 0x7FFF);
  // The values of a group are read twice and should still lie in the first-level cache.
  const size_t at_once = std::min(kBlocksAtOnce, std::max<size_t>(1, 8192 / block_size));
  BlockStatistics group = {};
  for (size_t first = 0; first < blocks; first += at_once) {
    const size_t count = std::min(at_once, blocks - first);
    for (size_t b = 0; b < count; ++b) {
      const int16_t* from = values + (first + b) * block_size;
      auto largest = hn::Zero(d);
      for (size_t i = 0; i < block_size; i += hn::Lanes(d)) {
        largest = hn::Max(largest, hn::And(hn::LoadU(d, from + i), mask));
      }
      group.largest[b] = hn::GetLane(hn::MaxOfLanes(d, largest));
      if (group.largest[b] >= Half::kInfinity) return first + b;
    }
    for (size_t b = 0; b < kBlocksAtOnce; b += hn::Lanes(df)) {
      const auto absmax = Half::ToFloat(hn::Load(I32(), group.largest + b));
      const auto divisor = hn::Max(absmax, hn::Set(df, kSmallestDivisor));
      hn::Store(absmax, df, group.absmax + b);
      hn::Store(hn::Div(hn::Set(df, 1.0f), divisor), df, group.reciprocal + b);
    }
    for (size_t b = 0; b < count; ++b) {
      output.absmax[first + b] = group.absmax[b];
      if (!IsOrdinary(group.absmax[b])) continue;
      ComputeThresholds<kIsFP4, Half>(group.absmax[b], group.reciprocal[b], group.thresholds[b]);
    }
    for (size_t b = 0; b < count; ++b) {
      const int16_t* from = values + (first + b) * block_size;
      uint8_t* codes = output.codes + (first + b) * (block_size / 2);
      if (HWY_LIKELY(IsOrdinary(group.absmax[b]))) {
        QuantizeBlock16<kIsFP4>(from, block_size, group.thresholds[b], codes);
      } else if (group.largest[b] == 0) {
        memset(codes, (kIsFP4 ? kFP4 : kNF4).zero_code * 0x11, block_size / 2);
      } else {
        HWY_ALIGN float wide[4096];
        ToFloats<Half>(reinterpret_cast<const uint16_t*>(from), block_size, wide);
        QuantizeBlock32<kIsFP4>(wide, block_size, group.reciprocal[b], codes);
      }
    }
  }
  return blocks;
}

// ---------------------------------------------------------------------------------------------------

// The last, partial block, which bitsandbytes treats in its own way: it divides by absmax.
template <bool kIsFP4>
static size_t QuantizePartialBlock(const float* values, size_t count, Output output) {
  constexpr const Code& code = kIsFP4 ? kFP4 : kNF4;
  float largest = 0;
  for (size_t i = 0; i < count; ++i) {
    int32_t bits;
    memcpy(&bits, values + i, sizeof(bits));
    bits &= 0x7FFFFFFF;
    if (bits >= 0x7F800000) return i;
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(bits));
    largest = std::max(largest, magnitude);
  }
  const float divisor = std::max(largest, kSmallestDivisor);
  *output.absmax = divisor;
  for (size_t i = 0; i < count; i += 2) {
    uint8_t pair[2] = {code.zero_code, code.zero_code};
    for (size_t j = 0; j < std::min<size_t>(2, count - i); ++j) {
      const float scaled = values[i + j] / divisor;
      int rank = 0;
      while (rank < 15 && scaled > code.midpoints[rank]) ++rank;
      pair[j] = code.codes[rank];
    }
    output.codes[i / 2] = static_cast<uint8_t>(pair[0] << 4 | pair[1]);
  }
  return count;
}

template <bool kIsFP4>
static size_t QuantizeAll(const void* values, int32_t type, size_t count, size_t block_size,
                          Output output) {
  const size_t blocks = count / block_size;
  const size_t rest = count % block_size;
  const size_t bytes = type == nibble_f32 ? 4 : 2;
  size_t done;
  if (type == nibble_bf16) {
    done = QuantizeWholeBlocks16<kIsFP4, BF16>(static_cast<const int16_t*>(values), blocks,
                                               block_size, output);
  } else if (type == nibble_f16) {
    done = QuantizeWholeBlocks16<kIsFP4, F16>(static_cast<const int16_t*>(values), blocks,
                                              block_size, output);
  } else {
    done = QuantizeWholeBlocks32<kIsFP4>(static_cast<const float*>(values), blocks, block_size,
                                         output);
  }
  if (done == blocks && rest == 0) return count;
  // Either a block with a value that is not finite, or the partial one.
  const size_t length = done < blocks ? block_size : rest;
  const size_t start = done * block_size;
  HWY_ALIGN float wide[4096];
  HWY_ALIGN uint16_t narrow[4096];
  const void* from = static_cast<const uint8_t*>(values) + start * bytes;
  if (type == nibble_f32) {
    memcpy(wide, from, length * bytes);
  } else {
    memcpy(narrow, from, length * bytes);
    memset(narrow + length, 0, std::min<size_t>(64, 4096 - length) * bytes);
    type == nibble_bf16 ? ToFloats<BF16>(narrow, length, wide) : ToFloats<F16>(narrow, length, wide);
  }
  return start + QuantizePartialBlock<kIsFP4>(
                     wide, length, {output.codes + start / 2, output.absmax + done});
}

static size_t Quantize(const void* values, int32_t type, size_t count, int32_t code,
                       size_t block_size, uint8_t* codes, float* absmax) {
  const Output output = {codes, absmax};
  return code == nibble_fp4 ? QuantizeAll<true>(values, type, count, block_size, output)
                            : QuantizeAll<false>(values, type, count, block_size, output);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(Quantize);

extern "C" size_t nibble_quantize(const void* values, int32_t float_type, size_t count,
                                  int32_t code, size_t block_size, uint8_t* codes, float* absmax) {
  return HWY_DYNAMIC_DISPATCH(Quantize)(values, float_type, count, code, block_size, codes, absmax);
}

}  // namespace nibble
#endif
