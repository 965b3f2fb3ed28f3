#pragma once
/// The cross entropy of one row of logits, and its gradient.
#include <cmath>

#include "rwkv/core/math.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv::inline RWKV_ABI {

/// The target of a position that does not count.
inline constexpr Token no_target = -1;

/// What the gradient of a row's cross entropy is multiplied by, and what it gets on top.
struct CrossEntropyWeights {
  double scale = 1;   ///< of the cross entropy; 1 / counted positions for a mean
  double l2_wrap = 0; ///< times the largest logit, added to the gradient at that logit: keeps logits from drifting away
};

namespace detail {

/// Calls visit(column, lanes) for the columns of a row, R::size at a time.
template <class R, class Visit>
RWKV_INLINE void each_pack(Index columns, const Visit& visit) {
  Index c = 0;
  for (; c + R::size <= columns; c += R::size) visit(c, R::size);
  if (c < columns) visit(c, static_cast<int>(columns - c));
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
  Index top = 0;
  for (Index c = 1; c < vocab; ++c) top = logits[c] > logits[top] ? c : top;
  const T largest = logits[top], wanted = logits[target];
  R sums(0);
  detail::each_pack<R>(vocab, [&](Index c, int lanes) {
    const R e = exp(R::load(logits + c, lanes) - R(largest));
    e.store(logits + c, lanes);
    sums += first_lanes(e, lanes);
  });
  const T sum = sum_lanes(sums);
  const R factor(static_cast<T>(weights.scale) / sum);
  detail::each_pack<R>(vocab, [&](Index c, int lanes) { (R::load(logits + c, lanes) * factor).store(logits + c, lanes); });
  logits[target] -= static_cast<T>(weights.scale);
  logits[top] += static_cast<T>(weights.l2_wrap) * largest;
  using std::log;
  return log(sum) + (largest - wanted);
}

}  // namespace rwkv::inline RWKV_ABI
