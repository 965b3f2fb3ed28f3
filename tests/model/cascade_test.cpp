/// The layers of a prompt as a cascade: the bits of one layer after the other, on any number of threads.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <vector>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

struct Result {
  std::vector<float> logits, state;
  bool operator==(const Result&) const = default;
};

/// Reads a prompt of `batch` sequences in two calls, so that the second starts from a state.
template <class Net>
Result read_prompt(const Net& net, Index batch, Index time, LayerOrder order) {
  const Index vocab = net.sizes().vocab;
  const auto tokens = some_tokens(batch * time, vocab);
  auto context = net.context({.batch = batch, .chunk = 100, .order = order});
  Result result;
  result.logits.resize(tokens.size() * static_cast<std::size_t>(vocab));
  context.sequence(tokens, result.logits);
  const auto last = context.prefill(tokens);
  result.logits.insert(result.logits.end(), last.begin(), last.end());
  result.state = context.state();
  return result;
}

}  // namespace

TEST_CASE("on threads, a cascade of layers has the bits of one layer after the other") {
  config::each_version([&]<class V>() {
    using Net = LanguageModel<V, float, Cpu>;
    for (const Index depth : {1, 4, 7}) {
      const ModelSizes sizes{.vocab = 37, .width = 24, .depth = depth, .head_size = 8};
      const auto one = live<Net>(sizes, Cpu(1));
      for (const Index batch : {1, 3}) {
        for (const Index time : {1, 2, 8, 33, 100, 239}) {
          CAPTURE(depth);
          CAPTURE(batch);
          CAPTURE(time);
          const auto expected = read_prompt(one, batch, time, LayerOrder::one_by_one);
          for (const int threads : {1, 2, 3, 5}) {
            CAPTURE(threads);
            CHECK(read_prompt(live<Net>(sizes, Cpu(threads)), batch, time, LayerOrder::cascade) == expected);
          }
        }
      }
    }
  });
}

TEST_CASE("the order that a context chooses itself has the same bits") {
  using Net = LanguageModel<config::AnyVersion, float, Cpu>;
  const ModelSizes sizes{.vocab = 37, .width = 24, .depth = 3};
  const auto expected = read_prompt(live<Net>(sizes, Cpu(1)), 2, 150, LayerOrder::automatic);
  for (const int threads : {2, 3})
    CHECK(read_prompt(live<Net>(sizes, Cpu(threads)), 2, 150, LayerOrder::automatic) == expected);
}

TEST_CASE("a model whose layers a backend cannot run side by side reads a prompt all the same") {
  using Net = LanguageModel<config::AnyVersion, double, Reference>;
  const ModelSizes sizes{.vocab = 37, .width = 24, .depth = 3};
  const auto net = live<Net>(sizes, Reference());
  const auto tokens = some_tokens(80, sizes.vocab);
  CHECK(config::all_logits(net, tokens, {.order = LayerOrder::cascade}) == config::all_logits(net, tokens));
}
