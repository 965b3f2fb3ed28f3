/// The time mix, the channel mix and a whole layer of RWKV-4 at the width of the 169M model.
#include "../report.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;

template <class K>
void forward(benchmark::State& state, Index time, int threads) {
  constexpr rwkv::ModelSizes sizes{.vocab = 1, .width = 768, .depth = 1};
  Cpu cpu(threads);
  bench::OwnedBlock<K> owned(cpu, sizes);
  const auto x = bench::uniform<float>(time * sizes.width, -1, 1, 7);
  std::vector<float> y(x.size());
  const rwkv::Seq<const float> in{x.data(), 1, time, sizes.width};
  const rwkv::Seq<float> out{y.data(), 1, time, sizes.width};
  const auto call = [&](rwkv::Arena ws) { owned.block.forward(cpu, ws, in, owned.state, out); };
  const auto scratch = rwkv::scratch_for(cpu, call);
  const double weights = static_cast<double>(owned.bytes());
  const double activations = 2.0 * static_cast<double>(time * sizes.width) * sizeof(float);
  const bench::Work work{.bytes = weights + activations,
                         .flops = 2 * weights / sizeof(float) * static_cast<double>(time),
                         .tokens = static_cast<double>(time),
                         .working_set = weights,
                         .threads = threads};
  bench::measure(state, work, [&] { call(scratch.arena()); });
}

using TimeMix = rwkv::TimeMix<rwkv::V4, float, Cpu>;
using ChannelMix = rwkv::ChannelMix<rwkv::V4, float, Cpu>;

/// A layer as a block, for the storage type of its parameters.
struct Layer : rwkv::Layer<TimeMix, ChannelMix> {
  using storage = float;
  using rwkv::Layer<TimeMix, ChannelMix>::Layer;
};

const bool registered = [] {
  for (const Index time : {1, 64, 256}) {
    for (const int threads : {1, 2}) {
      const std::string suffix = rwkv::join("/768/T", time, "/", threads, "threads");
      bench::add("time_mix" + suffix, [=](auto& state) { forward<TimeMix>(state, time, threads); });
      bench::add("channel_mix" + suffix, [=](auto& state) { forward<ChannelMix>(state, time, threads); });
      bench::add("layer" + suffix, [=](auto& state) { forward<Layer>(state, time, threads); });
    }
  }
  return true;
}();

}  // namespace
