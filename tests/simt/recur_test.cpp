/// Oracle: the Reference backend in double. The kernel is the one that nvcc compiles for the GPU, run on the emulator.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "leaky_gate.hpp"
#include "recur_kernel.cuh"
#include "rwkv/backend/reference.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/core/random.hpp"

using rwkv::Index;
namespace arg = rwkv::arg;

namespace {

constexpr std::uint64_t seeds[] = {1, 2, 3};

/// Numbers in [low, high) that a float holds exactly, so that every scalar starts from the same.
std::vector<double> random(Index size, std::uint64_t stream, double low, double high) {
  const rwkv::Philox generator{.key = 7, .stream = stream};
  std::vector<double> numbers(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<float>(low + (high - low) * generator.block(i).uniform_double(0));
  }
  return numbers;
}

/// One problem: a state and the inputs of a cell, the shapes they have, and how operands are made of them.
struct Problem {
  Index batch, time, width;
  std::vector<double> state;
  std::vector<std::vector<double>> inputs;
};

/// What a run leaves behind.
struct Result {
  std::vector<double> y, state;
};

template <class T>
std::vector<T> as(const std::vector<double>& numbers) {
  return std::vector<T>(numbers.begin(), numbers.end());
}

/// Calls run(state, operands...) in scalar T; `Cell` says what its inputs are.
template <class Cell, class T, class Run>
Result with_operands(const Problem& problem, Run run) {
  std::vector<T> state = as<T>(problem.state);
  std::vector<std::vector<T>> inputs;
  for (const auto& input : problem.inputs) inputs.push_back(as<T>(input));
  std::vector<T> y(static_cast<std::size_t>(problem.batch * problem.time * problem.width));

  const auto x = [&](std::size_t i) {
    return arg::in(rwkv::Seq<T>{inputs[i].data(), problem.batch, problem.time, problem.width});
  };
  const auto p = [&](std::size_t i) { return arg::chan(rwkv::Vec<T>{inputs[i].data(), problem.width}); };
  const auto out = arg::out(rwkv::Seq<T>{y.data(), problem.batch, problem.time, problem.width});
  const auto states = rwkv::matrix(state.data(), problem.batch, static_cast<Index>(state.size()) / problem.batch);
  if constexpr (std::is_same_v<Cell, rwkv::WKV4>) {
    run(states, p(0), p(1), x(2), x(3), out);
  } else if constexpr (std::is_same_v<Cell, rwkv::WKV7>) {
    run(states, x(0), arg::shared(x(1)), arg::shared(x(2)), arg::shared(x(3)), arg::shared(x(4)), arg::shared(x(5)),
        out);
  } else {
    run(states, x(0), x(1), out);
  }
  return {as<double>(std::vector<double>(y.begin(), y.end())), std::vector<double>(state.begin(), state.end())};
}

template <class Cell, Index N>
Result on_reference(const Problem& problem) {
  return with_operands<Cell, double>(problem, [](auto state, auto... ops) {
    Index unused = 0;
    rwkv::Reference{}.recur(rwkv::Arena(unused), rwkv::Sequential{}, Cell{}, rwkv::Extent<N>{}, state, ops...);
  });
}

template <class Cell, Index N, class T, simt::Without Removed = simt::Without::nothing>
Result on_emulator(const Problem& problem, std::uint64_t seed, bool check_races = true) {
  return with_operands<Cell, T>(problem, [&](auto state, auto... ops) {
    const int threads = simt::recur_threads<Cell, N>;
    const Index blocks = (problem.width + threads - 1) / threads;
    simt::launch({.grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(problem.batch)},
                  .block = {static_cast<unsigned>(threads)},
                  .seed = seed,
                  .block_seed = seed,
                  .check_races = check_races},
                 simt::recur_kernel<Cell, N, T, Removed, decltype(ops)...>, state, ops...);
  });
}

/// The largest difference, relative to the largest number expected.
double distance(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  double difference = 0, largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return HUGE_VAL;
    difference = std::max(difference, std::abs(got[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return difference / largest;
}

template <class Cell, Index N, class T>
void check(const Problem& problem, double tolerance) {
  const Result expected = on_reference<Cell, N>(problem);
  for (const std::uint64_t seed : seeds) {
    const Result got = on_emulator<Cell, N, T>(problem, seed);
    CHECK(distance(got.y, expected.y) < tolerance);
    CHECK(distance(got.state, expected.state) < tolerance);
  }
}
template <class Cell, Index N>
void check_scalars(const Problem& problem) {
  check<Cell, N, float>(problem, 1e-5);
  check<Cell, N, double>(problem, 1e-12);
}

Problem wkv4(Index batch, Index time, Index width) {
  const Index tokens = batch * time * width;
  Problem problem{batch, time, width, random(batch * 3 * width, 1, 0.5, 2), {}};
  problem.inputs = {random(width, 2, -2, -0.05), random(width, 3, -1, 1), random(tokens, 4, -6, 6),
                    random(tokens, 5, -1, 1)};
  return problem;
}

/// Decay as in trained models, and the rank-one part of a unit vector, which keeps the state bounded.
Problem wkv7(Index batch, Index time, Index heads, Index head_size) {
  const Index width = heads * head_size, tokens = batch * time * width;
  Problem problem{batch, time, width, random(batch * width * head_size, 1, -1, 1), {}};
  auto& in = problem.inputs;
  in = {random(tokens, 2, -1, 1), random(tokens, 3, -1, 1), random(tokens, 4, 0.55, 0.999),
        random(tokens, 5, -1, 1), random(tokens, 6, -1, 1), random(tokens, 7, 0, 1)};
  for (Index head = 0; head < tokens; head += head_size) {
    const auto at = [&](std::size_t input, Index n) -> double& {
      return in[input][static_cast<std::size_t>(head + n)];
    };
    double norm = 0;
    for (Index n = 0; n < head_size; ++n) norm += at(4, n) * at(4, n);
    for (Index n = 0; n < head_size; ++n) {
      const double unit = at(4, n) / std::sqrt(norm);
      at(5, n) = static_cast<float>(unit * at(5, n));
      at(4, n) = static_cast<float>(-unit);
    }
  }
  return problem;
}

Problem leaky(Index batch, Index time, Index width) {
  const Index tokens = batch * time * width;
  return {batch, time, width, random(batch * width, 1, -1, 1), {random(tokens, 2, -4, 4), random(tokens, 3, -1, 1)}};
}

TEST_CASE("simt: the WKV4 cell runs on the GPU model") {
  check_scalars<rwkv::WKV4, 1>(wkv4(2, 17, 37));
  check_scalars<rwkv::WKV4, 1>(wkv4(2, 3, 131));
  check_scalars<rwkv::WKV4, 1>(wkv4(1, 1, 1));
}

TEST_CASE("simt: the WKV7 cell runs on the GPU model") {
  check_scalars<rwkv::WKV7, 4>(wkv7(2, 9, 3, 4));
  check_scalars<rwkv::WKV7, 5>(wkv7(2, 11, 3, 5));
  check_scalars<rwkv::WKV7, 8>(wkv7(2, 1, 5, 8));
  check_scalars<rwkv::WKV7, 64>(wkv7(2, 13, 3, 64));
}

TEST_CASE("simt: a user's cell runs on the GPU model") {
  check_scalars<LeakyGate, 1>(leaky(2, 19, 35));
  check_scalars<LeakyGate, 1>(leaky(2, 5, 257));
}

/// Reported as a race in every order of the threads, and plainly wrong where races are not looked for.
template <simt::Without Removed>
void check_caught(const Problem& problem) {
  constexpr Index size = 8;
  const Result expected = on_reference<rwkv::WKV7, size>(problem);
  for (const std::uint64_t seed : seeds) {
    CHECK_THROWS_AS((on_emulator<rwkv::WKV7, size, double, Removed>(problem, seed)), simt::Error);
    const Result got = on_emulator<rwkv::WKV7, size, double, Removed>(problem, seed, false);
    CHECK_FALSE(distance(got.y, expected.y) < 1e-3);
    CHECK_FALSE(distance(got.state, expected.state) < 1e-3);
  }
}

TEST_CASE("simt: the WKV7 kernel without one of its two barriers is caught") {
  const Problem problem = wkv7(2, 7, 3, 8);
  check_caught<simt::Without::barrier_after_staging>(problem);
  check_caught<simt::Without::barrier_after_step>(problem);
}

}  // namespace
