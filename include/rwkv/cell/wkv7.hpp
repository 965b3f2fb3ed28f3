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

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    enum { receptance, decay, key, a, b };
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
};

}  // namespace RWKV_ABI
}  // namespace rwkv
