/// A single time mix.
#include <rwkv/blocks.hpp>

using Mix = rwkv::TimeMix<rwkv::V4, float, rwkv::Cpu>;

void forward(const Mix& mix, rwkv::Cpu& cpu, rwkv::Arena scratch, rwkv::Seq<const float> x, Mix::State& state,
             rwkv::Seq<float> y) {
  mix.forward(cpu, scratch, x, state, y);
}
