// error: rwkv: an input or shared vector of a cell in CellMix cannot be named receptance or output, the block has those itself
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/blocks.hpp>

struct Leaky {
  static constexpr auto inputs = rwkv::Inputs{"output"};
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
template class rwkv::CellMix<Leaky, float, rwkv::Cpu>;
