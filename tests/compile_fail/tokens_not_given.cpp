// error: rwkv: this block reads tokens: run it by forward_of_tokens(block, be, ws, tokens, x, state, y)
#include <rwkv/blocks.hpp>

using namespace rwkv;
using Deep = ChannelMix<V7a, float, Cpu>;

void run(const Deep& block, Cpu& be, Arena ws, Seq<const float> x, Deep::State& state, Seq<float> y) {
  block.forward(be, ws, x, state, y);
}
