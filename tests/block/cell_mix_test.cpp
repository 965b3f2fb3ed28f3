/// Oracle: the block's formula as plain loops in double.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "../gates.hpp"
#include "../golden.hpp"
#include "harness.hpp"

using namespace rwkv;
using config::LeakyGate;

namespace {

std::vector<double> noise(std::size_t count, std::uint64_t seed) {
  std::vector<double> x;
  for (std::size_t i = 0; i < count; ++i) {
    x.push_back(static_cast<float>(2 * Philox{.key = seed}.block(i).uniform_double(0) - 1));
  }
  return x;
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE_TEMPLATE("a block around a cell computes its formula", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const std::size_t width = 19, time = 7;
  const char* const names[] = {"gate", "value", "receptance"};
  std::map<std::string, std::vector<double>> p;
  std::uint64_t seed = 1;
  for (const std::string name : names) {
    p["time_mix_" + name] = noise(width, seed++);
    p[name + ".weight"] = noise(width * width, seed++);
  }
  p["output.weight"] = noise(width * width, seed++);
  const auto x = noise(time * width, seed++), before = noise(width, seed++);

  config::Standalone<CellMix<LeakyGate, T, typename C::Backend>> block(
      {.width = static_cast<Index>(width)}, 1, C::backend(), [&](const TensorSpec& spec) { return p.at(spec.name); },
      [&](const std::string& name) { return name == "shift" ? before : std::vector<double>(); });
  std::vector<T> typed(x.begin(), x.end());
  const auto got = block.forward(typed, 1, static_cast<Index>(time));

  const auto product = [&](const std::string& name, const std::vector<double>& v) {
    std::vector<double> y(width, 0);
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = 0; j < width; ++j) y[i] += p.at(name + ".weight")[i * width + j] * v[j];
    }
    return y;
  };
  std::vector<double> h(width, 0.25), want;
  for (std::size_t t = 0; t < time; ++t) {
    std::map<std::string, std::vector<double>> projected;
    for (const std::string name : names) {
      std::vector<double> mixed(width);
      for (std::size_t c = 0; c < width; ++c) {
        const double m = p.at("time_mix_" + name)[c], last = t == 0 ? before[c] : x[(t - 1) * width + c];
        mixed[c] = x[t * width + c] * m + last * (1 - m);
      }
      projected[name] = product(name, mixed);
    }
    std::vector<double> gated(width);
    for (std::size_t c = 0; c < width; ++c) {
      const double z = logistic(projected["gate"][c]);
      h[c] = (1 - z) * h[c] + z * projected["value"][c];
      gated[c] = logistic(projected["receptance"][c]) * h[c];
    }
    const auto y = product("output", gated);
    want.insert(want.end(), y.begin(), y.end());
  }
  const double limit = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  CHECK(golden::relative_error(got, want) < limit);
  CHECK(golden::relative_error(block.state("cell"), h) < limit);
  CHECK(golden::relative_error(block.state("shift"),
                               std::vector<double>(x.end() - static_cast<std::ptrdiff_t>(width), x.end())) == 0);
}
