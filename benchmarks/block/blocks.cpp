/// The time mix, the channel mix and a whole layer of RWKV-4, forwards and back, at the width of the 169M model or at others:
/// bench_blocks --width 1024 --time 300.
#include "../report.hpp"
#include "../sizes.hpp"
#include "../synthetic.hpp"
#include "rwkv/check/block_run.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;

template <class K>
void forward(benchmark::State& state, Index width, Index time, int threads) {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = width, .depth = 1};
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

/// The backward pass alone, from what the forward pass kept.
template <class K>
void backward(benchmark::State& state, Index width, Index time, int threads) {
  rwkv::BlockRun<K> run({.vocab = 1, .width = width, .depth = 1}, 1, time, Cpu(threads));
  bench::FillParameters fill;
  for (auto& parameter : run.parameter_table()) {
    const rwkv::Mat<float> view = rwkv::matrix(parameter.data, 1, parameter.shape.count());
    fill(parameter, view);
  }
  run.x = bench::uniform<float>(time * width, -1, 1, 7);
  run.dy = bench::uniform<float>(time * width, -1, 1, 8);
  run.reset();
  run.forward_keeping();
  const double weights = static_cast<double>(run.parameters.size()) * sizeof(float);
  // Each product has two gradients; weights are read, and their gradients read and written.
  const bench::Work work{.bytes = 3 * weights + 3.0 * static_cast<double>(time * width) * sizeof(float),
                         .flops = 4 * weights / sizeof(float) * static_cast<double>(time),
                         .tokens = static_cast<double>(time),
                         .working_set = 2 * weights,
                         .threads = threads};
  bench::measure(state, work, [&] { run.backward(); });
}

using TimeMix = rwkv::TimeMix<rwkv::V4, float, Cpu>;
using ChannelMix = rwkv::ChannelMix<rwkv::V4, float, Cpu>;

/// A layer as a block, for the storage type of its parameters.
struct Layer : rwkv::Layer<TimeMix, ChannelMix> {
  using storage = float;
  using rwkv::Layer<TimeMix, ChannelMix>::Layer;
};

void add_rows(Index width, Index time) {
  for (const int threads : {1, 2}) {
    const std::string suffix = rwkv::join("/", width, "/T", time, "/", threads, "threads");
    bench::add("time_mix" + suffix, [=](auto& state) { forward<TimeMix>(state, width, time, threads); });
    bench::add("channel_mix" + suffix, [=](auto& state) { forward<ChannelMix>(state, width, time, threads); });
    bench::add("layer" + suffix, [=](auto& state) { forward<Layer>(state, width, time, threads); });
    if (time == 1) continue;
    bench::add("time_mix_back" + suffix, [=](auto& state) { backward<TimeMix>(state, width, time, threads); });
    bench::add("channel_mix_back" + suffix, [=](auto& state) { backward<ChannelMix>(state, width, time, threads); });
    bench::add("layer_back" + suffix, [=](auto& state) { backward<Layer>(state, width, time, threads); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Sizes sizes = bench::sizes_from(argc, argv, {.widths = {768}, .times = {1, 64, 256}});
  for (const Index width : sizes.widths) {
    for (const Index time : sizes.times) add_rows(width, time);
  }
  return bench::run(argc, argv);
}
