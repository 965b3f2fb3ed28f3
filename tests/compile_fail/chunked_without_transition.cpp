// error: rwkv: Chunked needs a row cell that declares its transition
#include <rwkv/blocks.hpp>

using namespace rwkv;

struct Remembers {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"key"};
  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    for (Index n = 0; n < state.size; ++n) state[n] += x[0] * head(0, n);
    return state[0];
  }
};

void run(Cpu& be, Arena scratch, Mat<float> state, Seq<float> x) {
  be.recur(scratch, Chunked{}, Remembers{}, Extent<>{8}, state, arg::in(x), arg::shared(arg::in(x)), arg::out(x));
}
