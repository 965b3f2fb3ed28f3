#pragma once
/// The WKV recurrence of RWKV-7.
#include "rwkv/cell/concept.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The generalised delta rule, per head, read out after the update:
///
///     S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T,    y_t = S_t r_t
///
/// with S of shape [value, key] (Peng et al., "RWKV-7 Goose with Expressive Dynamic State Evolution", eq. 17). `decay`
/// is w itself, in (0, 1). The rows of S are independent, so each row is a lane.
struct WKV7 {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"receptance", "decay", "key", "a", "b"};
  enum { receptance, decay, key, a, b };
  static constexpr DiagonalPlusRankOne transition{.read = receptance, .decay = decay, .write = key, .a = a, .b = b};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    const Index size = state.size;
    R removed = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) removed += state[n] * head(a, n);
    R y = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      state[n] = state[n] * head(decay, n) + removed * head(b, n) + x[0] * head(key, n);
      y += state[n] * head(receptance, n);
    }
    return y;
  }

  /// With c the cotangent of the state after the step, that of y included: c_n = dstate_n + dy r_n.
  template <class R, class Before, class Head, class State, class Add>
  RWKV_HD static void step_back(Before before, const R (&x)[1], const Head& head, R dy, State dstate, R (&dx)[1],
                                const Add& dhead) {
    const Index size = dstate.size;
    const R v = x[0];
    R removed = R(0), dremoved = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      removed += before[n] * head(a, n);
      dremoved += (dstate[n] + dy * head(receptance, n)) * head(b, n);
    }
    R dv = R(0);
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      const R s = before[n], c = dstate[n] + dy * head(receptance, n);
      dhead(receptance, n, dy * (s * head(decay, n) + removed * head(b, n) + v * head(key, n)));
      dhead(decay, n, c * s);
      dhead(key, n, c * v);
      dhead(a, n, dremoved * s);
      dhead(b, n, c * removed);
      dv += c * head(key, n);
      dstate[n] = c * head(decay, n) + dremoved * head(a, n);
    }
    dx[0] = dv;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
