#pragma once
/// Layer norm and group norm.
#include "rwkv/backend/rows.hpp"

namespace rwkv::inline RWKV_ABI {

/// The row program y = (x - mean) / sqrt(variance + epsilon) * scale + shift over equal groups of channels, with the
/// population variance. Operands x, scale, shift, y.
///
/// The variance is taken around a first mean and both are then corrected by the mean of the remainders, so rows far
/// from zero keep their digits.
struct Normalise {
  Index groups;
  double per_channel;  ///< 1 / channels of a group
  double epsilon;

  using stages = Stages<1, 2>;

  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<0>, const R*, R* terms, R x, const Rest&...) const {
    terms[0] = x;
  }
  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<1>, const R* totals, R* terms, R x, const Rest&...) const {
    const R rest = x - totals[0] * R(per_channel);
    terms[0] = rest;
    terms[1] = rest * rest;
  }
  /// From the sums of x, of its remainders and of their squares to mean and 1 / standard deviation.
  template <class R>
  RWKV_HD void finish(R* totals) const {
    const R n = R(per_channel);
    const R correction = totals[1] * n;
    const R variance = max(totals[2] * n - correction * correction, R(0));  // rounding may leave less
    totals[0] = totals[0] * n + correction;
    totals[1] = R(1) / sqrt(variance + R(epsilon));
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R scale, R shift, R& y) const {
    y = (x - totals[0]) * totals[1] * scale + shift;
  }
};

/// Normalises every token over its channels (Ba, Kiros, Hinton, "Layer Normalization").
/// Shapes    x, y: [batch, time, width]   scale, shift: [width]
/// Aliasing  y may be x
/// Cost      three passes over a token in cache
template <class B, class X, class T, class P, Index W>
void layer_norm(B& backend, Seq<X, W> x, Vec<P, W> scale, Vec<P, W> shift, double epsilon, Seq<T, W> y) {
  backend.rows(Normalise{1, 1.0 / static_cast<double>(Index(x.width)), epsilon}, arg::in(x), arg::chan(scale),
               arg::chan(shift), arg::out(y));
}

/// Normalises every token over each of `groups` equal groups of channels.
/// Shapes    x, y: [batch, time, width]   scale, shift: [width]
/// Aliasing  y may be x
template <class B, class X, class T, class P, Index W>
void group_norm(B& backend, Seq<X, W> x, Index groups, Vec<P, W> scale, Vec<P, W> shift, double epsilon, Seq<T, W> y) {
  const Index group = groups > 0 ? x.width / groups : 0;
  expects(group > 0 && group * groups == x.width, "rwkv: ", Index(x.width), " channels do not form ", groups,
          " equal groups");
  backend.rows(Normalise{groups, 1.0 / static_cast<double>(group), epsilon}, arg::in(x), arg::chan(scale),
               arg::chan(shift), arg::out(y));
}

}  // namespace rwkv::inline RWKV_ABI
