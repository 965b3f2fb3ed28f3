// error: rwkv: a recurrence must name its inputs: static constexpr auto inputs = Inputs{"key", "value"};
#include <rwkv/blocks.hpp>

struct Leaky {
  static constexpr int state_size = 1;
  template <class R>
  static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  static R step(R (&h)[1], const R (&x)[1]) {
    return h[0] = h[0] + x[0];
  }
};
static_assert(rwkv::explain_recurrence<Leaky>());
