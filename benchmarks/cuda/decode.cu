/// Tokens of RWKV-4 in official sizes, random weights in bf16, as a program sees them. And the prompt.
#include <cstdint>
#include <optional>
#include <span>

#include "rwkv/backend/cuda/sample/sample.cuh"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/model/model.hpp"
#include "suite.cuh"

namespace bench {

namespace {

using rwkv::Token;
using Net = rwkv::LanguageModel<rwkv::V4, rwkv::bf16, Cuda>;

struct Official {
  const char* name;
  rwkv::ModelSizes sizes;
  double one, many, most;  ///< goals for a sequence alone, for 64 and for 960, as shares of the floor; 0: none
};
constexpr Official official[] = {{"169M", {.vocab = 50277, .width = 768, .depth = 12}, 0.38, 0, 0},
                                 {"1B5", {.vocab = 50277, .width = 2048, .depth = 24}, 0.78, 0, 0},
                                 {"7B", {.vocab = 50277, .width = 4096, .depth = 32}, 0.88, 0.70, 0.85}};

/// Sequences side by side: one, the most that products normalise their tokens for, many, and the most, of the largest
/// model alone.
constexpr Index few_batch = rwkv::gpu::most_decoded, many_batch = 64, most_batch = 960;

/// What a step of `batch` sequences takes: all weights but the embedding once, the state read and written.
Work work_of_step(const Net& net, Index batch, double state_bytes) {
  double matrices = 0, bytes = 0;
  for (const auto& parameter : net.parameters()) {
    const double count = static_cast<double>(parameter.shape.count());
    if (parameter.role == rwkv::Role::matrix || parameter.role == rwkv::Role::head) matrices += count;
    if (parameter.role != rwkv::Role::embedding) bytes += count * sizeof(Net::storage);
  }
  return {.read = bytes + state_bytes,
          .written = state_bytes,
          .flops = 2 * matrices * static_cast<double>(batch),
          .unit = Work::mma};
}

/// The most times the floor that a step may take; 0: no goal.
double goal_of_step(const Suite& suite, const Official& size, const Work& work, Index batch) {
  if (batch == 1 && size.one > 0) return share(size.one);
  if (batch == many_batch && size.many > 0) return share(size.many);
  if (batch != most_batch || size.most == 0) return 0;
  // The goal for most sequences is a share of the serial floor: what moves, then what is computed.
  const double moving = suite.floor_of({.read = work.read, .written = work.written}),
               computing = suite.floor_of({.flops = work.flops, .unit = work.unit});
  return share(size.most) * (moving + computing) / suite.floor_of(work);
}

struct StepKernels {
  Index count;
  double seconds;  ///< from the first to the last
};

/// Kernels of one step, counted and timed in a recording of the same calls that a context makes.
StepKernels kernels_of_step(const Net& net, Index batch) {
  Cuda be = net.device().independent();
  auto parts = net.parts;
  rwkv::BodyState<decltype(parts.body)> state(be, parts.body, batch);
  parts.body.reset(be, state.views);
  rwkv::Exchange<Token, Cuda> tokens(be, static_cast<std::size_t>(batch));
  for (std::size_t b = 0; b < tokens.numbers().size(); ++b) {
    tokens.numbers()[b] = static_cast<Token>(static_cast<Index>(b) * 7919 % net.sizes().vocab);
  }
  const auto step = [&](rwkv::Arena ws) {
    const rwkv::Seq<float> x{ws.take<float>(batch * net.sizes().width), batch, 1, net.sizes().width};
    const rwkv::Seq<float> logits{ws.take<float>(batch * net.sizes().vocab), batch, 1, net.sizes().vocab};
    parts.embedding.forward(be, tokens.numbers(), x);
    parts.body.forward(be, ws, x, state.views, x);
    parts.head.forward(be, ws, x, logits);
  };
  const auto scratch = scratch_for(be, step);
  const Graph graph(be.stream(), [&] { step(scratch.arena()); });
  const StreamClock clock(be.stream());
  std::vector<double> seconds;
  constexpr int replays = 10;
  for (int r = -2; r < replays; ++r) {
    const double once = clock([&] { graph.replay(); });
    if (r >= 0) seconds.push_back(once);
  }
  return {graph.kernels(), median(seconds)};
}

std::string rate(double tokens, const std::vector<double>& seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "%.0f tokens/s", tokens / median(seconds));
  return text;
}

/// A model that is made when the first of its rows runs.
class Lazy {
 public:
  Lazy(Cuda be, const rwkv::ModelSizes& sizes) : backend_(std::move(be)), sizes_(sizes) {}

  const Net& operator()() {
    if (!net_) fill_parameters(net_.emplace(sizes_, backend_));
    return *net_;
  }

  /// Why rows of `tokens` at a time of `batch` sequences do not fit into the memory that is free; empty if they do.
  std::string lack_of_memory(Index batch, Index tokens, bool draws = false) const {
    const auto numbers = [](Index count, std::size_t size) {
      return static_cast<double>(count) * static_cast<double>(size);
    };
    const double weights = net_ ? 0 : numbers(Net::unbound(sizes_, backend_).parameter_count(), sizeof(Net::storage));
    // A context and the recording that is counted each have a state, activations and logits.
    const double state = numbers(batch * sizes_.depth * 5 * sizes_.width, sizeof(float)),
                 activations = numbers(tokens * 24 * sizes_.width + 2 * batch * sizes_.vocab, sizeof(float));
    const double sampler = draws ? numbers(batch * sizes_.vocab, sizeof(double)) : 0;
    const double needed = weights + 2 * (state + activations) + sampler;
    std::size_t left = 0, all = 0;
    RWKV_CUDA_TRY(cudaMemGetInfo(&left, &all));
    if (needed <= static_cast<double>(left)) return "";
    char text[96];
    std::snprintf(text, sizeof text, "takes about %.1f GB, %.1f GB are free", needed / 1e9,
                  static_cast<double>(left) / 1e9);
    return text;
  }

 private:
  Cuda backend_;
  rwkv::ModelSizes sizes_;
  std::optional<Net> net_;
};

/// How steps run: kernel by kernel with logits on the host, replayed with logits on the host, or replayed with tokens
/// chosen on the device, so that only tokens are copied.
enum class Steps { eager, recorded, drawn };
constexpr const char* names_of_steps[] = {"decode, eager", "decode, recorded", "decode, drawn on the device"};

void decode(Suite& suite, Lazy& model, const Official& size, Index batch, Steps steps) {
  const bool record = steps != Steps::eager;
  Case what{names_of_steps[static_cast<int>(steps)], std::string(size.name) + " B" + std::to_string(batch), "bf16"};
  suite.run(what, [&] {
    const std::string lack = model.lack_of_memory(batch, batch, steps == Steps::drawn);
    if (!lack.empty()) return suite.skip(what, lack);
    const Net& net = model();
    auto context = net.context({.batch = batch, .chunk = 1, .record = record});
    what.work = work_of_step(net, batch, static_cast<double>(context.state_bytes()));
    std::vector<Token> tokens(static_cast<std::size_t>(batch));
    if (steps == Steps::drawn) {
      what.goal = goal_of_step(suite, size, what.work, batch);
      rwkv::CudaSampler sampler(context);
      for (Index b = 0; b < batch; ++b) sampler.set(b, {.top_p = 0.7, .seed = static_cast<std::uint64_t>(b)});
      std::span<const Token> drawn(tokens);
      const auto seconds = host_seconds_of([&] { drawn = context.step(drawn, sampler); });
      return suite.report(what, seconds, rate(static_cast<double>(batch), seconds));
    }
    const auto seconds = host_seconds_of([&] {
      for (std::size_t b = 0; b < tokens.size(); ++b) {
        tokens[b] = static_cast<Token>((tokens[b] + 7919 + static_cast<Token>(b)) % size.sizes.vocab);
      }
      static_cast<void>(context.step(tokens));
    });
    const StepKernels kernels = kernels_of_step(net, batch);
    // Kernels: embedding, layers, head; beyond most_decoded sequences the norm of the head is a separate kernel.
    const Index most = 1 + 5 * size.sizes.depth + (batch <= few_batch ? 1 : 2);
    std::string remark =
        rwkv::join(rate(static_cast<double>(batch), seconds), "; ", kernels.count, " kernels of at most ", most);
    // The rest is the host's part and the way of the logits to it.
    if (record) remark += rwkv::join("; kernels alone ", std::lround(kernels.seconds * 1e6), " us");
    suite.report(what, seconds, remark);
  });
}

void prefill(Suite& suite, Lazy& model, const Official& size, Index time) {
  Case what{"prefill", std::string(size.name) + " T" + std::to_string(time), "bf16"};
  suite.run(what, [&] {
    const std::string lack = model.lack_of_memory(1, time);
    if (!lack.empty()) return suite.skip(what, lack);
    const Net& net = model();
    auto context = net.context({.chunk = time});
    what.work = work_of_step(net, time, static_cast<double>(context.state_bytes()));
    // The head is computed for the last token alone.
    what.work.flops -= 2.0 * static_cast<double>(time - 1) * static_cast<double>(size.sizes.vocab * size.sizes.width);
    std::vector<Token> tokens(static_cast<std::size_t>(time));
    for (std::size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<Token>(t * 7919 % 50277);
    const auto seconds = host_seconds_of([&] { static_cast<void>(context.prefill(tokens)); });
    suite.report(what, seconds, rate(static_cast<double>(time), seconds));
  });
}

}  // namespace

void add_decode(Suite& suite) {
  suite.section("Decoding");
  for (const Official& size : official) {
    if (suite.quick() && size.sizes.width > 2048) continue;
    Lazy model(suite.backend(), size.sizes);
    for (const Index batch : {Index{1}, few_batch, many_batch, most_batch}) {
      if (batch == most_batch && size.most == 0) continue;
      for (const Steps steps : {Steps::eager, Steps::recorded, Steps::drawn}) decode(suite, model, size, batch, steps);
    }
    prefill(suite, model, size, 1024);
  }
}

}  // namespace bench
