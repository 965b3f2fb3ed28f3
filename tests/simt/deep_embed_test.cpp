/// A model of RWKV-7a on the CUDA backend. Oracle: the model in double.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/live_weights.hpp>
#include <rwkv/cuda.cuh>
#include <rwkv/train/gradient.hpp>

#include <vector>

#include "../configs.hpp"
#include "../numbers.hpp"

using namespace rwkv;

namespace {

constexpr ModelSizes sizes{.vocab = 23, .width = 24, .depth = 2, .head_size = 8, .ffn = 40};

/// A model with live weights.
template <class T, class B>
auto model() {
  LanguageModel<V7a, T, B> net(sizes);
  live_weights(net, 3);
  return net;
}

const std::vector<Token> text{3, 22, 0, 7, 7, 11, 3, 19};

}  // namespace

TEST_CASE("simt: RWKV-7a reads a prompt and steps on as in double") {
  const auto net = model<float, Cuda>();
  const auto exact = model<double, Reference>();
  auto context = net.context({.batch = 2, .chunk = 3});
  auto wanted = exact.context({.batch = 2});
  CHECK(golden::relative_error(context.prefill(text), wanted.prefill(text)) < 1e-4);
  for (const Token token : {5, 9}) {
    const Token tokens[] = {token, 1};
    CHECK(golden::relative_error(context.step(tokens), wanted.step(tokens)) < 1e-4);
  }
}

TEST_CASE("simt: the gradient of RWKV-7a is that in double") {
  auto net = model<float, Cuda>();
  auto exact = model<double, Reference>();
  const GradientOptions options{.batch = 2, .length = 4};
  const std::vector<Token> targets(text.rbegin(), text.rend());
  Gradient<LanguageModel<V7a, float, Cuda>> gradient(net, options);
  Gradient<LanguageModel<V7a, double, Reference>> wanted(exact, options);
  gradient.add(text, targets);
  wanted.add(text, targets);
  for (std::size_t i = 0; i < wanted.parameters().size(); ++i) {
    CAPTURE(wanted.parameters()[i].name);
    const auto numbers = config::read(net.device(), gradient.parameters()[i].gradient);
    CHECK(golden::relative_error(numbers, wanted.parameters()[i].gradient) < 1e-3);
  }
}
