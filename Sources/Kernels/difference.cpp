#include <string.h>

#include <algorithm>

#include "nibble_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../difference.cpp"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#include "half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

using D64 = hn::CappedTag<double, 8>;

// Values of each side widened at a time; a multiple of the eight sums and of every vector.
constexpr size_t kComparedAtOnce = 512;

// Loads `length` values of 16 or 32 bits; zeros follow up to a multiple of 16.
static HWY_INLINE void LoadBlock(const uint8_t* from, int32_t type, size_t length, float* wide) {
  const F32 df;
  const size_t padded = (length + 15) / 16 * 16;
  if (type == nibble_f32) {
    memset(wide + length, 0, (padded - length) * sizeof(float));
    memcpy(wide, from, length * sizeof(float));
    return;
  }
  HWY_ALIGN uint16_t narrow[kComparedAtOnce];
  memset(narrow + length, 0, (padded - length) * sizeof(uint16_t));
  memcpy(narrow, from, length * sizeof(uint16_t));
  for (size_t i = 0; i < padded; i += hn::Lanes(df)) {
    const auto bits = LoadHalves(narrow + i);
    hn::Store(type == nibble_bf16 ? BF16::ToFloat(bits) : F16::ToFloat(bits), df, wide + i);
  }
}

static HWY_INLINE void LoadBlock(const uint8_t* from, int32_t type, size_t length, double* wide) {
  const D64 dd;
  const hn::Rebind<float, D64> d32;
  const size_t padded = (length + 15) / 16 * 16;
  if (type == nibble_f64) {
    memset(wide + length, 0, (padded - length) * sizeof(double));
    memcpy(wide, from, length * sizeof(double));
    return;
  }
  HWY_ALIGN float single[kComparedAtOnce];
  LoadBlock(from, type, length, single);
  for (size_t i = 0; i < padded; i += hn::Lanes(dd)) {
    hn::Store(hn::PromoteTo(dd, hn::LoadU(d32, single + i)), dd, wide + i);
  }
}

static HWY_INLINE hn::Vec<D64> Doubles(const float* from) {
  return hn::PromoteTo(D64(), hn::LoadU(hn::Rebind<float, D64>(), from));
}

static HWY_INLINE hn::Vec<D64> Doubles(const double* from) { return hn::Load(D64(), from); }

// Counts pairs that differ, and puts zeros in place of those that have no finite difference.
template <class D, class T>
static HWY_INLINE void CountDiffering(D d, int64_t exponent_mask, T* a, T* b, size_t count,
                                      nibble_difference_result* r) {
  const hn::RebindToSigned<D> di;
  const auto exponent = hn::Set(di, static_cast<hn::TFromD<decltype(di)>>(exponent_mask));
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto x = hn::Load(d, a + i);
    const auto y = hn::Load(d, b + i);
    const auto x_bits = hn::BitCast(di, x);
    const auto y_bits = hn::BitCast(di, y);
    // Zeros are equal whatever their signs, NaNs when their bits are.
    const auto same = hn::Or(hn::Eq(x, y), hn::RebindMask(d, hn::Eq(x_bits, y_bits)));
    r->differing += hn::CountTrue(d, hn::Not(same));
    const auto special = hn::Or(hn::Eq(hn::And(x_bits, exponent), exponent),
                                hn::Eq(hn::And(y_bits, exponent), exponent));
    if (HWY_UNLIKELY(!hn::AllFalse(di, special))) {
      const auto not_finite = hn::RebindMask(d, special);
      r->undefined += hn::CountTrue(d, hn::AndNot(same, not_finite));
      hn::Store(hn::IfThenZeroElse(not_finite, x), d, a + i);
      hn::Store(hn::IfThenZeroElse(not_finite, y), d, b + i);
    }
  }
}

// `count` is a multiple of eight.
template <class T>
static HWY_INLINE void AddUp(const T* a, const T* b, size_t count, nibble_difference_result* r) {
  const D64 dd;
  for (size_t lane = 0; lane < 8; lane += hn::Lanes(dd)) {
    auto squares = hn::LoadU(dd, r->squares + lane);
    auto reference = hn::LoadU(dd, r->reference_squares + lane);
    auto largest = hn::Zero(dd);
    for (size_t i = lane; i < count; i += 8) {
      const auto x = Doubles(a + i);
      const auto distance = hn::Sub(Doubles(b + i), x);
      largest = hn::Max(largest, hn::Abs(distance));
      // Two roundings, as everywhere: a product and a sum, not fused.
      squares = hn::Add(squares, hn::Mul(distance, distance));
      reference = hn::Add(reference, hn::Mul(x, x));
    }
    hn::StoreU(squares, dd, r->squares + lane);
    hn::StoreU(reference, dd, r->reference_squares + lane);
    HWY_ALIGN double lanes[8];
    hn::Store(largest, dd, lanes);
    for (size_t i = 0; i < hn::Lanes(dd); ++i) r->largest = std::max(r->largest, lanes[i]);
  }
}

template <class D, class T>
static HWY_INLINE void Compare(D d, int64_t exponent_mask, const void* a, int32_t a_type,
                               size_t a_bytes, const void* b, int32_t b_type, size_t b_bytes,
                               size_t count, T* a_wide, T* b_wide, nibble_difference_result* r) {
  for (size_t start = 0; start < count; start += kComparedAtOnce) {
    const size_t length = std::min(kComparedAtOnce, count - start);
    const size_t padded = (length + 15) / 16 * 16;
    LoadBlock(static_cast<const uint8_t*>(a) + start * a_bytes, a_type, length, a_wide);
    LoadBlock(static_cast<const uint8_t*>(b) + start * b_bytes, b_type, length, b_wide);
    CountDiffering(d, exponent_mask, a_wide, b_wide, padded, r);
    AddUp(a_wide, b_wide, padded, r);
  }
}

static HWY_INLINE size_t BytesOf(int32_t type) {
  return type == nibble_f64 ? 8 : type == nibble_f32 ? 4 : 2;
}

static void Difference(const void* a, int32_t a_type, const void* b, int32_t b_type, size_t count,
                       nibble_difference_result* r) {
  const size_t a_bytes = BytesOf(a_type);
  const size_t b_bytes = BytesOf(b_type);
  if (a_type == nibble_f64 || b_type == nibble_f64) {
    HWY_ALIGN double a_wide[kComparedAtOnce];
    HWY_ALIGN double b_wide[kComparedAtOnce];
    Compare(D64(), 0x7FF0000000000000, a, a_type, a_bytes, b, b_type, b_bytes, count, a_wide,
            b_wide, r);
  } else {
    HWY_ALIGN float a_wide[kComparedAtOnce];
    HWY_ALIGN float b_wide[kComparedAtOnce];
    Compare(F32(), 0x7F800000, a, a_type, a_bytes, b, b_type, b_bytes, count, a_wide, b_wide, r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(Difference);

extern "C" void nibble_difference(const void* a, int32_t a_type, const void* b, int32_t b_type,
                                  size_t count, nibble_difference_result* result) {
  *result = {};
  HWY_DYNAMIC_DISPATCH(Difference)(a, a_type, b, b_type, count, result);
}

}  // namespace nibble
#endif
