#pragma once
/// A recurrence that the library does not ship: the one a user would write first.
#include "rwkv/cell/concept.hpp"

/// A leaky integrator whose leak is gated by the input: h_t = (1 - z_t) h_{t-1} + z_t c_t, y_t = h_t, with
/// z_t = sigmoid(gate) and c_t = value.
struct LeakyGate {
  static constexpr auto inputs = rwkv::Inputs{"gate", "value"};
  static constexpr int state_size = 1;

  /// The map h -> keep * h + add.
  template <class R>
  struct Stretch {
    R keep, add;
  };

  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    enter(h, lift(x));
    return h[0];
  }
  template <class R>
  RWKV_HD static Stretch<R> lift(const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    return {R(1) - z, z * x[1]};
  }
  template <class R>
  RWKV_HD static Stretch<R> compose(const Stretch<R>& earlier, const Stretch<R>& later) {
    return {earlier.keep * later.keep, later.keep * earlier.add + later.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Stretch<R>& stretch) {
    h[0] = stretch.keep * h[0] + stretch.add;
  }
};
