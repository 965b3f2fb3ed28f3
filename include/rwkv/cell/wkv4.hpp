#pragma once
/// The WKV recurrence of RWKV-4.
#include "rwkv/cell/concept.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// An exponentially weighted average of the values seen, with a bonus for the current token:
///
///     wkv_t = (sum_{i<t} e^{(t-1-i) w + k_i} v_i + e^{u+k_t} v_t) / (sum_{i<t} e^{(t-1-i) w + k_i} + e^{u+k_t})
///
/// per channel, with w = -exp(time_decay) < 0 and u = time_first (Peng et al., "RWKV: Reinventing RNNs for the
/// Transformer Era", eq. 16). The state is numerator a, denominator b and exponent p (the official aa, bb, pp). a and b
/// are stored divided by e^p, where p is the largest exponent so far, so no exponential overflows. An empty state has
/// p = -1e38; keys must be larger.
struct WKV4 {
  static constexpr auto inputs = Inputs{"decay", "bonus", "key", "value"};
  static constexpr int state_size = 3;

  /// A stretch of time: multiplies the sums before it by e^log_decay and adds (a, b) e^p.
  template <class R>
  struct Stretch {
    /// In the logarithm, the decay over the stretch; numerator, denominator and exponent of what it adds.
    R log_decay, a, b, p;
  };

  template <class R>
  RWKV_HD static void init(R (&state)[3]) {
    state[0] = R(0);
    state[1] = R(0);
    state[2] = R(-1e38);
  }

  /// An empty state with exponent 0: its numerator and denominator have gradients, which the scale e^-1e38 = 0 of
  /// init() would make zero.
  template <class R>
  RWKV_HD static void init_tuned(R (&state)[3]) {
    state[0] = R(0);
    state[1] = R(0);
    state[2] = R(0);
  }
  /// The denominator is a sum of positive weights, so it must not be negative.
  template <class R>
  RWKV_HD static void make_valid(R (&state)[3]) {
    state[1] = max(state[1], R(0));
  }

  template <class R>
  RWKV_HD static R step(R (&state)[3], const R (&x)[4]) {
    const R u = x[1], k = x[2], v = x[3];
    const ExpPair<R> e = exp_pair(state[2], u + k);
    const R wkv = (e.first * state[0] + e.second * v) / (e.first * state[1] + e.second);
    enter(state, lift(x));
    return wkv;
  }

  /// The adjoint of a step. The output does not depend on which scale the new state is stored under, so the cotangent
  /// of the new p is ignored. The old p has a gradient, because the numerator is a e^p and the denominator b e^p. No
  /// exponential here exceeds 1.
  template <class R>
  RWKV_HD static void step_back(const R (&before)[3], const R (&x)[4], R dy, R (&dstate)[3], R (&dx)[4]) {
    const R a = before[0], b = before[1], p = before[2];
    const R w = x[0], u = x[1], k = x[2], v = x[3];
    const ExpPair<R> out = exp_pair(p, u + k);  // factors of the output
    const ExpPair<R> up = exp_pair(p + w, k);   // factors of the new state
    const R inverse = R(1) / (out.first * b + out.second);
    const R y = (out.first * a + out.second * v) * inverse;
    const R g = dy * inverse;
    const R da = dstate[0], db = dstate[1];
    dx[0] = up.first * (a * da + b * db);
    dx[1] = out.second * g * (v - y);
    dx[2] = dx[1] + up.second * (v * da + db);
    dx[3] = out.second * g + up.second * da;
    dstate[0] = out.first * g + up.first * da;
    dstate[1] = up.first * db - out.first * g * y;
    dstate[2] = a * dstate[0] + b * dstate[1];
  }

  /// The backward pass through a stretch of time: the cotangents of numerator and denominator are multiplied by `kept`,
  /// and the outputs of the stretch add (a, b). The cotangent of the exponent after it is ignored.
  template <class R>
  struct Back {
    R kept, a, b;  ///< factor of the cotangents, and what is added to those of numerator and denominator

    /// Of no time at all.
    RWKV_HD static Back identity() { return {R(1), R(0), R(0)}; }
    /// Puts the token x, which sees the state `before`, in front of the stretch.
    RWKV_HD void extend(const R (&before)[3], const R (&x)[4], R dy) {
      const ExpPair<R> out = exp_pair(before[2], x[1] + x[2]);
      const ExpPair<R> up = exp_pair(before[2] + x[0], x[2]);
      const R inverse = R(1) / (out.first * before[1] + out.second);
      const R y = (out.first * before[0] + out.second * x[3]) * inverse;
      const R g = out.first * (dy * inverse);
      extend({up.first, g, -g * y});
    }
    /// Puts another stretch in front of this one.
    RWKV_HD void extend(const Back& front) {
      a = front.kept * a + front.a;
      b = front.kept * b + front.b;
      kept = front.kept * kept;
    }
    /// The cotangent of the state behind the stretch becomes that of the state in front of it.
    RWKV_HD void operator()(R (&dstate)[3]) const {
      dstate[0] = kept * dstate[0] + a;
      dstate[1] = kept * dstate[1] + b;
      dstate[2] = R(0);
    }
  };

  template <class R>
  RWKV_HD static Stretch<R> lift(const R (&x)[4]) {
    return {x[0], x[3], R(1), x[2]};
  }

  template <class R>
  RWKV_HD static Stretch<R> compose(const Stretch<R>& earlier, const Stretch<R>& later) {
    const ExpPair<R> e = exp_pair(earlier.p + later.log_decay, later.p);
    return {earlier.log_decay + later.log_decay, e.first * earlier.a + e.second * later.a,
            e.first * earlier.b + e.second * later.b, e.scale};
  }

  template <class R>
  RWKV_HD static void enter(R (&state)[3], const Stretch<R>& stretch) {
    const ExpPair<R> e = exp_pair(state[2] + stretch.log_decay, stretch.p);
    state[0] = e.first * state[0] + e.second * stretch.a;
    state[1] = e.first * state[1] + e.second * stretch.b;
    state[2] = e.scale;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
