#pragma once
/// AdamW with the parameter groups of RWKV.
#include <cmath>

#include "rwkv/core/error.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Adam with decoupled weight decay (Loshchilov, Hutter, "Decoupled Weight Decay Regularization"). The parameter groups
/// follow from the parameter tables, as in the official recipe: weight decay applies to matrices, not to vectors and low-rank
/// factors; some vectors, such as the decays of a recurrence, have a higher learning rate.
struct AdamW {
  double beta1 = 0.9;          ///< kept of the mean gradient at each step
  double beta2 = 0.99;         ///< kept of the mean square at each step
  double epsilon = 1e-8;       ///< added to the root of the mean square
  double weight_decay = 0.0;   ///< of embedding, head and matrices; multiplied by the learning rate
  bool decay_vectors = false;  ///< whether weight decay applies to the other parameters as well
  bool table_rates = true;     ///< whether the factors of the tables apply (ParameterTraits::rate)

  /// The factor of the learning rate for a parameter.
  double rate_of(const ParameterTraits& traits) const { return table_rates ? traits.rate : 1; }
  /// The weight decay of a parameter.
  double weight_decay_of(const ParameterTraits& traits) const {
    const bool decays = traits.role != Role::vector && traits.role != Role::low_rank;
    return decays || decay_vectors ? weight_decay : 0;
  }

  /// Throws an Error that names the first setting that makes no sense.
  void check() const {
    for (const double beta : {beta1, beta2}) {
      expects(is_between(beta, 0, 1) && beta < 1, "rwkv: AdamW: a beta must be in [0, 1), not ", beta);
    }
    expects(is_finite(epsilon) && epsilon > 0, "rwkv: AdamW: epsilon must be above zero, not ", epsilon);
    expects(is_finite(weight_decay) && weight_decay >= 0, "rwkv: AdamW: the weight decay must not be negative, as ",
            weight_decay, " is");
  }
};

/// One update. A row program over gradient g, parameter p and moments m and v; it replaces p, m and v:
///
///     m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
///     p = keep p - rate (m / correction1) / (sqrt(v / correction2) + epsilon)
struct AdamWUpdate {
  double beta1, beta2, epsilon;     ///< those of AdamW
  double rate;                      ///< learning rate of this parameter
  double keep;                      ///< 1 - rate * weight decay
  double correction1, correction2;  ///< 1 - beta^t
  double scale;                     ///< factor of the gradient, from clipping the global norm

  AdamWUpdate() = default;
  /// The update of a parameter in step t = 1, 2, ...
  AdamWUpdate(const AdamW& adamw, const ParameterTraits& traits, double learning_rate, double t, double gradient_scale)
      : beta1(adamw.beta1), beta2(adamw.beta2), epsilon(adamw.epsilon), rate(learning_rate * adamw.rate_of(traits)),
        keep(1 - rate * adamw.weight_decay_of(traits)), correction1(1 - std::pow(beta1, t)),
        correction2(1 - std::pow(beta2, t)), scale(gradient_scale) {}

  template <class R>
  RWKV_HD void map(R g, R p, R m, R v, R& p_after, R& m_after, R& v_after) const {
    const R gradient = g * R(scale);
    m_after = R(beta1) * m + R(1 - beta1) * gradient;
    v_after = R(beta2) * v + R(1 - beta2) * gradient * gradient;
    p_after = R(keep) * p - R(rate / correction1) * m_after / (sqrt(v_after * R(1 / correction2)) + R(epsilon));
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
