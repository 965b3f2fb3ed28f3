#pragma once
/// The cross entropy of one row of logits, and its gradient.
#include <algorithm>
#include <cmath>

#include "rwkv/backend/operand.hpp"
#include "rwkv/core/math.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The target of a position that does not count.
inline constexpr Token no_target = -1;

/// Weights of the terms in the gradient of a row of logits.
struct CrossEntropyWeights {
  double scale = 1;  ///< of the cross entropy; 1 / counted positions for a mean
  double l2_wrap =
      0;  ///< times the largest logit, added to the gradient at that logit: keeps logits from drifting away
};

namespace detail {

/// The largest of `count` numbers. NaNs are ignored, but if the first number is NaN, so is the result.
template <class R, class T>
RWKV_INLINE T largest_of(const T* numbers, Index count) {
  R most(numbers[0]);
  Index c = 0;
  for (; c + R::size <= count; c += R::size) most = max(R::load(numbers + c), most);
  T lanes[R::size];
  most.store(lanes);
  T largest = lanes[0];
  for (const T lane : lanes) largest = lane > largest ? lane : largest;
  for (; c < count; ++c) largest = numbers[c] > largest ? numbers[c] : largest;
  return largest;
}

}  // namespace detail

/// Replaces the logits of one position by the gradient of scale * loss and returns the loss, log(sum_c e^{x_c}) -
/// x_target. A position without a target has loss and gradient zero.
template <class R, class T>
RWKV_INLINE T cross_entropy_row(T* logits, Index vocab, Token target, const CrossEntropyWeights& weights) {
  if (target == no_target) {
    for (Index c = 0; c < vocab; ++c) logits[c] = T(0);
    return T(0);
  }
  const T largest = detail::largest_of<R>(logits, vocab), wanted = logits[target];
  const Index found = std::find(logits, logits + vocab, largest) - logits;
  const Index top = found < vocab ? found : 0;  // std::find does not find a NaN
  R sums(0);
  detail::each_pack<R>(vocab, [&](Index c, auto lanes) {
    const R e = exp(detail::load<R>(logits + c, lanes) - R(largest));
    detail::store(e, logits + c, lanes);
    sums += detail::only(e, lanes);
  });
  const T sum = sum_lanes(sums);
  const R factor(static_cast<T>(weights.scale) / sum);
  detail::each_pack<R>(vocab, [&](Index c, auto lanes) {
    detail::store(detail::load<R>(logits + c, lanes) * factor, logits + c, lanes);
  });
  logits[target] -= static_cast<T>(weights.scale);
  logits[top] += static_cast<T>(weights.l2_wrap) * largest;
  using std::log;
  return log(sum) + (largest - wanted);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
