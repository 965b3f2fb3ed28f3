#pragma once
/// Layer norm and group norm.
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The row program y = (x - mean) / sqrt(variance + epsilon) * scale + shift over equal groups of channels, with the
/// population variance. Operands x, scale, shift, y.
///
/// A first mean is subtracted, then mean and variance are corrected by the mean of the remainders. So rows far from
/// zero keep their digits.
struct Normalise {
  Index groups;        ///< equal groups of channels
  double per_channel;  ///< 1 / channels of a group
  double epsilon;      ///< added to variances

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
  /// Turns the sums of x, of the remainders and of their squares into mean and 1 / standard deviation.
  template <class R>
  RWKV_HD void finish(Stage<1>, R* totals) const {
    const R n = R(per_channel);
    const R correction = totals[1] * n;
    const R variance = max(totals[2] * n - correction * correction, R(0));  // rounding may make it negative
    totals[0] = totals[0] * n + correction;
    totals[1] = R(1) / sqrt(variance + R(epsilon));
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R scale, R shift, R& y) const {
    y = (x - totals[0]) * totals[1] * scale + shift;
  }
};

/// The adjoint of Normalise, with x^ = (x - mean) / deviation and g = dy * scale:
///
///     dx = (g - mean(g) - x^ mean(g x^)) / deviation,   dscale = dy x^,   dshift = dy
///
/// Operands x, scale, dy, dx, dscale, dshift.
struct NormaliseBack : Normalise {
  using stages = Stages<1, 2, 2>;
  using Normalise::reduce;

  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<2>, const R* totals, R* terms, R x, R scale, R dy, const Rest&...) const {
    terms[0] = dy * scale;
    terms[1] = terms[0] * ((x - totals[0]) * totals[1]);
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R scale, R dy, R& dx, R& dscale, R& dshift) const {
    const R n = R(per_channel);
    const R normed = (x - totals[0]) * totals[1];
    dx = (dy * scale - totals[3] * n - normed * (totals[4] * n)) * totals[1];
    dscale = dy * normed;
    dshift = dy;
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

/// The adjoint of layer_norm: writes (arg::out) or adds (arg::add) the gradient of x to the operand `dx`, and adds the
/// gradients of scale and shift.
/// Shapes    x, dy, dx: [batch, time, width]   scale, dscale, dshift: [width]
/// Aliasing  dx may be dy
template <class B, class X, class Y, class P, Index W, class Dx>
void layer_norm_back(B& backend, Arena scratch, Seq<X, W> x, Vec<P, W> scale, double epsilon, Seq<Y, W> dy, Dx dx,
                     Vec<P, W> dscale, Vec<P, W> dshift) {
  backend.rows(scratch, NormaliseBack{{1, 1.0 / static_cast<double>(Index(x.width)), epsilon}}, arg::in(x),
               arg::chan(scale), arg::in(dy), dx, arg::sum(dscale), arg::sum(dshift));
}

namespace detail {
/// The row program over `groups` equal groups of `width` channels.
inline Normalise normalise_groups(Index width, Index groups, double epsilon) {
  const Index group = groups > 0 ? width / groups : 0;
  expects(group > 0 && group * groups == width, "rwkv: ", width, " channels do not form ", groups, " equal groups");
  return {groups, 1.0 / static_cast<double>(group), epsilon};
}
}  // namespace detail

/// Normalises every token over each of `groups` equal groups of channels.
/// Shapes    x, y: [batch, time, width]   scale, shift: [width]
/// Aliasing  y may be x
template <class B, class X, class T, class P, Index W>
void group_norm(B& backend, Seq<X, W> x, Index groups, Vec<P, W> scale, Vec<P, W> shift, double epsilon, Seq<T, W> y) {
  backend.rows(detail::normalise_groups(x.width, groups, epsilon), arg::in(x), arg::chan(scale), arg::chan(shift),
               arg::out(y));
}

/// The adjoint of group_norm; see layer_norm_back.
template <class B, class X, class Y, class P, Index W, class Dx>
void group_norm_back(B& backend, Arena scratch, Seq<X, W> x, Index groups, Vec<P, W> scale, double epsilon,
                     Seq<Y, W> dy, Dx dx, Vec<P, W> dscale, Vec<P, W> dshift) {
  backend.rows(scratch, NormaliseBack{detail::normalise_groups(x.width, groups, epsilon)}, arg::in(x), arg::chan(scale),
               arg::in(dy), dx, arg::sum(dscale), arg::sum(dshift));
}

}  // namespace RWKV_ABI
}  // namespace rwkv
