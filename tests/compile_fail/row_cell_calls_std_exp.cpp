// first error: rwkv: a recurrence computes with R, which is no float and no double
#include <rwkv/blocks.hpp>

struct Rows {
  static constexpr auto inputs = rwkv::Inputs{"value"};
  static constexpr auto shared = rwkv::Inputs{"query", "key"};
  template <class R, class State, class Head>
  static R step(State state, const R (&x)[1], const Head& head) {
    R sum(0);
    for (rwkv::Index n = 0; n < state.size; ++n) {
      state[n] = 0.5 * state[n] + std::exp(head(1, n)) * x[0];
      sum += state[n] * head(0, n);
    }
    return sum;
  }
};
template class rwkv::CellMix<Rows, float, rwkv::Cpu>;
