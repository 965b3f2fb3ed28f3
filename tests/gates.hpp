#pragma once
/// Recurrences written as a user would write them.
#include <rwkv/cell/concept.hpp>

namespace config {

/// h_t = (1 - z_t) h_{t-1} + z_t c_t, y_t = h_t, with z = sigmoid(gate) and c = value.
struct LeakyGate {
  static constexpr auto inputs = rwkv::Inputs{"gate", "value"};
  static constexpr int state_size = 1;
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0.25);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    h[0] = (R(1) - z) * h[0] + z * x[1];
    return h[0];
  }
};

/// The same recurrence with `lift`, `compose` and `enter`, so that it can be scanned.
struct ScannedGate {
  static constexpr auto inputs = LeakyGate::inputs;
  static constexpr int state_size = 1;
  template <class R>
  struct Stretch {
    R keep, add;
  };
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    LeakyGate::init(h);
  }
  template <class R>
  RWKV_HD static Stretch<R> lift(const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    return {R(1) - z, z * x[1]};
  }
  template <class R>
  RWKV_HD static Stretch<R> compose(const Stretch<R>& a, const Stretch<R>& b) {
    return {a.keep * b.keep, b.keep * a.add + b.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Stretch<R>& stretch) {
    h[0] = stretch.keep * h[0] + stretch.add;
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    enter(h, lift(x));
    return h[0];
  }
};

/// Gated linear attention. A row of the state S: [value, key] of a head takes part in
///
///     S_t = S_{t-1} diag(sigmoid(decay)) + value key^T,    y_t = sigmoid(gate) * S_t query
struct Attention {
  static constexpr auto inputs = rwkv::Inputs{"gate", "value"};
  static constexpr auto shared = rwkv::Inputs{"query", "key", "decay"};
  enum { query, key, decay };
  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[2], const Head& head) {
    R read = R(0);
    for (rwkv::Index n = 0; n < state.size; ++n) {
      state[n] = sigmoid(head(decay, n)) * state[n] + x[1] * head(key, n);
      read += state[n] * head(query, n);
    }
    return sigmoid(x[0]) * read;
  }
};

/// The same with a hand-written adjoint.
struct AttentionByHand : Attention {
  template <class R, class Before, class Head, class State, class Add>
  RWKV_HD static void step_back(Before before, const R (&x)[2], const Head& head, R dy, State dstate, R (&dx)[2],
                                const Add& dhead) {
    const R open = sigmoid(x[0]), dread = dy * open;
    R read = R(0), dvalue = R(0);
    for (rwkv::Index n = 0; n < dstate.size; ++n) {
      const R keep = sigmoid(head(decay, n)), after = keep * before[n] + x[1] * head(key, n);
      const R dafter = dstate[n] + dread * head(query, n);
      read += after * head(query, n);
      dvalue += dafter * head(key, n);
      dhead(query, n, dread * after);
      dhead(key, n, dafter * x[1]);
      dhead(decay, n, dafter * before[n] * keep * (R(1) - keep));
      dstate[n] = dafter * keep;
    }
    dx[0] = dy * read * open * (R(1) - open);
    dx[1] = dvalue;
  }
};

}  // namespace config
