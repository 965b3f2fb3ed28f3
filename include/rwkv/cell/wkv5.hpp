#pragma once
/// The WKV recurrence of RWKV-5 and RWKV-6.
#include "rwkv/cell/concept.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Linear attention with decay, per head, read out before the update and with a bonus for the current token:
///
///     y_t = (S_{t-1} + v_t (u * k_t)^T) r_t,    S_t = S_{t-1} diag(w_t) + v_t k_t^T
///
/// with S of shape [value, key] (Peng et al., "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence").
/// `decay` is w itself, in (0, 1): the same for every token in RWKV-5 (`shared(chan(w))`), one for each
/// token in RWKV-6 (`shared(in(w))`). The rows of S are independent, so each row is a lane.
struct WKV5 {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"receptance", "decay", "bonus", "key"};
  enum { receptance, decay, bonus, key };
  static constexpr Diagonal transition{.read = receptance, .decay = decay, .write = key, .bonus = bonus};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    const Index size = state.size;
    R y = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      const R added = x[0] * head(key, n);
      y += (state[n] + head(bonus, n) * added) * head(receptance, n);
      state[n] = state[n] * head(decay, n) + added;
    }
    return y;
  }

  template <class R, class Before, class Head, class State, class Add>
  RWKV_HD static void step_back(Before before, const R (&x)[1], const Head& head, R dy, State dstate, R (&dx)[1],
                                const Add& dhead) {
    const Index size = dstate.size;
    const R v = x[0];
    R dv = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      const R s = before[n], k = head(key, n), u = head(bonus, n), dread = dy * head(receptance, n);
      const R dadded = dstate[n] + dread * u;
      dhead(receptance, n, dy * (s + u * v * k));
      dhead(decay, n, dstate[n] * s);
      dhead(bonus, n, dread * v * k);
      dhead(key, n, dadded * v);
      dv += dadded * k;
      dstate[n] = dstate[n] * head(decay, n) + dread;
    }
    dx[0] = dv;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
