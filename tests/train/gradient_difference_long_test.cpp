/// Oracle: central differences of the loss in double.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>
#include <rwkv/train/gradient.hpp>

#include <cmath>

#include "../model/live.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 13, .width = 9, .depth = 2, .head_size = 3, .ffn = 11, .ranks = config::small_ranks};
const Index batch = 2, length = 9;

/// A model in the middle of a text, and the loss on the rest as a function of parameters and state.
template <class Net>
struct Loss {
  Net net = config::live<Net>(sizes, {});
  Gradient<Net> gradient{net, {.batch = batch, .length = length, .head_chunk = 5}};
  std::vector<Token> tokens = some_tokens(batch * length, sizes.vocab, 6);
  std::vector<Token> targets = some_tokens(batch * length, sizes.vocab, 7);
  std::vector<double> state;                // before those tokens
  std::vector<std::vector<double>> slopes;  // of the loss in each parameter
  std::vector<double> state_slopes;

  Loss() {
    targets[3] = targets[11] = no_target;
    gradient.add(some_tokens(batch * length, sizes.vocab, 5), targets);
    const auto numbers = gradient.state().numbers();
    state.assign(numbers.data, numbers.data + numbers.cols);
    gradient.clear();
    (*this)();
    for (const auto& parameter : gradient.parameters()) {
      slopes.emplace_back(parameter.gradient.begin(), parameter.gradient.end());
    }
    const auto of_state = gradient.state_gradient().numbers();
    state_slopes.assign(of_state.data, of_state.data + of_state.cols);
  }
  double operator()() {
    std::copy(state.begin(), state.end(), gradient.state().numbers().data);
    return gradient.add(tokens, targets);
  }

  /// How far the numerical derivative of the loss in a random direction of `numbers` is from the derivative by
  /// gradients.
  double defect(std::span<double> numbers, std::span<const double> along, std::uint64_t stream) {
    const std::vector<double> at(numbers.begin(), numbers.end());
    std::vector<double> u;
    double expected = 0, size = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      u.push_back(2 * Philox{.key = 3, .stream = stream}.block(i).uniform_double(0) - 1);
      expected += along[i] * u[i];
      size += std::abs(along[i] * u[i]);
    }
    const auto loss_at = [&](double h) {
      for (std::size_t i = 0; i < at.size(); ++i) numbers[i] = at[i] + h * u[i];
      const double value = (*this)();
      std::copy(at.begin(), at.end(), numbers.begin());
      return value;
    };
    // Fourth-order differences. With steps this small, activations rarely cross the kink of the relu.
    const double h = 1e-4;
    const double slope = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
    return std::abs(slope - expected) / size;
  }
};

template <class V>
void check_parameters() {
  CAPTURE(config::Goldens<V>::models);
  Loss<LanguageModel<V, double, Reference>> loss;
  std::uint64_t stream = 0;
  for (const auto& parameter : loss.gradient.parameters()) {
    CAPTURE(parameter.name);
    CHECK(loss.defect(parameter.values, loss.slopes[stream], stream) < 1e-7);
    ++stream;
  }
}

template <class V>
void check_state() {
  CAPTURE(config::Goldens<V>::models);
  Loss<LanguageModel<V, double, Reference>> loss;
  const double* const begin = loss.gradient.state().numbers().data;
  std::uint64_t stream = 100;
  const auto check = [&](Mat<double> view) {
    for (Index b = 0; b < batch; ++b) {
      const auto place = static_cast<std::size_t>(view.row(b) - begin);
      const auto count = static_cast<std::size_t>(Index(view.cols));
      CHECK(loss.defect(std::span(loss.state).subspan(place, count), std::span(loss.state_slopes).subspan(place, count),
                        stream++) < 1e-7);
    }
  };
  for (auto& layer : loss.gradient.state().views) {
    check(layer.att.shift);
    if constexpr (requires { layer.att.wkv.component(0); }) {
      for (Index n = 0; n < 3; ++n) {
        CAPTURE(n);
        check(layer.att.wkv.component(n));
      }
    } else {
      check(layer.att.wkv.numbers);
    }
    check(layer.ffn.shift);
  }
}

}  // namespace

TEST_CASE("the gradient of every parameter is the slope of the loss") {
  config::each_version([&]<class V>() { check_parameters<V>(); });
}
TEST_CASE("the gradient of the initial state is the slope of the loss") {
  config::each_version([&]<class V>() { check_state<V>(); });
}
