/// Tokens of RWKV-4 in official sizes, random weights in bf16: what a program sees, with the logits on the host, kernel
/// by kernel and replayed from a recording. And the prompt.
#include <chrono>
#include <optional>

#include "rwkv/block/channel_mix_v4.hpp"
#include "rwkv/block/time_mix_v4.hpp"
#include "rwkv/model/model.hpp"
#include "suite.cuh"

namespace bench {

namespace {

using rwkv::Token;
using Net = rwkv::LanguageModel<rwkv::V4, rwkv::bf16, Cuda>;

struct Official {
  const char* name;
  rwkv::ModelSizes sizes;
  double one, many;  ///< goals for a sequence alone and for 64, as shares of the floor; 0: none
};
constexpr Official official[] = {{"169M", {.vocab = 50277, .width = 768, .depth = 12}, 0.38, 0},
                                 {"1B5", {.vocab = 50277, .width = 2048, .depth = 24}, 0.78, 0},
                                 {"7B", {.vocab = 50277, .width = 4096, .depth = 32}, 0.88, 0.70}};

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

/// Kernels of one step, counted in a recording of the same calls that a context makes.
Index kernels_of_step(const Net& net, Index batch) {
  Cuda be = net.device().independent();
  auto parts = net.parts;
  rwkv::BodyState<decltype(parts.body)> state(be, parts.body, batch);
  parts.body.reset(be, state.views);
  rwkv::Exchange<Token, Cuda> tokens(be, static_cast<std::size_t>(batch));
  const auto step = [&](rwkv::Arena ws) {
    const rwkv::Seq<float> x{ws.take<float>(batch * net.sizes().width), batch, 1, net.sizes().width};
    const rwkv::Seq<float> logits{ws.take<float>(batch * net.sizes().vocab), batch, 1, net.sizes().vocab};
    parts.embedding.forward(be, tokens.numbers(), x);
    parts.body.forward(be, ws, x, state.views, x);
    parts.head.forward(be, ws, x, logits);
  };
  const auto scratch = scratch_for(be, step);
  return Graph(be.stream(), [&] { step(scratch.arena()); }).kernels();
}

/// Seconds of advance() on the host's clock, by the median of repetitions that each take some milliseconds.
template <class Advance>
std::vector<double> host_seconds_of(const Advance& advance) {
  using Clock = std::chrono::steady_clock;
  const auto time = [&](Index rounds) {
    const auto begin = Clock::now();
    for (Index i = 0; i < rounds; ++i) advance();
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(rounds);
  };
  time(3);
  const auto rounds = std::clamp<Index>(static_cast<Index>(5e-3 / time(2)), 1, 50);
  std::vector<double> seconds;
  for (int r = 0; r < Suite::repeats; ++r) seconds.push_back(time(rounds));
  return seconds;
}

std::string rate(double tokens, const std::vector<double>& seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "%.0f tokens/s", tokens / median(seconds));
  return text;
}

/// A model that is made when the first of its rows is wanted.
class Lazy {
 public:
  Lazy(Cuda be, const rwkv::ModelSizes& sizes) : backend_(std::move(be)), sizes_(sizes) {}

  const Net& operator()() {
    if (!net_) fill_parameters(net_.emplace(sizes_, backend_));
    return *net_;
  }

 private:
  Cuda backend_;
  rwkv::ModelSizes sizes_;
  std::optional<Net> net_;
};

void decode(Suite& suite, Lazy& model, const Official& size, Index batch, bool record) {
  Case what{record ? "decode, recorded" : "decode, eager", std::string(size.name) + " B" + std::to_string(batch),
            "bf16"};
  suite.run(what, [&] {
    const Net& net = model();
    auto context = net.context({.batch = batch, .chunk = 1, .record = record});
    what.work = work_of_step(net, batch, static_cast<double>(context.state_bytes()));
    const double part = batch == 1 ? size.one : size.many;
    if (record && part > 0) what.goal = share(part);
    std::vector<Token> tokens(static_cast<std::size_t>(batch));
    const auto seconds = host_seconds_of([&] {
      for (std::size_t b = 0; b < tokens.size(); ++b) {
        tokens[b] = static_cast<Token>((tokens[b] + 7919 + static_cast<Token>(b)) % size.sizes.vocab);
      }
      static_cast<void>(context.step(tokens));
    });
    const Index kernels = kernels_of_step(net, batch), most = 5 * size.sizes.depth + 3;
    suite.report(what, seconds,
                 rwkv::join(rate(static_cast<double>(batch), seconds), "; ", kernels, " kernels of at most ", most));
  });
}

void prefill(Suite& suite, Lazy& model, const Official& size, Index time) {
  Case what{"prefill", std::string(size.name) + " T" + std::to_string(time), "bf16"};
  suite.run(what, [&] {
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
    for (const Index batch : {1, 64}) {
      for (const bool record : {false, true}) decode(suite, model, size, batch, record);
    }
    prefill(suite, model, size, 1024);
  }
}

}  // namespace bench
