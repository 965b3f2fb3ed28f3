// Initial weights: orthogonal matrices, the curves over channels and layers; a seed gives the same numbers for every
// scalar and backend.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../instances.hpp"

using namespace rwkv;

namespace {

doctest::Approx near(double value) { return doctest::Approx(value).epsilon(1e-14); }

std::vector<double> numbers_of(const TensorSpec& spec, Index depth, std::uint64_t seed = 1) {
  std::vector<double> numbers(static_cast<std::size_t>(spec.shape.count()), 1e9);
  initial_numbers(spec, depth, Seed{seed}, numbers);
  return numbers;
}

template <class Entry>
TensorSpec matrix_spec(Index rows, Index cols, const Entry& entry) {
  ParameterTraits traits;
  entry(traits);
  return {traits, "w", {.sizes = {rows, cols}, .rank = 2}};
}

template <class Entry>
TensorSpec vector_spec(Index size, const Entry& entry, Index layer) {
  ParameterTraits traits;
  entry(traits);
  TensorSpec spec(traits, "v", {.sizes = {size}, .rank = 1});
  spec.layer = layer;
  return spec;
}

/// max |W W^T - gain^2| over the rows, or over the columns where those are fewer, in units of gain^2.
double defect(const std::vector<double>& w, Index rows, Index cols, double gain) {
  const bool by_rows = rows <= cols;
  const Index count = by_rows ? rows : cols, size = by_rows ? cols : rows;
  const auto at = [&](Index vector, Index i) {
    return w[static_cast<std::size_t>(by_rows ? vector * cols + i : i * cols + vector)];
  };
  double worst = 0;
  for (Index a = 0; a < count; ++a) {
    for (Index b = 0; b <= a; ++b) {
      double sum = 0;
      for (Index i = 0; i < size; ++i) sum += at(a, i) * at(b, i);
      worst = std::max(worst, std::abs(sum / (gain * gain) - (a == b ? 1 : 0)));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("initialize: matrices are orthogonal in either direction, with their gain") {
  const std::pair<Index, Index> shapes[] = {{1, 1},   {1, 7},   {7, 1},   {2, 2},    {3, 2},    {8, 8},   {9, 9},
                                            {16, 17}, {17, 16}, {64, 64}, {200, 33}, {33, 200}, {129, 65}};
  for (const auto& shape : shapes) {
    const Index rows = shape.first, cols = shape.second;
    for (const double gain : {1.0, 0.1}) {
      CAPTURE(rows);
      CAPTURE(cols);
      CHECK(defect(numbers_of(matrix_spec(rows, cols, start::matrix(gain)), 1), rows, cols, gain) < 1e-12);
    }
  }
}

TEST_CASE("initialize: the gain of the head grows with a vocabulary above the width") {
  for (const auto& [vocab, width] : {std::pair<Index, Index>{48, 12}, {12, 48}, {12, 12}, {1, 1}, {5, 1}}) {
    const double gain = vocab > width ? 0.5 * std::sqrt(static_cast<double>(vocab) / static_cast<double>(width)) : 0.5;
    CHECK(defect(numbers_of(matrix_spec(vocab, width, start::head()), 1), vocab, width, gain) < 1e-12);
  }
}

// The moments of a random orthogonal matrix: every entry has mean 0 and mean square 1 / size, and both signs of the
// determinant are equally likely.
TEST_CASE("initialize: orthogonal matrices prefer no direction") {
  constexpr int draws = 4000;
  std::vector<double> mean(6), square(6);
  double determinant = 0;
  for (std::uint64_t seed = 0; seed < draws; ++seed) {
    const auto tall = numbers_of(matrix_spec(3, 2, start::matrix(1)), 1, seed);
    for (std::size_t i = 0; i < 6; ++i) {
      mean[i] += tall[i] / draws;
      square[i] += tall[i] * tall[i] / draws;
    }
    const auto turn = numbers_of(matrix_spec(2, 2, start::matrix(1)), 1, seed);
    determinant += (turn[0] * turn[3] - turn[1] * turn[2]) / draws;
  }
  for (std::size_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(std::abs(mean[i]) < 0.04);
    CHECK(std::abs(square[i] - 1.0 / 3) < 0.02);
  }
  CHECK(std::abs(determinant) < 0.07);
}

TEST_CASE("initialize: zeros, ones, and the small embedding") {
  const auto all = [](const std::vector<double>& numbers, double value) {
    return std::all_of(numbers.begin(), numbers.end(), [&](double x) { return x == value; });
  };
  CHECK(all(numbers_of(matrix_spec(5, 3, start::matrix(0)), 1), 0));
  CHECK(all(numbers_of(vector_spec(5, start::constant(1), 0), 1), 1));
  CHECK(all(numbers_of(vector_spec(5, start::constant(0), 0), 1), 0));
  const auto embedding = numbers_of(matrix_spec(100, 31, start::embedding()), 1);
  const auto [least, most] = std::minmax_element(embedding.begin(), embedding.end());
  CHECK((-1e-4 <= *least && *least < -0.99e-4));
  CHECK((0.99e-4 < *most && *most < 1e-4));
  double mean = 0;
  for (const double x : embedding) mean += x / 3100;
  CHECK(std::abs(mean) < 4e-6);
}

TEST_CASE("initialize: normal numbers, by a start that is not the table's") {
  LanguageModel<config::AnyVersion, double, Reference> official({.vocab = 40, .width = 32, .depth = 2}),
      plain({.vocab = 40, .width = 32, .depth = 2});
  initialize(official, Seed{5});
  initialize(plain, Seed{5}, [](TensorSpec& spec) {
    if (spec.role == Role::matrix) spec.start = {.draw = Start::normal, .a = 0.25};
  });
  const auto from = official.parameters(), to = plain.parameters();
  for (std::size_t p = 0; p < from.size(); ++p) {
    CAPTURE(to[p].name);
    const auto numbers = to[p].numbers();
    if (to[p].role != Role::matrix) {
      CHECK(std::ranges::equal(from[p].numbers(), numbers));
      continue;
    }
    double mean = 0, square = 0, fourth = 0;
    for (const double x : numbers) {
      const double count = static_cast<double>(numbers.size()), of_one = x / 0.25;
      mean += of_one / count;
      square += of_one * of_one / count;
      fourth += of_one * of_one * of_one * of_one / count;
    }
    CHECK(std::abs(mean) < 0.15);
    CHECK(std::abs(square - 1) < 0.2);
    CHECK(std::abs(fourth - 3) < 1.5);
  }
}

TEST_CASE("initialize: curves by channel and layer") {
  // Layer 1 of 3: rho0 = 2/3, rho1 = 1/2.
  auto mix = numbers_of(vector_spec(4, start::mix(), 1), 3);
  CHECK(mix[0] == 0);
  CHECK(mix[1] == near(std::pow(0.25, 2.0 / 3)));
  CHECK(mix[2] == near(std::pow(0.5, 2.0 / 3)));
  mix = numbers_of(vector_spec(4, start::mix(1, 0.3), 1), 3);
  CHECK(mix[0] == near(0.15));
  CHECK(mix[2] == near(std::pow(0.5, 2.0 / 3) + 0.15));
  mix = numbers_of(vector_spec(4, start::mix(0.5), 1), 3);
  CHECK(mix[2] == near(std::pow(0.5, 1.0 / 3)));
  // Layer 0: rho0 = 1, rho1 = 0. Layer 2: rho0 = 1/3, rho1 = 1.
  CHECK(numbers_of(vector_spec(4, start::mix(1, 0.3), 0), 3)[3] == near(0.75));
  CHECK(numbers_of(vector_spec(4, start::mix(1, 0.3), 2), 3)[3] == near(std::cbrt(0.75) + 0.3));
  // The channel is the last axis also in the shape of official checkpoints, [1, 1, width].
  TensorSpec spec = vector_spec(4, start::mix(), 0);
  spec.shape = {.sizes = {1, 1, 4}, .rank = 3};
  CHECK(numbers_of(spec, 3)[3] == near(0.75));

  auto decay = numbers_of(vector_spec(5, start::decay(-5, 8), 0), 3);
  CHECK(decay[0] == -5);
  CHECK(decay[1] == near(-5 + 8 * std::pow(0.25, 0.7)));
  CHECK(decay[4] == near(3));
  decay = numbers_of(vector_spec(5, start::decay(-5, 8), 2), 3);
  CHECK(decay[2] == near(-3));

  const auto bonus = numbers_of(vector_spec(5, start::bonus_v4(), 2), 3);
  const double base = std::log(0.3);
  for (const auto& [i, expected] :
       {std::pair<std::size_t, double>{0, base}, {1, base + 0.5}, {2, base - 0.5}, {3, base}}) {
    CHECK(bonus[i] == near(expected));
  }
}

TEST_CASE("initialize: one layer, one channel") {
  CHECK(numbers_of(vector_spec(4, start::mix(1, 0.3), 0), 1)[1] == near(0.25 + 0.15));
  CHECK(numbers_of(vector_spec(3, start::decay(-5, 8), 0), 1)[1] == near(-5 + 8 * std::pow(0.5, 1.35)));
  CHECK(numbers_of(vector_spec(1, start::decay(-5, 8), 0), 1) == std::vector<double>{-5});
  CHECK(numbers_of(vector_spec(1, start::mix(), 0), 2) == std::vector<double>{0});
  CHECK(std::abs(numbers_of(matrix_spec(1, 1, start::matrix(1)), 1)[0]) == near(1).epsilon(1e-15));
  LanguageModel<config::AnyVersion, double, Reference> net({.vocab = 1, .width = 1, .depth = 1});
  initialize(net, Seed{3});
  for (const auto& parameter : net.parameters()) {
    for (const double x : parameter.numbers()) CHECK(std::isfinite(x));
  }
}

TEST_CASE("initialize: the numbers of a tensor follow from its name and the seed") {
  TensorSpec spec = matrix_spec(4, 4, start::matrix(1));
  const auto one = numbers_of(spec, 1);
  CHECK(one == numbers_of(spec, 1));
  CHECK(one != numbers_of(spec, 1, 2));
  spec.name = "another";
  CHECK(one != numbers_of(spec, 1));
}

TEST_CASE("initialize: wrong numbers and layers are refused") {
  std::vector<double> numbers(5);
  CHECK_THROWS_WITH_AS(initial_numbers(matrix_spec(2, 3, start::matrix(1)), 1, Seed{}, numbers),
                       "w: a tensor of shape [2, 3] does not have 5 numbers", Error);
  CHECK_THROWS_WITH_AS(initial_numbers(vector_spec(5, start::mix(), 2), 2, Seed{}, numbers),
                       "v: there is no layer 2 among 2", Error);
  auto unbound = LanguageModel<config::AnyVersion, float, Cpu>::unbound({.vocab = 5, .width = 4, .depth = 1}, {});
  CHECK_THROWS_WITH_AS(initialize(unbound, Seed{}), "emb.weight: the parameter is not bound to memory", Error);
}

TEST_CASE("initialize: a seed gives the same model in every scalar and on every backend") {
  const ModelSizes sizes{.vocab = 23, .width = 9, .depth = 3, .ffn = 31};
  LanguageModel<config::AnyVersion, double, Reference> exact(sizes);
  initialize(exact, Seed{7});
  const auto from = std::as_const(exact).parameters();

  const auto check_same = [&](auto net) {
    using storage = typename decltype(net)::storage;
    initialize(net, Seed{7});
    const auto to = std::as_const(net).parameters();
    REQUIRE(to.size() == from.size());
    for (std::size_t p = 0; p < from.size(); ++p) {
      CAPTURE(from[p].name);
      std::size_t equal = 0;
      for (std::size_t i = 0; i < from[p].numbers().size(); ++i) {
        equal += widen<float>(to[p].numbers()[i]) == widen<float>(narrow<storage>(from[p].numbers()[i]));
      }
      CHECK(equal == from[p].numbers().size());
    }
  };
  check_same(LanguageModel<config::AnyVersion, double, Cpu>(sizes, Cpu(3)));
  check_same(LanguageModel<config::AnyVersion, float, Cpu>(sizes));
  check_same(LanguageModel<config::AnyVersion, float, Reference>(sizes));
  check_same(LanguageModel<config::AnyVersion, bf16, Cpu>(sizes));

  LanguageModel<config::AnyVersion, double, Reference> other(sizes);
  initialize(other, Seed{8});
  for (std::size_t p = 0; p < from.size(); ++p) {
    const bool random = from[p].start.draw != Start::each;
    CAPTURE(from[p].name);
    CHECK((std::as_const(other).parameters()[p].numbers()[0] != from[p].numbers()[0]) == random);
  }
}

TEST_CASE("initialize: the table of RWKV-4 says what the official trainer does") {
  const ModelSizes sizes{.vocab = 40, .width = 16, .depth = 2};
  LanguageModel<V4, double, Reference> net(sizes);
  initialize(net, Seed{1});
  std::size_t matrices = 0;
  for (const auto& parameter : net.parameters()) {
    CAPTURE(parameter.name);
    const std::vector<double> numbers(parameter.numbers().begin(), parameter.numbers().end());
    const auto ends = [&](const char* name) { return parameter.name.ends_with(name); };
    const bool zero = ends("att.output.weight") || ends("ffn.value.weight") || ends("ffn.receptance.weight");
    if (zero) CHECK(numbers == std::vector<double>(numbers.size(), 0.0));
    const double gain = ends("att.key.weight") ? 0.1 : 1;
    if (parameter.role == Role::matrix && !zero) {
      CHECK(defect(numbers, parameter.shape.sizes[0], parameter.shape.sizes[1], gain) < 1e-12);
    }
    matrices += parameter.role == Role::matrix;
    // Channel 8 of 16, layer l of 2: rho0 = 1 - l/2, rho1 = l.
    const double rho0 = parameter.layer == 0 ? 1 : 0.5, rho1 = static_cast<double>(parameter.layer);
    if (ends("time_mix_k") || ends("ffn.time_mix_r")) CHECK(numbers[8] == near(std::pow(0.5, rho0)));
    if (ends("time_mix_v")) CHECK(numbers[8] == near(std::pow(0.5, rho0) + 0.3 * rho1));
    if (ends("att.time_mix_r")) CHECK(numbers[8] == near(std::pow(0.5, 0.5 * rho0)));
    if (ends("time_decay")) CHECK(numbers[5] == near(-5 + 8 * std::pow(1.0 / 3, 0.7 + 1.3 * rho1)));
  }
  CHECK(matrices == 14);
}

TEST_CASE("initialize: the table of RWKV-5.2 says what the official trainer does") {
  LanguageModel<V5, double, Reference> net({.vocab = 40, .width = 16, .depth = 2, .head_size = 4});
  initialize(net, Seed{1});
  int checked = 0;
  for (const auto& parameter : net.parameters()) {
    CAPTURE(parameter.name);
    const auto numbers = parameter.numbers();
    const auto is = [&](const char* name) { return parameter.name.ends_with(name) && ++checked > 0; };
    // Channel 9 of 16, layer l of 2: rho0 = 1 - l/2, rho1 = l.
    const double rho0 = parameter.layer == 0 ? 1 : 0.5, rho1 = static_cast<double>(parameter.layer);
    if (is("att.time_mix_k")) CHECK(numbers[9] == near(std::pow(9.0 / 16, rho0)));
    if (is("att.time_mix_v")) CHECK(numbers[9] == near(std::pow(9.0 / 16, rho0) + 0.3 * rho1));
    if (is("att.time_mix_r") || is("att.time_mix_g")) CHECK(numbers[9] == near(std::pow(9.0 / 16, 0.5 * rho0)));
    if (is("time_decay")) CHECK(numbers[9] == near(-6 + 5 * std::pow(9.0 / 15, 0.7 + 1.3 * rho1)));
    if (is("time_faaaa")) CHECK(numbers[9] == near(rho1 * (1 - 9.0 / 15)));  // 10 mod 3 = 1
    if (is("ln_x.weight")) CHECK(numbers[9] == near(std::pow((1 + rho1) / 2, 0.7)));
    if (is("ln_x.bias") || is("att.output.weight")) CHECK(numbers[9] == 0);
    if (is("att.gate.weight") || is("att.key.weight")) {
      CHECK(defect({numbers.begin(), numbers.end()}, 16, 16, 0.1) < 1e-12);
    }
    if (is("time_decay")) CHECK(parameter.rate == 2);
  }
  CHECK(checked == 2 * 12);
}

// The initial logits have a standard deviation of about one half, so the loss starts a little above ln(vocab).
TEST_CASE("initialize: a fresh model guesses almost uniformly") {
  const ModelSizes sizes{.vocab = 256, .width = 48, .depth = 2};
  LanguageModel<config::AnyVersion, float, Cpu> net(sizes);
  initialize(net, Seed{5});
  auto context = net.context();
  const Philox random{.key = 9};
  const auto token = [&](std::uint64_t n) { return static_cast<Token>(random.block(n).words[0] % 256); };
  constexpr std::uint64_t count = 200;
  double loss = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    const auto logits = context.step(token(n));
    double sum = 0;
    for (const float x : logits) sum += std::exp(static_cast<double>(x));
    loss += (std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token(n + 1))])) / count;
  }
  CHECK(loss > std::log(256.0) - 0.2);
  CHECK(loss < std::log(256.0) + 0.4);
}
