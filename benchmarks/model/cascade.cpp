/// The layers of a prompt as a cascade, beside one after the other: medians of interleaved rounds, as a Markdown table.
///
///     bench_cascade [THREADS] [TOKENS] [ROUNDS]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
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

/// Seconds of a prompt: one layer after the other on one thread and on all, and as a cascade on all.
template <class V>
void row(const char* version, Index width, Index depth, const Ask& ask) {
  using Net = rwkv::LanguageModel<V, float, Cpu>;
  Net net({.vocab = 256, .width = width, .depth = depth, .head_size = 32}, Cpu(ask.threads));
  bench::FillParameters fill;
  for (auto& parameter : net.parameters()) fill(parameter, parameter);
  Net alone = Net::unbound(net.sizes(), Cpu(1));
  alone.parts = net.parts;
  alone.adopt(std::shared_ptr<const void>(&net, [](const void*) {}));

  rwkv::Context<Net> contexts[] = {alone.context({.order = LayerOrder::one_by_one}),
                                   net.context({.order = LayerOrder::one_by_one}),
                                   net.context({.order = LayerOrder::cascade})};
  std::vector<rwkv::Token> tokens;
  for (Index t = 0; t < ask.tokens; ++t) tokens.push_back(static_cast<rwkv::Token>(t * 97 % 256));
  std::vector<double> times[std::size(contexts)];
  for (int round = 0; round <= ask.rounds; ++round) {
    for (std::size_t i = 0; i < std::size(contexts); ++i) {
      contexts[i].reset();
      const auto start = bench::Clock::now();
      contexts[i].prefill(tokens);
      if (round > 0) times[i].push_back(bench::seconds_since(start));
    }
  }
  const double one = bench::median(times[0]), split = bench::median(times[1]), cascade = bench::median(times[2]);
  const Index chunk = std::min<Index>(ask.tokens, rwkv::ContextOptions{}.chunk);
  const Index tile = rwkv::cascade_tile_tokens(chunk, ask.threads), tiles = (chunk + tile - 1) / tile;
  std::printf("| %s | %d | %d | %d | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", version, static_cast<int>(width),
              static_cast<int>(depth), ask.threads, 1e3 * one, 1e3 * split, 1e3 * cascade, one / cascade,
              split / cascade, static_cast<double>(depth * tiles) / static_cast<double>(depth + tiles - 1));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Ask ask;
  if (argc > 1) ask.threads = std::max(1, std::atoi(argv[1]));
  if (argc > 2) ask.tokens = std::max(1, std::atoi(argv[2]));
  if (argc > 3) ask.rounds = std::max(1, std::atoi(argv[3]));
  std::printf("%d tokens, medians of %d interleaved rounds\n\n", static_cast<int>(ask.tokens), ask.rounds);
  std::printf(
      "| version | width | layers | threads | 1 thread, ms | one by one, ms | cascade, ms | to 1 thread | "
      "to one by one | ideal with enough threads |\n| --- |%s\n",
      " --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const Index width : {32, 64, 96, 128, 256, 512}) {
    row<rwkv::V4>("4", width, 12, ask);
    row<rwkv::V7>("7", width, 12, ask);
  }
}
