/// Laws of the gradient of a model, for any batch, memory policy and frozen parameters.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

#include <map>
#include <string>

#include "../configs.hpp"
#include "../model/live.hpp"
#include "../numbers.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

template <class T>
using Gradients = std::map<std::string, std::vector<T>>;

/// The gradient of every parameter by name, and of the state as "state".
template <class Net, class P>
auto gradients_of(const Net& net, const Gradient<Net, P>& gradient) {
  using T = typename Net::compute;
  Gradients<T> all;
  for (const auto& parameter : gradient.parameters()) {
    all[parameter.name] = config::read(net.device(), parameter.gradient);
  }
  const Mat<T> state = gradient.state_gradient().numbers();
  all["state"] = config::read(net.device(), std::span(state.data, static_cast<std::size_t>(Index(state.cols))));
  return all;
}

template <class T>
double difference(const Gradients<T>& got, const Gradients<T>& want) {
  double worst = got.size() == want.size() ? 0 : INFINITY;
  for (const auto& [name, numbers] : want) {
    worst = std::max(worst, golden::relative_error(got.at(name), numbers));
  }
  return worst;
}

/// Targets, some of them missing.
std::vector<Token> some_targets(Index count, Index vocab) {
  auto targets = some_tokens(count, vocab, 9);
  for (std::size_t i = 2; i < targets.size(); i += 5) targets[i] = no_target;
  return targets;
}

template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-11 : 2e-5;

const ModelSizes sizes{.vocab = 33, .width = 20, .depth = 2, .head_size = 5, .ffn = 31};

template <class V, class C>
void check_batch() {
  using T = typename C::scalar;
  using Net = LanguageModel<V, T, typename C::Backend>;
  auto net = live<Net>(sizes, C::backend());
  const Index batch = 3, length = 11;
  const auto tokens = some_tokens(batch * length, sizes.vocab);
  const auto targets = some_targets(batch * length, sizes.vocab);
  Gradient<Net> together(net, {.batch = batch, .length = length, .head_chunk = 7});
  Gradient<Net> alone(net, {.batch = 1, .length = length});
  const double loss = together.add(tokens, targets);
  auto want = gradients_of(net, together);

  double mean = 0;
  for (std::size_t b = 0; b < 3; ++b) {
    const auto part = [&](const std::vector<Token>& all) { return std::span(all).subspan(b * 11, 11); };
    const auto counted = [](std::span<const Token> some) {
      return static_cast<double>(std::count_if(some.begin(), some.end(), [](Token t) { return t != no_target; }));
    };
    const double share = counted(part(targets)) / counted(targets);
    alone.reset_state();
    mean += share * alone.add(part(tokens), part(targets), share);
  }
  auto got = gradients_of(net, alone);
  got.erase("state");
  want.erase("state");
  CHECK(loss == doctest::Approx(mean).epsilon(1e-6));
  CHECK(difference(got, want) < tolerance<T>);
}

}  // namespace

TEST_CASE_TEMPLATE("the gradient of a batch is that of its sequences", C, RWKV_TEST_CONFIGS) {
  // In float the CPU differs from double by rounding alone.
  if constexpr (std::is_same_v<typename C::scalar, float> && std::is_same_v<typename C::Backend, Cpu>) {
    check_batch<config::AnyVersion, C>();
  } else {
    config::each_version_in<C>([&]<class V>() { check_batch<V, C>(); });
  }
}

TEST_CASE_TEMPLATE("a position without target neither counts nor passes anything back", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  using Net = LanguageModel<config::AnyVersion, T, typename C::Backend>;
  auto net = live<Net>(sizes, C::backend());
  const auto tokens = some_tokens(12, sizes.vocab);
  auto targets = some_tokens(12, sizes.vocab, 9);
  std::fill(targets.begin() + 7, targets.end(), no_target);
  // Tokens without targets at the end of a sequence have no effect.
  Gradient<Net> masked(net, {.batch = 1, .length = 12}), shorter(net, {.batch = 1, .length = 7});
  const double loss = masked.add(tokens, targets);
  CHECK(loss == doctest::Approx(shorter.add(std::span(tokens).first(7), std::span(targets).first(7))).epsilon(1e-6));
  CHECK(difference(gradients_of(net, masked), gradients_of(net, shorter)) < tolerance<T>);
  targets.assign(12, no_target);
  CHECK_THROWS_WITH_AS(masked.add(tokens, targets), "rwkv: no position of the batch has a target", Error);
}

#ifndef RWKV_TEST_CUDA
TEST_CASE("a position without target passes nothing to the head either") {
  using Net = LanguageModel<config::AnyVersion, double, Reference>;
  auto net = live<Net>(sizes, Reference());
  Gradient<Net> gradient(net, {.batch = 1, .length = 3, .l2_wrap = true});
  const std::vector<Token> targets{no_target, 5, no_target};
  const auto tokens = some_tokens(3, sizes.vocab);
  gradient.add(tokens, targets);
  const auto both = gradients_of(net, gradient);
  Gradient<Net> one(net, {.batch = 1, .length = 2, .l2_wrap = true});
  one.add(std::span(tokens).first(2), std::span(targets).first(2));
  CHECK(difference(both, gradients_of(net, one)) < 1e-13);
}
#endif
