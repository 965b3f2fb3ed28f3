/// NaN, infinities, denormals and the largest numbers in every parameter and state of a model, and by the biases of norms in
/// every input of its blocks: nothing crashes or hangs, a NaN comes out as a NaN or is an error that names the tensor.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "../train/setup.hpp"
#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;

namespace {

using Limits = std::numeric_limits<float>;
const std::vector<float> poisons{Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity(), Limits::denorm_min(),
                                 -Limits::min() / 2,  Limits::max(),      -Limits::max()};
constexpr ModelSizes sizes{.vocab = 23, .width = 16, .depth = 2, .head_size = 8};
const std::vector<Token> prompt{1, 7, 3, 22, 5, 11, 2, 9, 4, 20};

template <class V>
using NetOf = LanguageModel<V, float, Cpu>;

bool has_nan(std::span<const float> numbers) {
  return std::ranges::any_of(numbers, [](float x) { return is_nan(x); });
}
bool all_finite(std::span<const float> numbers) {
  return std::ranges::all_of(numbers, [](float x) { return is_finite(x); });
}
bool is_tiny(float x) { return std::abs(x) < Limits::min(); }  // false for a NaN

/// The logits of a prompt and of two steps.
template <class C>
std::vector<float> run(C context) {
  std::vector<float> all;
  const auto keep = [&](std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); };
  keep(context.prefill(prompt));
  keep(context.step(3));
  keep(context.step(8));
  return all;
}

/// Calls f(parameter, poison, whole) with poison in the whole of a parameter, in its first number and in its last.
template <class Net, class F>
void each_poison(Net& net, const F& f) {
  for (auto& parameter : net.parameters()) {
    const auto numbers = parameter.numbers();
    const std::vector<float> clean(numbers.begin(), numbers.end());
    for (const float poison : poisons) {
      for (const int where : {0, 1, 2}) {
        if (where == 0) std::ranges::fill(numbers, poison);
        else (where == 1 ? numbers.front() : numbers.back()) = poison;
        CAPTURE(parameter.name);
        CAPTURE(poison);
        f(parameter, poison, where == 0);
        std::ranges::copy(clean, numbers.begin());
      }
    }
  }
}

struct Counts {
  long runs = 0, nan = 0, finite = 0, errors = 0;
};

template <class V>
void check_parameters(int threads) {
  auto net = live<NetOf<V>>(sizes, Cpu(threads));
  const auto clean = run(net.context());
  Counts counts;
  each_poison(net, [&](const TensorSpec& spec, float poison, bool whole) {
    const auto logits = run(net.context({.chunk = 4}));
    ++counts.runs;
    counts.nan += has_nan(logits);
    counts.finite += all_finite(logits);
    if (is_nan(poison) && whole && !spec.unused()) CHECK(has_nan(logits));
    if (is_tiny(poison)) CHECK(all_finite(logits));
  });
  CHECK(run(net.context()) == clean);
  MESSAGE(official_version<V>()->name << ": " << counts.runs << " runs, " << counts.nan << " with NaN, "
                                      << counts.finite << " finite");
}

template <class V>
void check_states() {
  const auto net = live<NetOf<V>>(sizes, Cpu());
  auto context = net.context();
  context.prefill(prompt);
  const auto state = context.state(0);
  std::size_t tensors = 0;
  context.visit_state([&](const std::string&, Mat<float>&) { ++tensors; });
  for (std::size_t nth = 0; nth < tensors; ++nth) {
    for (const float poison : poisons) {
      CAPTURE(poison);
      context.restore(0, state);
      std::size_t at = 0;
      std::string named;
      context.visit_state([&](const std::string& name, Mat<float>& view) {
        if (at++ == nth) std::fill_n(view.data, Index(view.cols), poison), named = name;
      });
      CAPTURE(named);
      const auto poisoned = context.state(0);
      const auto logits = context.step(3);
      if (is_nan(poison)) CHECK(has_nan(logits));
      if (is_tiny(poison)) CHECK(all_finite(logits));
      context.step(4);
      context.restore(0, state);
      if (!is_nan(poison)) continue;
      CHECK_THROWS_WITH_AS(context.restore(0, poisoned), doctest::Contains(named.c_str()), Error);
      CHECK(context.state(0) == state);
    }
  }
}

template <class V>
void check_training() {
  auto net = live<NetOf<V>>(sizes, Cpu());
  TrainerOptions options{.shape = {.batch = 2, .length = 5}, .rate = {.peak = 1e-3, .steps = 9}};
  const TokenData text(prompt);
  Batch batch;
  RandomWindows(text, options.shape, Seed{2}).fill(0, batch);
  Counts counts;
  each_poison(net, [&](const TensorSpec& spec, float poison, bool whole) {
    Trainer<NetOf<V>> trainer(net, options);
    ++counts.runs;
    try {
      trainer.step(batch);
      CHECK_FALSE((is_nan(poison) && whole && !spec.unused()));
      CHECK(is_finite(trainer.gradient_norm()));
    } catch (const Error& error) {
      ++counts.errors;
      const std::string said = error.what();
      CAPTURE(said);
      CHECK(said.starts_with("rwkv: training step 0: the loss is "));
      if (!is_finite(poison)) CHECK(said.find(spec.name + " is the first tensor that is not finite") != said.npos);
      CHECK(trainer.steps() == 0);
      CHECK_FALSE(is_tiny(poison));
    }
  });
  MESSAGE(official_version<V>()->name << ": " << counts.runs << " training steps, " << counts.errors << " errors");
}

}  // namespace

TEST_CASE("poison in a parameter does no harm, and NaN comes out as NaN") {
  config::each_version([]<class V>() { check_parameters<V>(std::is_same_v<V, V7> ? 3 : 1); });
}

TEST_CASE("poison in a state does no harm, and NaN is refused or comes out as NaN") {
  config::each_version([]<class V>() { check_states<V>(); });
}

TEST_CASE("poison in a parameter is an error of a training step, or trains") {
  config::each_version([]<class V>() { check_training<V>(); });
}

TEST_CASE("quantised products take poison") {
  const config::TemporaryPath path("rwkv_poisoned_quantised.safetensors");
  auto net = live<NetOf<V7>>({.vocab = 23, .width = 64, .depth = 2, .head_size = 16}, Cpu());
  for (const DType type : {DType::q8_0, DType::q4_1}) {
    for (auto& parameter : net.parameters()) {
      if (parameter.name.find(".bias") == std::string::npos) continue;
      for (const float poison : poisons) {
        const std::vector<float> clean(parameter.numbers().begin(), parameter.numbers().end());
        std::ranges::fill(parameter.numbers(), poison);
        save_quantised(net, path, {.matrices = type, .embedding = type, .head = type});
        const AnyModel quantised = load_model(path, Cpu(), {.check_values = false});
        CAPTURE(parameter.name);
        CAPTURE(poison);
        const auto logits = run(quantised.context());
        if (is_nan(poison)) CHECK(has_nan(logits));
        if (is_tiny(poison)) CHECK(all_finite(logits));
        std::ranges::copy(clean, parameter.numbers().begin());
      }
    }
  }
}

TEST_CASE("validate names every tensor that is not finite, and where") {
  auto net = live<NetOf<V7>>(sizes, Cpu());
  validate(net);
  auto parameters = net.parameters();
  parameters[3].numbers()[5] = Limits::quiet_NaN();
  parameters[7].numbers().back() = -Limits::infinity();
  const std::string sentence =
      join("rwkv: 2 tensors of the model are not finite:\n  ", parameters[3].name, ": element 5 is nan\n  ",
           parameters[7].name, ": element ", parameters[7].numbers().size() - 1, " is -inf");
  CHECK_THROWS_WITH_AS(validate(net), sentence.c_str(), Error);
  for (auto& parameter : parameters) std::ranges::fill(parameter.numbers(), Limits::denorm_min());
  validate(net);
}
