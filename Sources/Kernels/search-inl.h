// The searches for the scale of a sub-block, one sub-block in each lane: step by step those of ggml.
// Levels are whole numbers kept as floats. A product is never fused with the sum that follows.
#include <hwy/highway.h>

#include "lanes-inl.h"

#if defined(NIBBLE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SEARCH_INL_H_
#undef NIBBLE_SEARCH_INL_H_
#else
#define NIBBLE_SEARCH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// How many scales are tried, and the number of levels that each would spread the values over: the
// greatest level + first + step * i.
struct Steps {
  int count;
  float levels[37];

  HWY_INLINE Steps(int count, float greatest, float first, float step) : count(count) {
    for (int i = 0; i < count; ++i) {
      const float product = step * static_cast<float>(i);
      const float sum = first + product;
      levels[i] = sum + greatest;
    }
  }
};

// What a search found for the sub-blocks of a group: value = scale * level - minimum. `inverse` and
// `offset` are what the levels were found with: level = inverse * (value - offset).
struct Affine {
  HWY_ALIGN float scale[kLanes], minimum[kLanes], inverse[kLanes], offset[kLanes];
};

// Sub-blocks whose fits are searched together, so that one can use the time in which the other waits
// for its sums.
constexpr size_t kTogether = 2;

// Affine fits of consecutive sub-blocks with levels from 0 to `kGreatest`, by least squares, weighted.
// `kAbsolute`: fits are compared by their absolute errors.
template <size_t kCount, int kGreatest, bool kAbsolute>
static HWY_INLINE void FitAffine(const float* values, const float* weights, const Steps& steps,
                                 Affine* fits) {
  using Vector = VF;
  const F32 df;
  const size_t lanes = hn::Lanes(df);
  const auto zero = hn::Zero(df);
  const auto greatest = Splat(kGreatest);
  // Where the range is too small to be inverted, 0 makes all levels 0, as infinity does in ggml.
  const auto infinity = Splat(std::numeric_limits<float>::infinity());
  HWY_ALIGN float levels[kTogether * kCount * kLanes];
  const auto error_of = [](Vector w, Vector difference) HWY_ATTR {
    return hn::Mul(w, kAbsolute ? hn::Abs(difference) : hn::Mul(difference, difference));
  };

  for (size_t g = 0; g < kLanes; g += lanes) {
    const auto at = [g](size_t k, size_t i) HWY_ATTR { return (k * kCount + i) * kLanes + g; };
    VF minimum[kTogether], maximum[kTogether], sum_w[kTogether], sum_x[kTogether];
    VF scale[kTogether], best_error[kTogether], best_inverse[kTogether], best_offset[kTogether];
    const auto inverse_for = [&](float levels_count, size_t k) HWY_ATTR {
      const auto inverse = hn::Div(Splat(levels_count), hn::Sub(maximum[k], minimum[k]));
      return hn::IfThenElseZero(hn::Lt(hn::Abs(inverse), infinity), inverse);
    };
    for (size_t k = 0; k < kTogether; ++k) {
      minimum[k] = maximum[k] = Load(values + at(k, 0));
      sum_w[k] = Load(weights + at(k, 0));
      sum_x[k] = hn::Mul(sum_w[k], minimum[k]);
      for (size_t i = 1; i < kCount; ++i) {
        const auto value = Load(values + at(k, i)), weight = Load(weights + at(k, i));
        minimum[k] = hn::Min(minimum[k], value);
        maximum[k] = hn::Max(maximum[k], value);
        sum_w[k] = hn::Add(sum_w[k], weight);
        sum_x[k] = hn::Add(sum_x[k], hn::Mul(weight, value));
      }
      minimum[k] = hn::Min(minimum[k], zero);
      best_inverse[k] = inverse_for(kGreatest, k);
      best_offset[k] = minimum[k];
      const auto is_constant = hn::Eq(best_inverse[k], zero);
      scale[k] = hn::IfThenZeroElse(is_constant, hn::Div(Splat(1.0f), best_inverse[k]));
      best_error[k] = zero;
      for (size_t i = 0; i < kCount; ++i) {
        const auto value = Load(values + at(k, i));
        const auto scaled = hn::Mul(best_inverse[k], hn::Sub(value, minimum[k]));
        const auto level = hn::Min(hn::Max(hn::Round(scaled), zero), greatest);
        const auto fitted = hn::Add(hn::Mul(scale[k], level), minimum[k]);
        const auto error = error_of(Load(weights + at(k, i)), hn::Sub(fitted, value));
        best_error[k] = hn::Add(best_error[k], error);
      }
    }

    for (int step = 0; step < steps.count; ++step) {
      VF inverse[kTogether], sum_l[kTogether], sum_l2[kTogether], sum_xl[kTogether];
      VF error[kTogether], new_scale[kTogether], new_minimum[kTogether];
      hn::Mask<F32> is_defined[kTogether];
      for (size_t k = 0; k < kTogether; ++k) {
        inverse[k] = inverse_for(steps.levels[step], k);
        sum_l[k] = sum_l2[k] = sum_xl[k] = error[k] = zero;
      }
      for (size_t i = 0; i < kCount; ++i) {
        for (size_t k = 0; k < kTogether; ++k) {
          const auto value = Load(values + at(k, i));
          const auto scaled = hn::Mul(inverse[k], hn::Sub(value, minimum[k]));
          const auto level = hn::Min(hn::Max(hn::Round(scaled), zero), greatest);
          Store(level, levels + (i * kTogether + k) * lanes);
          const auto weighted = hn::Mul(Load(weights + at(k, i)), level);
          sum_l[k] = hn::Add(sum_l[k], weighted);
          sum_l2[k] = hn::Add(sum_l2[k], hn::Mul(weighted, level));
          sum_xl[k] = hn::Add(sum_xl[k], hn::Mul(weighted, value));
        }
      }
      for (size_t k = 0; k < kTogether; ++k) {
        const auto determinant =
            hn::Sub(hn::Mul(sum_w[k], sum_l2[k]), hn::Mul(sum_l[k], sum_l[k]));
        is_defined[k] = hn::Gt(determinant, zero);
        const auto scaled =
            hn::Sub(hn::Mul(sum_w[k], sum_xl[k]), hn::Mul(sum_x[k], sum_l[k]));
        const auto least = hn::Sub(hn::Mul(sum_l2[k], sum_x[k]), hn::Mul(sum_l[k], sum_xl[k]));
        new_scale[k] = hn::Div(scaled, determinant);
        new_minimum[k] = hn::Div(least, determinant);
        const auto is_positive = hn::Gt(new_minimum[k], zero);
        new_minimum[k] = hn::IfThenZeroElse(is_positive, new_minimum[k]);
        new_scale[k] =
            hn::IfThenElse(is_positive, hn::Div(sum_xl[k], sum_l2[k]), new_scale[k]);
      }
      for (size_t i = 0; i < kCount; ++i) {
        for (size_t k = 0; k < kTogether; ++k) {
          const auto level = Load(levels + (i * kTogether + k) * lanes);
          const auto fitted = hn::Add(hn::Mul(new_scale[k], level), new_minimum[k]);
          const auto difference = hn::Sub(fitted, Load(values + at(k, i)));
          error[k] = hn::Add(error[k], error_of(Load(weights + at(k, i)), difference));
        }
      }
      for (size_t k = 0; k < kTogether; ++k) {
        const auto is_better = hn::And(is_defined[k], hn::Lt(error[k], best_error[k]));
        best_error[k] = hn::IfThenElse(is_better, error[k], best_error[k]);
        best_inverse[k] = hn::IfThenElse(is_better, inverse[k], best_inverse[k]);
        best_offset[k] = hn::IfThenElse(is_better, minimum[k], best_offset[k]);
        scale[k] = hn::IfThenElse(is_better, new_scale[k], scale[k]);
        minimum[k] = hn::IfThenElse(is_better, new_minimum[k], minimum[k]);
      }
    }
    for (size_t k = 0; k < kTogether; ++k) {
      Store(scale[k], fits[k].scale + g);
      Store(hn::Sub(zero, minimum[k]), fits[k].minimum + g);
      Store(best_inverse[k], fits[k].inverse + g);
      Store(best_offset[k], fits[k].offset + g);
    }
  }
}

// value = scale * level, with levels from -kGreatest to kGreatest - 1 found as inverse * value.
struct Linear {
  HWY_ALIGN float scale[kLanes], inverse[kLanes];
};

// Linear fits of `kWide` consecutive sub-blocks by least squares, weighted by `weights`, or by the
// squares of the values without any.
template <size_t kWide, size_t kCount, int kGreatest>
static HWY_INLINE void FitLinear(const float* values, const float* weights, Linear* fits) {
  const F32 df;
  const size_t lanes = hn::Lanes(df);
  const auto zero = hn::Zero(df);
  HWY_ALIGN float w[kWide * kCount * kLanes], wx[kWide * kCount * kLanes];
  for (size_t g = 0; g < kLanes; g += lanes) {
    const auto at = [g](size_t k, size_t i) HWY_ATTR { return (k * kCount + i) * kLanes + g; };
    VF extreme[kWide], scale[kWide], best[kWide], best_inverse[kWide];
    VF inverse[kWide], sum_lx[kWide], sum_l2[kWide];
    hn::Mask<F32> is_zero[kWide];
    const auto sum = [&](float greatest) HWY_ATTR {
      for (size_t k = 0; k < kWide; ++k) {
        inverse[k] = hn::IfThenZeroElse(is_zero[k], hn::Div(Splat(-greatest), extreme[k]));
        sum_lx[k] = sum_l2[k] = zero;
      }
      for (size_t i = 0; i < kCount; ++i) {
        for (size_t k = 0; k < kWide; ++k) {
          const size_t to = (i * kWide + k) * lanes;
          const auto scaled = hn::Mul(inverse[k], Load(values + at(k, i)));
          const auto level = RoundWithin(scaled, -kGreatest, kGreatest - 1);
          sum_lx[k] = hn::Add(sum_lx[k], hn::Mul(Load(wx + to), level));
          sum_l2[k] = hn::Add(sum_l2[k], hn::Mul(hn::Mul(Load(w + to), level), level));
        }
      }
    };

    for (size_t k = 0; k < kWide; ++k) {
      for (size_t i = 0; i < kCount; ++i) {
        const auto value = Load(values + at(k, i));
        const auto weight = weights != nullptr ? Load(weights + at(k, i)) : hn::Mul(value, value);
        Store(weight, w + (i * kWide + k) * lanes);
        Store(hn::Mul(weight, value), wx + (i * kWide + k) * lanes);
      }
      extreme[k] = Extreme<kCount>(values + at(k, 0));
      is_zero[k] = hn::Lt(hn::Abs(extreme[k]), Splat(kNegligible));
    }
    sum(kGreatest);
    for (size_t k = 0; k < kWide; ++k) {
      best_inverse[k] = inverse[k];
      scale[k] = hn::IfThenZeroElse(hn::Eq(sum_l2[k], zero), hn::Div(sum_lx[k], sum_l2[k]));
      best[k] = hn::Mul(scale[k], sum_lx[k]);
    }
    for (int step = -9; step <= 9; ++step) {
      if (step == 0) continue;
      const float change = 0.1f * static_cast<float>(step);
      sum(kGreatest + change);
      for (size_t k = 0; k < kWide; ++k) {
        const auto is_better =
            hn::And(hn::Gt(sum_l2[k], zero), hn::Gt(hn::Mul(sum_lx[k], sum_lx[k]),
                                                    hn::Mul(best[k], sum_l2[k])));
        scale[k] = hn::IfThenElse(is_better, hn::Div(sum_lx[k], sum_l2[k]), scale[k]);
        best[k] = hn::IfThenElse(is_better, hn::Mul(scale[k], sum_lx[k]), best[k]);
        best_inverse[k] = hn::IfThenElse(is_better, inverse[k], best_inverse[k]);
      }
    }
    for (size_t k = 0; k < kWide; ++k) {
      Store(scale[k], fits[k].scale + g);
      Store(best_inverse[k], fits[k].inverse + g);
    }
  }
}

// Sub-blocks that are refined together: each waits for its own divisions only.
constexpr size_t kRefinedTogether = 4;

// The scales of consecutive sub-blocks, weighted by the squares of the values; then one level after
// the other is moved to where the scale of all others would have it. `levels` are counted from
// -kGreatest; those of a sub-block of zeros are 0.
template <size_t kCount, int kGreatest>
static HWY_INLINE void FitRefined(const float* values, float* levels, float* scales) {
  const F32 df;
  const auto zero = hn::Zero(df);
  for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
    VF sum_lx[kRefinedTogether], sum_l2[kRefinedTogether];
    for (size_t k = 0; k < kRefinedTogether; ++k) {
      const float* x = values + k * kCount * kLanes + g;
      float* l = levels + k * kCount * kLanes + g;
      const auto extreme = Extreme<kCount>(x);
      const auto is_zero = hn::Lt(hn::Abs(extreme), Splat(kNegligible));
      const auto inverse = hn::IfThenZeroElse(is_zero, hn::Div(Splat(-kGreatest), extreme));
      sum_lx[k] = sum_l2[k] = zero;
      for (size_t i = 0; i < kCount; ++i) {
        const auto value = Load(x + i * kLanes);
        const auto weight = hn::Mul(value, value);
        const auto level = RoundWithin(hn::Mul(inverse, value), -kGreatest, kGreatest - 1);
        Store(level, l + i * kLanes);
        sum_lx[k] = hn::Add(sum_lx[k], hn::Mul(hn::Mul(weight, value), level));
        sum_l2[k] = hn::Add(sum_l2[k], hn::Mul(hn::Mul(weight, level), level));
      }
    }
    for (int round = 0; round < 5; ++round) {
      auto has_moved = hn::Lt(zero, zero);
      for (size_t i = 0; i < kCount; ++i) {
        for (size_t k = 0; k < kRefinedTogether; ++k) {
          const size_t at = (k * kCount + i) * kLanes + g;
          const auto value = Load(values + at), level = Load(levels + at);
          const auto weight = hn::Mul(value, value);
          const auto weighted = hn::Mul(weight, value);
          const auto others_lx = hn::Sub(sum_lx[k], hn::Mul(weighted, level));
          const auto others_l2 = hn::Sub(sum_l2[k], hn::Mul(hn::Mul(weight, level), level));
          const auto moved = NearestWithin(hn::Div(hn::Mul(value, others_l2), others_lx),
                                           -kGreatest, kGreatest - 1);
          const auto new_lx = hn::Add(others_lx, hn::Mul(weighted, moved));
          const auto new_l2 = hn::Add(others_l2, hn::Mul(hn::Mul(weight, moved), moved));
          const auto is_defined = hn::And(hn::Gt(others_lx, zero), hn::Gt(new_l2, zero));
          const auto is_better = hn::Gt(hn::Mul(hn::Mul(new_lx, new_lx), sum_l2[k]),
                                        hn::Mul(hn::Mul(sum_lx[k], sum_lx[k]), new_l2));
          const auto moves = hn::And(hn::And(is_defined, hn::Ne(moved, level)), is_better);
          sum_lx[k] = hn::IfThenElse(moves, new_lx, sum_lx[k]);
          sum_l2[k] = hn::IfThenElse(moves, new_l2, sum_l2[k]);
          Store(hn::IfThenElse(moves, moved, level), levels + at);
          has_moved = hn::Or(has_moved, moves);
        }
      }
      if (hn::AllFalse(df, has_moved)) break;
    }
    for (size_t k = 0; k < kRefinedTogether; ++k) {
      const auto has_scale = hn::Gt(sum_l2[k], zero);
      Store(hn::IfThenElseZero(has_scale, hn::Div(sum_lx[k], sum_l2[k])), scales + k * kLanes + g);
      const float* x = values + k * kCount * kLanes + g;
      const auto is_zero = hn::Lt(hn::Abs(Extreme<kCount>(x)), Splat(kNegligible));
      for (size_t i = 0; i < kCount; ++i) {
        float* level = levels + (k * kCount + i) * kLanes + g;
        Store(hn::IfThenZeroElse(is_zero, hn::Add(Load(level), Splat(kGreatest))), level);
      }
    }
  }
}

// Scales or minima of a super-block, none negative, as whole multiples of one factor.
template <size_t kCount, int kGreatest>
static HWY_INLINE void FitPositive(const float* values, const float* weights, float* levels,
                                   float* factors) {
  const F32 df;
  const auto zero = hn::Zero(df);
  const auto one = Splat(1.0f);
  for (size_t g = 0; g < kLanes; g += hn::Lanes(df)) {
    const float* x = values + g;
    const float* w = weights + g;
    float* l = levels + g;
    auto maximum = zero;
    for (size_t i = 0; i < kCount; ++i) maximum = hn::Max(maximum, Load(x + i * kLanes));
    const auto is_zero = hn::Lt(maximum, Splat(kNegligible));
    const auto error_with = [&](VF inverse) HWY_ATTR {
      const auto scale = hn::Div(one, inverse);
      auto error = zero;
      for (size_t i = 0; i < kCount; ++i) {
        const auto value = Load(x + i * kLanes);
        const auto level = NearestWithin(hn::Mul(inverse, value), 0, kGreatest);
        const auto difference = hn::Sub(value, hn::Mul(scale, level));
        error = hn::Add(error, hn::Mul(hn::Mul(Load(w + i * kLanes), difference), difference));
      }
      return error;
    };
    const auto inverse_for = [&](float count) HWY_ATTR {
      return hn::IfThenZeroElse(is_zero, hn::Div(Splat(count), maximum));
    };

    auto best_inverse = inverse_for(kGreatest);
    auto best_error = error_with(best_inverse);
    for (int step = -4; step <= 4; ++step) {
      if (step == 0) continue;
      const float change = 0.1f * static_cast<float>(step);
      const auto inverse = inverse_for(change + kGreatest);
      const auto error = error_with(inverse);
      const auto is_better = hn::Lt(error, best_error);
      best_error = hn::IfThenElse(is_better, error, best_error);
      best_inverse = hn::IfThenElse(is_better, inverse, best_inverse);
    }

    auto sum_lx = zero, sum_l2 = zero;
    for (size_t i = 0; i < kCount; ++i) {
      const auto value = Load(x + i * kLanes), weight = Load(w + i * kLanes);
      const auto level = NearestWithin(hn::Mul(best_inverse, value), 0, kGreatest);
      Store(level, l + i * kLanes);
      sum_lx = hn::Add(sum_lx, hn::Mul(hn::Mul(weight, value), level));
      sum_l2 = hn::Add(sum_l2, hn::Mul(hn::Mul(weight, level), level));
    }
    // One level after the other is moved to where the factor of all others would have it. A lane in
    // which a round moved nothing stays as it is in the next.
    for (int round = 0; round < 5; ++round) {
      auto has_moved = hn::Lt(zero, zero);
      for (size_t i = 0; i < kCount; ++i) {
        const auto value = Load(x + i * kLanes), weight = Load(w + i * kLanes);
        const auto level = Load(l + i * kLanes);
        const auto weighted = hn::Mul(weight, value);
        const auto others_lx = hn::Sub(sum_lx, hn::Mul(weighted, level));
        const auto others_l2 = hn::Sub(sum_l2, hn::Mul(hn::Mul(weight, level), level));
        const auto moved =
            NearestWithin(hn::Div(hn::Mul(value, others_l2), others_lx), 0, kGreatest);
        const auto new_lx = hn::Add(others_lx, hn::Mul(weighted, moved));
        const auto new_l2 = hn::Add(others_l2, hn::Mul(hn::Mul(weight, moved), moved));
        const auto is_defined = hn::And(hn::Gt(others_lx, zero), hn::Gt(others_l2, zero));
        const auto is_better = hn::Gt(hn::Mul(hn::Mul(new_lx, new_lx), sum_l2),
                                      hn::Mul(hn::Mul(sum_lx, sum_lx), new_l2));
        const auto moves = hn::And(hn::And(is_defined, hn::Ne(moved, level)), is_better);
        sum_lx = hn::IfThenElse(moves, new_lx, sum_lx);
        sum_l2 = hn::IfThenElse(moves, new_l2, sum_l2);
        Store(hn::IfThenElse(moves, moved, level), l + i * kLanes);
        has_moved = hn::Or(has_moved, moves);
      }
      if (hn::AllFalse(df, has_moved)) break;
    }
    const auto has_factor = hn::Gt(sum_l2, zero);
    Store(hn::IfThenElseZero(has_factor, hn::Div(sum_lx, sum_l2)), factors + g);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif
