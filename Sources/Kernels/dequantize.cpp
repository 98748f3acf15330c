#include <string.h>

#include <algorithm>

#include "levels.h"
#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../dequantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "lookup-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// The values of a block's 16 codes, computed once and rounded to the output's type.
template <class Codec>
static HWY_INLINE void ComputeTable(const float* levels, float absmax, typename Codec::Bits* values) {
  const F32 df;
  for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
    Codec::Store(hn::Mul(hn::LoadU(df, levels + i), hn::Set(df, absmax)), values + i);
  }
}

template <class Table>
static HWY_INLINE void DequantizeRange(const uint8_t* codes, const float* absmax, size_t start,
                                       size_t count, const float* levels, size_t block_size,
                                       void* output) {
  using Bits = typename Table::Bits;
  const U8 d;
  const auto mask = hn::Set(d, uint8_t{15});
  const size_t end = start + count;
  auto* to = static_cast<uint8_t*>(output);
  HWY_ALIGN Bits values[16];
  for (size_t i = start; i < end;) {
    const size_t block = i / block_size;
    const size_t stop = std::min(end, (block + 1) * block_size);
    ComputeTable<typename Table::Codec>(levels, absmax[block], values);
    const Table table(values);
    const auto scalar = [&](size_t limit) HWY_ATTR {
      for (; i < limit; ++i, to += sizeof(Bits)) {
        const uint8_t byte = codes[i / 2];
        memcpy(to, values + (i % 2 == 0 ? byte >> 4 : byte & 15), sizeof(Bits));
      }
    };
    scalar(std::min(stop, i + i % 2));
    for (; stop - i >= 32; i += 32, to += 32 * sizeof(Bits)) {
      const auto bytes = hn::LoadU(d, codes + i / 2);
      const auto first = hn::And(hn::ShiftRight<4>(bytes), mask);
      const auto second = hn::And(bytes, mask);
      table.Store(hn::InterleaveLower(d, first, second), reinterpret_cast<Bits*>(to));
      table.Store(hn::InterleaveUpper(d, first, second), reinterpret_cast<Bits*>(to) + 16);
    }
    scalar(stop);
  }
}

static void Dequantize(const uint8_t* codes, const float* absmax, size_t start, size_t count,
                       int32_t code, size_t block_size, void* values, int32_t type) {
  const float* levels = code == nibble_fp4 ? kFP4.levels : kNF4.levels;
  if (type == nibble_bf16) {
    DequantizeRange<HalfTable<BF16>>(codes, absmax, start, count, levels, block_size, values);
  } else if (type == nibble_f16) {
    DequantizeRange<HalfTable<F16>>(codes, absmax, start, count, levels, block_size, values);
  } else {
    DequantizeRange<FloatTable>(codes, absmax, start, count, levels, block_size, values);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(Dequantize);

extern "C" void nibble_dequantize(const uint8_t* codes, const float* absmax, size_t start,
                                  size_t count, int32_t code, size_t block_size, void* values,
                                  int32_t float_type) {
  HWY_DYNAMIC_DISPATCH(Dequantize)
  (codes, absmax, start, count, code, block_size, values, float_type);
}

}  // namespace nibble
#endif
