#pragma once
/// Row programs of the time mix of RWKV-7, around its recurrence.
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/math.hpp"
#include "rwkv/op/norm.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// v = u + (first - u) sigmoid(bias + x), the value residual. Operands u, first, x, bias, v.
struct MixValues {
  template <class R>
  RWKV_HD void map(R u, R first, R x, R bias, R& v) const {
    v = u + (first - u) * sigmoid(bias + x);
  }
};

/// What the recurrence reads, from key k, low-rank products w_in and a_in, and vectors of the layer:
///
///     decay = exp(-exp(-1/2) sigmoid(w0 + w_in)),  a = sigmoid(a0 + a_in),  c = k k_k / max(|k k_k|, 1e-12) per head
///     key = k (1 + (a - 1) k_a),  remove = -c,  write = c a
///
/// Operands k, w_in, a_in, w0, a0, k_k, k_a, decay, key, remove, write.
struct PrepareKeys {
  Index groups;  ///< heads

  using stages = Stages<1>;
  static constexpr int most_channels = 2;  ///< of a CUDA thread at a time: every operand takes registers for each

  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<0>, const R*, R* terms, R k, R, R, R, R, R k_k, const Rest&...) const {
    terms[0] = k * k_k * (k * k_k);
  }
  /// Turns the square of the length into 1 / length. A floor under the square has a derivative of zero where it holds.
  template <class R>
  RWKV_HD void finish(Stage<0>, R* totals) const {
    totals[0] = R(1) / sqrt(max(totals[0], R(1e-24)));
  }
  template <class R>
  RWKV_HD void map(const R* totals, R k, R w_in, R a_in, R w0, R a0, R k_k, R k_a, R& decay, R& key, R& remove,
                   R& write) const {
    constexpr double exp_of_minus_half = 0.6065306597126334;
    const R c = k * k_k * totals[0], a = sigmoid(a0 + a_in);
    decay = exp(R(-exp_of_minus_half) * sigmoid(w0 + w_in));
    key = k * (R(1) + (a - R(1)) * k_a);
    remove = -c;
    write = c * a;
  }
};

/// y = (norm(x) + <r r_k, key> v) g per head: the norm of Normalise, and a bonus for the current token. Operands x, r, key,
/// v, g, r_k, scale, shift, y.
struct ReadOut : Normalise {
  using stages = Stages<1, 3>;             // the sums of Normalise, then the bonus
  static constexpr int most_channels = 2;  ///< as in PrepareKeys

  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<0> stage, const R* totals, R* terms, R x, const Rest&...) const {
    Normalise::reduce(stage, totals, terms, x);
  }
  template <class R, class... Rest>
  RWKV_HD void reduce(Stage<1> stage, const R* totals, R* terms, R x, R r, R key, R, R, R r_k, const Rest&...) const {
    Normalise::reduce(stage, totals, terms, x);
    terms[2] = r * r_k * key;
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R, R, R v, R g, R, R scale, R shift, R& y) const {
    Normalise::map(totals, x, scale, shift, y);
    y = (y + totals[3] * v) * g;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
