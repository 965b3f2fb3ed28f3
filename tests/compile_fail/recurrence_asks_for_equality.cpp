// first error: rwkv: numbers of a recurrence compare by < and > alone
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
    return h[0] = select(x[0] == 0, h[0], x[0]);
  }
};
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
