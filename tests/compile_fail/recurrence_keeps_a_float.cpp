// first error: rwkv: a recurrence computes with R, which is no float and no double
#include <rwkv/blocks.hpp>

struct Leaky {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr int state_size = 1;
  template <class R>
  static void init(R (&h)[1]) {
    h[0] = 0;
  }
  template <class R>
  static R step(R (&h)[1], const R (&x)[1]) {
    float kept = x[0];
    h[0] = kept;
    return h[0];
  }
};
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
