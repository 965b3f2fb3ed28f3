// error: rwkv: a transition names every shared vector once
#include <rwkv/blocks.hpp>

using namespace rwkv;

struct Gated : WKV5 {
  static constexpr Diagonal transition{.read = receptance, .decay = decay, .write = key};
};

void run(Cpu& be, Arena scratch, Mat<float> state, Seq<float> x) {
  const auto shared = arg::shared(arg::in(x));
  be.recur(scratch, Chunked{}, Gated{}, Extent<>{8}, state, arg::in(x), shared, shared, shared, shared, arg::out(x));
}
