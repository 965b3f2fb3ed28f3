// error: rwkv: a channel cell must set its state before the first token: template <class R> static void init(R
// (&state)[state_size])
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/blocks.hpp>

struct Leaky {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr int state_size = 1;
  template <class R>
  static R step(R (&h)[1], const R (&x)[1]) {
    return h[0] = h[0] + x[0];
  }
};
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
