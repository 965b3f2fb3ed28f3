// first error: rwkv: select between two constants does not say which number they are
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
    return h[0] = select(x[0] > 0, 1, 0);
  }
};
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
