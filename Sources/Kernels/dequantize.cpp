#include <string.h>

#include <algorithm>

#include "levels.h"
#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../dequantize.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// A block has only 16 different values: they are computed once, rounded to the output's type, and
// looked up byte by byte. Vectors of 16 bytes keep the order of the codes without further shuffles.
using U8 = hn::CappedTag<uint8_t, 16>;
using V8 = hn::Vec<U8>;

// The 16 values of a block as bit patterns.
template <class Half>
struct HalfTable {
  using Bits = uint16_t;

  static HWY_INLINE void Compute(const float* levels, float absmax, Bits* values) {
    const F32 df;
    const I32 di;
    for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
      const auto product = hn::Mul(hn::LoadU(df, levels + i), hn::Set(df, absmax));
      const auto is_nan = hn::RebindMask(di, hn::IsNaN(product));
      const auto bits = hn::IfThenElse(is_nan, Half::FromNaN(product), Half::FromFloat(product));
      StoreHalves(bits, values + i);
    }
  }

  V8 low, high;

  HWY_INLINE explicit HalfTable(const Bits* values) {
    const U8 d;
    const auto first = hn::LoadU(d, reinterpret_cast<const uint8_t*>(values));
    const auto second = hn::LoadU(d, reinterpret_cast<const uint8_t*>(values + 8));
    low = hn::ConcatEven(d, second, first);
    high = hn::ConcatOdd(d, second, first);
  }

  // Writes the values of 16 codes.
  HWY_INLINE void Store(V8 codes, Bits* values) const {
    const U8 d;
    const auto l = hn::TableLookupBytes(low, codes);
    const auto h = hn::TableLookupBytes(high, codes);
    auto* bytes = reinterpret_cast<uint8_t*>(values);
    hn::StoreU(hn::InterleaveLower(d, l, h), d, bytes);
    hn::StoreU(hn::InterleaveUpper(d, l, h), d, bytes + 16);
  }
};

struct FloatTable {
  using Bits = uint32_t;

  static HWY_INLINE void Compute(const float* levels, float absmax, Bits* values) {
    const F32 df;
    const hn::RebindToUnsigned<F32> du;
    for (size_t i = 0; i < 16; i += hn::Lanes(df)) {
      const auto product = hn::Mul(hn::LoadU(df, levels + i), hn::Set(df, absmax));
      hn::StoreU(hn::BitCast(du, product), du, values + i);
    }
  }

  V8 planes[4];

  HWY_INLINE explicit FloatTable(const Bits* values) {
    const U8 d;
    const auto load = [&](size_t i) HWY_ATTR {
      return hn::LoadU(d, reinterpret_cast<const uint8_t*>(values + i));
    };
    const auto even01 = hn::ConcatEven(d, load(4), load(0));
    const auto even23 = hn::ConcatEven(d, load(12), load(8));
    const auto odd01 = hn::ConcatOdd(d, load(4), load(0));
    const auto odd23 = hn::ConcatOdd(d, load(12), load(8));
    planes[0] = hn::ConcatEven(d, even23, even01);
    planes[1] = hn::ConcatEven(d, odd23, odd01);
    planes[2] = hn::ConcatOdd(d, even23, even01);
    planes[3] = hn::ConcatOdd(d, odd23, odd01);
  }

  HWY_INLINE void Store(V8 codes, Bits* values) const {
    const U8 d;
    const hn::Repartition<uint16_t, U8> d16;
    V8 bytes[4];
    for (int i = 0; i < 4; ++i) bytes[i] = hn::TableLookupBytes(planes[i], codes);
    auto* to = reinterpret_cast<uint16_t*>(values);
    const auto low0 = hn::BitCast(d16, hn::InterleaveLower(d, bytes[0], bytes[1]));
    const auto high0 = hn::BitCast(d16, hn::InterleaveLower(d, bytes[2], bytes[3]));
    const auto low1 = hn::BitCast(d16, hn::InterleaveUpper(d, bytes[0], bytes[1]));
    const auto high1 = hn::BitCast(d16, hn::InterleaveUpper(d, bytes[2], bytes[3]));
    hn::StoreU(hn::InterleaveLower(d16, low0, high0), d16, to);
    hn::StoreU(hn::InterleaveUpper(d16, low0, high0), d16, to + 8);
    hn::StoreU(hn::InterleaveLower(d16, low1, high1), d16, to + 16);
    hn::StoreU(hn::InterleaveUpper(d16, low1, high1), d16, to + 24);
  }
};

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
    Table::Compute(levels, absmax[block], values);
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
