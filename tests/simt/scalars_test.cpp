/// Models on the CUDA backend in the number types of their weights; f16 runs in as_stored_test.cpp.
#include <doctest/doctest.h>

#include <rwkv/cuda.cuh>

#include <algorithm>

#include "../model/live.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

constexpr ModelSizes sizes{.vocab = 31, .width = 24, .depth = 2, .ffn = 40};

}  // namespace

TEST_CASE_TEMPLATE("simt: a recorded step has the bits of an eager one", S, float, bf16) {
  using Model = LanguageModel<config::AnyVersion, S, Cuda>;
  const auto net = live<Model>(sizes, Cuda());
  for (const Index batch : {1, 2, 11}) {
    auto recorded = net.context({.batch = batch}), eager = net.context({.batch = batch, .record = false});
    for (int i = 0; i < 4; ++i) {
      const auto tokens = some_tokens(batch, sizes.vocab, static_cast<std::uint64_t>(i));
      const auto want = eager.step(tokens), got = recorded.step(tokens);
      CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
    }
    CHECK(recorded.state() == eager.state());
  }
}

TEST_CASE_TEMPLATE("simt: weights in 16 bits give the digits of the same weights in double", S, bf16) {
  const auto net = live<LanguageModel<config::AnyVersion, S, Cuda>>(sizes, Cuda());
  auto exact = live<LanguageModel<config::AnyVersion, double, Reference>>(sizes, Reference());
  for (auto& parameter : exact.parameters()) {
    for (double& x : parameter.numbers()) x = widen<double>(narrow<S>(x));
  }
  const auto tokens = some_tokens(40, sizes.vocab);
  const auto want = config::all_logits(exact, tokens);
  CHECK(golden::relative_error(config::all_logits(net, tokens), want) < 5e-5);
  CHECK(golden::relative_error(config::all_logits(net, tokens, {.chunk = 1}), want) < 5e-5);
}
