/// Laws that hold for every model, swept over scalars, backends, threads and awkward sizes.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../configs.hpp"
#include "../golden.hpp"
#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::Scanning;
using config::some_tokens;

namespace {

template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-5;

// One below and one above every vector width, one channel, and a size with no structure.
const ModelSizes awkward[] = {{.vocab = 11, .width = 1, .depth = 1, .head_size = 1},
                              {.vocab = 7, .width = 3, .depth = 2, .head_size = 3, .ffn = 5},
                              {.vocab = 33, .width = 15, .depth = 1, .head_size = 5},
                              {.vocab = 20, .width = 17, .depth = 2, .head_size = 17, .ffn = 31},
                              {.vocab = 9, .width = 64, .depth = 1, .head_size = 16},
                              {.vocab = 70, .width = 77, .depth = 2, .head_size = 7, .ffn = 129},
                              {.vocab = 5, .width = 130, .depth = 1, .head_size = 65}};

template <class V, class C>
void check_steps() {
  using T = typename C::scalar;
  using Net = LanguageModel<V, T, typename C::Backend>;
  for (const auto& sizes : awkward) {
    CAPTURE(sizes.width);
    const auto net = live<Net>(sizes, C::backend());
    const auto tokens = some_tokens(19, sizes.vocab);
    const auto whole = all_logits(net, tokens);
    const auto vocab = static_cast<std::size_t>(sizes.vocab);

    auto stepping = net.context();
    std::vector<T> steps;
    for (const Token token : tokens) {
      const auto logits = stepping.step(token);
      steps.insert(steps.end(), logits.begin(), logits.end());
    }
    CHECK(golden::relative_error(steps, whole) < tolerance<T>);

    for (const std::size_t split : {1u, 2u, 7u, 18u}) {
      auto context = net.context();
      context.prefill(std::span(tokens).first(split));
      const auto logits = context.prefill(std::span(tokens).subspan(split));
      CHECK(golden::relative_error(logits, std::span(whole).last(vocab)) < tolerance<T>);
      CHECK(golden::relative_error(context.state(), stepping.state()) < tolerance<T>);
    }
    for (const Index chunk : {1, 2, 5, 19}) {
      CHECK(golden::relative_error(all_logits(net, tokens, {.chunk = chunk}), whole) < tolerance<T>);
    }
  }
}

template <class V, class C>
void check_batch() {
  using T = typename C::scalar;
  using Net = LanguageModel<V, T, typename C::Backend>;
  for (const auto& sizes : awkward) {
    CAPTURE(sizes.width);
    const auto net = live<Net>(sizes, C::backend());
    const Index batch = 3, time = 9;
    const auto tokens = some_tokens(batch * time, sizes.vocab);
    const auto together = all_logits(net, tokens, {.batch = batch, .chunk = 4});
    auto context = net.context({.batch = batch, .chunk = 4});
    const auto last = context.prefill(tokens);
    const auto numbers = static_cast<std::size_t>(time * sizes.vocab);
    for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b) {
      const auto alone = all_logits(
          net, std::span(tokens).subspan(b * static_cast<std::size_t>(time), static_cast<std::size_t>(time)));
      CHECK(golden::relative_error(std::span(together).subspan(b * numbers, numbers), alone) < tolerance<T>);
      const auto vocab = static_cast<std::size_t>(sizes.vocab);
      CHECK(golden::relative_error(last.subspan(b * vocab, vocab), std::span(alone).last(vocab)) < tolerance<T>);
    }
    const auto after = context.step(some_tokens(batch, sizes.vocab, 6));
    CHECK(after.size() == static_cast<std::size_t>(batch * sizes.vocab));
  }
}

template <class V, class C>
void check_coming_and_going() {
  using T = typename C::scalar;
  using Net = LanguageModel<V, T, typename C::Backend>;
  const auto net = live<Net>(awkward[3], C::backend());
  // The logits after a sequence that runs alone.
  const auto alone = [&](std::span<const Token> tokens) {
    auto context = net.context();
    const auto logits = context.prefill(tokens);
    return std::vector<T>(logits.begin(), logits.end());
  };
  const auto row = [](std::span<const T> logits, std::size_t b) { return logits.subspan(b * 20, 20); };
  auto context = net.context({.batch = 3});
  while (context.batch() > 0) context.remove(0);
  CHECK_THROWS_WITH_AS(context.step(std::span<const Token>()),
                       "rwkv: there is no sequence to run: all have been removed", Error);
  CHECK(context.add() == 0);
  context.step(Token{4});
  CHECK(context.add() == 1);
  context.step(std::vector<Token>{5, 6});
  CHECK(context.add() == 2);
  CHECK_THROWS_WITH_AS(context.add(), "rwkv: the context is full: it holds 3 sequences", Error);
  const std::vector<Token> third{7, 8, 9};
  auto logits = context.step(third);
  CHECK(golden::relative_error(row(logits, 0), alone(std::vector<Token>{4, 5, 7})) < tolerance<T>);
  CHECK(golden::relative_error(row(logits, 1), alone(std::vector<Token>{6, 8})) < tolerance<T>);
  CHECK(golden::relative_error(row(logits, 2), alone(std::vector<Token>{9})) < tolerance<T>);

  const auto state = context.state(2);
  context.remove(0);  // the last takes its place
  logits = context.step(std::vector<Token>{10, 11});
  CHECK(logits.size() == 40);
  CHECK(golden::relative_error(row(logits, 0), alone(std::vector<Token>{9, 10})) < tolerance<T>);
  CHECK(golden::relative_error(row(logits, 1), alone(std::vector<Token>{6, 8, 11})) < tolerance<T>);
  context.restore(1, state, 1);
  logits = context.prefill(std::vector<Token>{1, 2, 10, 12});
  CHECK(golden::relative_error(row(logits, 1), alone(std::vector<Token>{9, 10, 12})) < tolerance<T>);

  CHECK(context.position(0) == 4);
  CHECK(context.position(1) == 3);
  StateRing ring(context, 2);
  const std::vector<Token> next{3, 4};
  std::vector<T> once;
  for (int i = 0; i < 2; ++i) {  // the second time after going back, with the same bits
    logits = context.step(next);
    if (i == 0) once.assign(logits.begin(), logits.end());
    else CHECK(std::equal(logits.begin(), logits.end(), once.begin(), once.end()));
    ring.push();
    context.step(next);
    ring.push();
    ring.back(2);
    CHECK(context.position(0) == 4);
    CHECK(context.position(1) == 3);
  }
  CHECK_THROWS_WITH_AS(context.remove(2), "rwkv: there is no sequence 2 in a context of 2", Error);
  CHECK_THROWS_WITH_AS(context.restore(0, std::span(state).first(3)),
                       doctest::Contains("rwkv: a state of 3 numbers does not fit a sequence whose state has "), Error);
}

}  // namespace

TEST_CASE_TEMPLATE("a sequence equals its steps, split or whole", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_steps<V, C>(); });
}
TEST_CASE_TEMPLATE("a batch equals its sequences", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_batch<V, C>(); });
}
TEST_CASE_TEMPLATE("sequences that come and go leave the others as they are", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_coming_and_going<V, C>(); });
}

TEST_CASE_TEMPLATE("a model behind a handle is the model", C, RWKV_TEST_CONFIGS) {
  using Net = LanguageModel<config::AnyVersion, typename C::scalar, typename C::Backend>;
  const ModelSizes sizes{.vocab = 9, .width = 8, .depth = 1};
  const auto net = live<Net>(sizes, C::backend());
  auto want = net.context({.batch = 2});
  const AnyModel any(live<Net>(sizes, C::backend()));
  CHECK(any.sizes().vocab == 9);
  AnyContext got = any.context({.batch = 2});
  const auto same = [](std::span<const float> a, auto b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](float x, auto y) { return x == static_cast<float>(y); });
  };
  const auto tokens = some_tokens(8, 9);
  CHECK(same(got.prefill(tokens), want.prefill(tokens)));
  AnyContext fork = got.fork();
  const std::vector<Token> next{3, 4};
  CHECK(same(got.step(next), want.step(next)));
  const auto after = got.step(next);
  fork.step(next);
  CHECK(same(fork.step(next), after));
  CHECK(got.batch() == 2);
  CHECK(got.capacity() == 2);
  CHECK(got.vocab() == 9);
  std::vector<float> logits(8 * 9);
  std::vector<typename Net::compute> wanted(logits.size());
  fork.sequence(tokens, logits);
  want.step(next);
  want.sequence(tokens, wanted);
  CHECK(same(logits, wanted));
  const auto second = got.state(1);
  got.remove(0);
  CHECK(got.state(0) == second);
  CHECK(got.add() == 1);
  got.restore(1, second);
  CHECK(got.state(1) == second);
}

#ifndef RWKV_TEST_CUDA
TEST_CASE_TEMPLATE("a scan equals the sequence", T, RWKV_TEST_FLOATS) {
  for (const auto& sizes : awkward) {
    const auto net = live<LanguageModel<config::AnyVersion, T, Cpu>>(sizes, Cpu(2));
    const auto scanning = live<LanguageModel<Scanning, T, Cpu>>(sizes, Cpu(2));
    const auto tokens = some_tokens(300, sizes.vocab);
    const ContextOptions whole{.chunk = 300};  // longer than a chunk of the scan, 128
    CAPTURE(sizes.width);
    CHECK(golden::relative_error(all_logits(scanning, tokens, whole), all_logits(net, tokens, whole)) < tolerance<T>);
  }
}
#endif
