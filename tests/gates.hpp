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

}  // namespace config
