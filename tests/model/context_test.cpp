/// Contexts: values, independence, and errors.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <optional>
#include <thread>

#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

using Net = LanguageModel<config::AnyVersion, float, Cpu>;
const ModelSizes sizes{.vocab = 40, .width = 24, .depth = 2};

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

}  // namespace

TEST_CASE("a fork goes on from the same state, and neither disturbs the other") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context();
  context.prefill(some_tokens(6, 40));
  auto fork = context.fork();
  CHECK(fork.state() == context.state());
  auto alone = net.context();
  alone.prefill(some_tokens(6, 40));
  const auto expected = copy(alone.step(3));
  fork.step(9);
  fork.reset();
  CHECK(copy(context.step(3)) == expected);
  fork.step(5);
  CHECK(copy(context.step(4)) == copy(alone.step(4)));
}

TEST_CASE("a context lets a sampler draw where the logits are") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context({.batch = 2}), plain = net.context({.batch = 2});
  const auto most_likely = [](Cpu&, Mat<const float> logits, Token* tokens) {
    for (Index r = 0; r < logits.rows; ++r) {
      tokens[r] = argmax(std::span(logits.row(r), static_cast<std::size_t>(logits.cols)));
    }
  };
  const auto chosen = [](std::span<const float> logits) {
    return std::vector<Token>{argmax(logits.first(40)), argmax(logits.last(40))};
  };
  const auto none = "rwkv: there are no logits to draw a token from; run a prompt or a step first";
  CHECK_THROWS_WITH_AS(context.draw(most_likely), none, Error);
  auto want = chosen(plain.prefill(some_tokens(6, 40)));
  context.prefill(some_tokens(6, 40));
  auto fork = context.fork();
  auto got = context.draw(most_likely);
  CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  got = fork.draw(most_likely);
  CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  for (int i = 0; i < 3; ++i) {
    got = context.step(want, most_likely);
    want = chosen(plain.step(want));
    CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  }
  CHECK_THROWS_AS(context.step(std::vector<Token>{1}, most_likely), Error);
  CHECK_THROWS_AS(context.step(std::vector<Token>{1, 40}, most_likely), Error);
  CHECK(context.state() == plain.state());
  context.restore(plain.state());
  CHECK_THROWS_WITH_AS(context.draw(most_likely), none, Error);
}

TEST_CASE("a state can be taken and put back") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context({.batch = 2});
  context.prefill(some_tokens(12, 40));
  const auto state = context.state();
  const Token next[] = {1, 2};
  const auto expected = copy(context.step(next));
  context.restore(state);
  CHECK(copy(context.step(next)) == expected);
  auto other = net.context({.batch = 2});
  other.restore(state);
  CHECK(copy(other.step(next)) == expected);
  CHECK_THROWS_WITH_AS(other.restore(std::span(state).first(5)),
                       "rwkv: a state of 5 numbers does not fit a context whose state has 480", Error);
  CHECK(std::ssize(state) == 480);
}

TEST_CASE("a context outlives its model") {
  std::optional<Net> net(live<Net>(sizes, Cpu()));
  auto first = net->context(), context = net->context();
  const auto expected = copy(first.prefill(some_tokens(4, 40)));
  net.reset();
  CHECK(copy(context.prefill(some_tokens(4, 40))) == expected);
}

TEST_CASE("contexts of one model run on several threads at a time") {
  const auto net = live<Net>(sizes, Cpu(2));
  const auto tokens = some_tokens(30, 40);
  auto alone = net.context();
  const auto expected = copy(alone.prefill(tokens));
  std::vector<std::vector<float>> got(4);
  std::vector<std::thread> threads;
  for (auto& logits : got) {
    threads.emplace_back([&] {
      auto context = net.context({.chunk = 4});
      for (int round = 0; round < 20; ++round) {
        context.reset();
        logits = copy(context.prefill(tokens));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& logits : got) CHECK(logits == expected);
}

TEST_CASE("bad input is refused and changes nothing") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context();
  context.prefill(some_tokens(5, 40));
  const auto state = context.state();
  const std::vector<Token> none, outside{3, 40}, negative{-1};
  CHECK_THROWS_WITH_AS(context.prefill(none), "rwkv: there is no token to run: the prompt is empty", Error);
  CHECK_THROWS_WITH_AS(context.prefill(outside), "rwkv: token 40 at position 1 is outside the vocabulary of 40", Error);
  CHECK_THROWS_WITH_AS(context.step(negative), "rwkv: token -1 at position 0 is outside the vocabulary of 40", Error);
  CHECK_THROWS_WITH_AS(context.step(outside),
                       "rwkv: step takes one token for each of the 1 sequences of the context, not 2", Error);
  std::vector<float> small(10);
  CHECK_THROWS_WITH_AS(context.sequence(some_tokens(2, 40), small),
                       "rwkv: the logits of 2 tokens are 80 numbers, the room given is for 10", Error);
  CHECK(context.state() == state);

  auto pair = net.context({.batch = 2});
  CHECK_THROWS_WITH_AS(pair.prefill(some_tokens(3, 40)), "rwkv: 3 tokens do not divide into 2 sequences", Error);
  CHECK_THROWS_AS(pair.step(1), Error);
  CHECK_THROWS_WITH_AS(net.context({.batch = 0}), "rwkv: a context needs a batch above zero, not 0", Error);
  CHECK_THROWS_WITH_AS(net.context({.chunk = -3}), "rwkv: a context needs a chunk above zero, not -3", Error);
}

TEST_CASE("models of impossible sizes are refused") {
  CHECK_THROWS_WITH_AS(Net({.vocab = 0, .width = 4, .depth = 1}), "rwkv: a model needs a vocabulary above zero, not 0",
                       Error);
  CHECK_THROWS_WITH_AS(Net({.vocab = 4, .width = -4, .depth = 1}), "rwkv: a model needs a width above zero, not -4",
                       Error);
  CHECK_THROWS_WITH_AS(Net({.vocab = 4, .width = 4, .depth = 0}),
                       "rwkv: a depth of 0 is no positive multiple of the pattern's 1 layers", Error);
  CHECK_THROWS_WITH_AS(Net({.vocab = 4, .width = 4, .depth = 1, .ffn = -1}),
                       "rwkv: ffn and head size must not be negative: -1 and 0", Error);
  CHECK_THROWS_WITH_AS(Net({.vocab = Index{1} << 40, .width = Index{1} << 40, .depth = 1}),
                       "rwkv: a tensor of shape [1099511627776, 1099511627776] is too large", Error);
  CHECK_THROWS_WITH_AS(Net({.vocab = 4, .width = 4, .depth = 1, .head_size = 3}),
                       "rwkv: a width of 4 does not divide into heads of 3", Error);
}

TEST_CASE("a model without weights makes no context") {
  Net net(sizes);
  const Net taken = std::move(net);
  CHECK_THROWS_WITH_AS(net.context(), "rwkv: the model has no weights: it is unbound, or was moved from", Error);
  CHECK_THROWS_AS(Net::unbound(sizes, Cpu()).context(), Error);
  CHECK_NOTHROW(taken.context());
}

TEST_CASE("a NaN weight reaches the logits and the sampler says so") {
  auto net = live<Net>(sizes, Cpu());
  net.parts.body.parts[0].att.params.key(2, 3) = NAN;
  auto context = net.context();
  const auto logits = context.prefill(some_tokens(3, 40));
  CHECK(std::isnan(logits[0]));
  CHECK_THROWS_AS(argmax(logits), Error);
}
