// error: rwkv: a channel cell must have template <class R> static R step(R (&state)[state_size], const R (&x)[inputs])
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/blocks.hpp>

struct Leaky {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr int state_size = 1;
  template <class R>
  static void init(R (&h)[1]) {
    h[0] = R(0);
  }
};
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
