/// The layers of a prompt, and of the forward pass of training, as a cascade, beside one after the other: medians of
/// interleaved rounds, as Markdown tables.
///
///     bench_cascade [THREADS] [TOKENS] [ROUNDS]
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "../limits.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;
using rwkv::LayerOrder;

struct Ask {
  int threads = 2;
  Index tokens = 512;
  int rounds = 21;
};

/// A model of random weights.
template <class V>
auto random_model(Index width, Index depth, int threads) {
  rwkv::LanguageModel<V, float, Cpu> net({.vocab = 256, .width = width, .depth = depth, .head_size = 32}, Cpu(threads));
  bench::FillParameters fill;
  for (auto& parameter : net.parameters()) fill(parameter, parameter);
  return net;
}
/// The same weights on other threads. It must not outlive the model.
template <class Net>
Net on_threads(Net& net, int threads) {
  Net other = Net::unbound(net.sizes(), Cpu(threads));
  other.parts = net.parts;
  other.adopt(std::shared_ptr<const void>(&net, [](const void*) {}));
  return other;
}

/// Medians of interleaved rounds, of run(0), run(1), ... each after prepare() of the same.
template <std::size_t Count, class Prepare, class Run>
std::array<double, Count> medians(int rounds, const Prepare& prepare, const Run& run) {
  std::array<std::vector<double>, Count> times;
  for (int round = 0; round <= rounds; ++round) {
    for (std::size_t i = 0; i < Count; ++i) {
      prepare(i);
      const auto start = bench::Clock::now();
      run(i);
      if (round > 0) times[i].push_back(bench::seconds_since(start));
    }
  }
  std::array<double, Count> seconds;
  for (std::size_t i = 0; i < Count; ++i) seconds[i] = bench::median(times[i]);
  return seconds;
}

/// A row of a table: one layer after the other on one thread and on all, as a cascade on all, and what would be best: L
/// layers of K tiles have L K tiles, of which L + K - 1 come one after the other, and threads are not more than they are.
void print(const char* version, Index width, Index depth, Index tiles, const Ask& ask,
           const std::array<double, 3>& seconds) {
  const auto [one, split, cascade] = seconds;
  const double ideal = static_cast<double>(depth * tiles) / static_cast<double>(depth + tiles - 1);
  std::printf("| %s | %d | %d | %d | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", version,
              static_cast<int>(width), static_cast<int>(depth), ask.threads, 1e3 * one, 1e3 * split, 1e3 * cascade,
              one / split, one / cascade, split / cascade, std::min<double>(ask.threads, ideal));
  std::fflush(stdout);
}

template <class V>
void prompt(const char* version, Index width, Index depth, const Ask& ask) {
  auto net = random_model<V>(width, depth, ask.threads);
  const auto alone = on_threads(net, 1);
  rwkv::Context<decltype(net)> contexts[] = {alone.context({.order = LayerOrder::one_by_one}),
                                             net.context({.order = LayerOrder::one_by_one}),
                                             net.context({.order = LayerOrder::cascade})};
  std::vector<rwkv::Token> tokens;
  for (Index t = 0; t < ask.tokens; ++t) tokens.push_back(static_cast<rwkv::Token>(t * 97 % 256));
  const auto seconds = medians<3>(
      ask.rounds, [&](std::size_t i) { contexts[i].reset(); }, [&](std::size_t i) { contexts[i].prefill(tokens); });
  const Index chunk = std::min<Index>(ask.tokens, rwkv::ContextOptions{}.chunk);
  const Index tile = rwkv::cascade_tile_tokens(chunk, ask.threads);
  print(version, width, depth, (chunk + tile - 1) / tile, ask, seconds);
}

/// The forward pass of training through the layers of a model; as a cascade unless the tile is 0.
template <class Net>
class TrainingPass {
  using Body = decltype(Net::Parts::body);

 public:
  TrainingPass(const Net& net, Index batch, Index time, Index tile)
      : body_(net.parts.body), be_(net.device()), workers_(rwkv::cascade_workers(be_)), batch_(batch), time_(time),
        tile_(tile), tokens_(static_cast<std::size_t>(batch * time)), state_(be_, body_, batch),
        tape_(rwkv::make_tape<rwkv::Keep>(body_)),
        x_(bench::uniform<float>(batch * time * net.sizes().width, -1, 1, 3)), y_(x_.size()) {
    memory_ = rwkv::scratch_for(be_, [&](rwkv::Arena ws) { pass(ws); });
    reset();
  }
  void reset() { body_.reset(be_, state_.views); }
  void run() { pass(memory_.arena()); }

 private:
  void pass(rwkv::Arena ws) {
    const Index width = std::ssize(x_) / (batch_ * time_);
    const rwkv::Seq<float> x{x_.data(), batch_, time_, width}, y{y_.data(), batch_, time_, width};
    const std::span<const rwkv::Token> tokens(tokens_);
    if (tile_ == 0) rwkv::forward_of_tokens(body_, be_, ws, tokens, x, state_.views, y, tape_);
    else
      rwkv::forward_in_cascade<rwkv::Keep>(body_, be_, std::span(workers_), ws, tokens, x, tile_, state_.views, y,
                                           tape_);
  }

  Body body_;
  Cpu be_;
  std::vector<Cpu> workers_;
  Index batch_, time_, tile_;
  std::vector<rwkv::Token> tokens_;
  rwkv::BodyState<Body> state_;
  rwkv::tape_t<Body, rwkv::Keep> tape_;
  std::vector<float> x_, y_;
  rwkv::Memory<Cpu> memory_;
};

template <class V>
void training(const char* version, Index width, Index depth, Index batch, const Ask& ask) {
  auto net = random_model<V>(width, depth, ask.threads);
  const auto alone = on_threads(net, 1);
  const Index time = std::max<Index>(1, ask.tokens / batch);
  const Index tile = rwkv::cascade_tile_tokens(batch, time, ask.threads);
  TrainingPass<decltype(net)> passes[] = {{alone, batch, time, 0}, {net, batch, time, 0}, {net, batch, time, tile}};
  const auto seconds = medians<3>(
      ask.rounds, [&](std::size_t i) { passes[i].reset(); }, [&](std::size_t i) { passes[i].run(); });
  print(version, width, depth, batch * ((time + tile - 1) / tile), ask, seconds);
}

}  // namespace

int main(int argc, char** argv) {
  Ask ask;
  if (argc > 1) ask.threads = std::max(1, std::atoi(argv[1]));
  if (argc > 2) ask.tokens = std::max(1, std::atoi(argv[2]));
  if (argc > 3) ask.rounds = std::max(1, std::atoi(argv[3]));
  const auto head = [&](const char* what) {
    std::printf("\n%s, %d tokens, medians of %d interleaved rounds\n\n", what, static_cast<int>(ask.tokens),
                ask.rounds);
    std::printf(
        "| version | width | layers | threads | 1 thread, ms | one by one, ms | cascade, ms | 1 thread to one by one | "
        "1 thread to cascade | one by one to cascade | ideal |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  };
  head("prompt");
  for (const Index width : {32, 64, 96, 128, 256, 512}) {
    prompt<rwkv::V4>("4", width, 12, ask);
    prompt<rwkv::V7>("7", width, 12, ask);
  }
  for (const Index batch : {1, 8}) {
    head(batch == 1 ? "training, forward pass, one sequence" : "training, forward pass, 8 sequences");
    for (const Index width : {32, 64, 96, 128, 256, 512}) {
      training<rwkv::V4>("4", width, 12, batch, ask);
      training<rwkv::V7>("7", width, 12, batch, ask);
    }
  }
}
