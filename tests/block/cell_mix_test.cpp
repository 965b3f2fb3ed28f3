/// Oracle: the block's formula as plain loops in double; for the backward pass of a row cell, the reference backend.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "../gates.hpp"
#include "../golden.hpp"
#include "harness.hpp"

using namespace rwkv;
using config::Attention;
using config::AttentionByHand;
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

/// The projections of one token, by the names of the inputs.
using Projected = std::map<std::string, std::vector<double>>;

/// Runs a block around Cell over two sequences from its initial state. Holds it to loops around `step`, which makes the
/// output of the cell from the projections of a token of sequence b and keeps the state of the cell in `state`; and to
/// its own steps, whose bits it has except on a GPU.
template <class C, class Cell, class Step>
void check_formula(const ModelSizes& sizes, std::vector<std::string> names, const std::vector<double>& state,
                   const Step& step) {
  using T = typename C::scalar;
  const std::size_t width = static_cast<std::size_t>(sizes.width), batch = 2, time = 30;
  names.push_back("receptance");
  std::map<std::string, std::vector<double>> p;
  std::uint64_t seed = 1;
  for (const auto& name : names) {
    p["time_mix_" + name] = noise(width, seed++);
    p[name + ".weight"] = noise(width * width, seed++);
  }
  p["output.weight"] = noise(width * width, seed++);
  const auto x = noise(batch * time * width, seed++), before = noise(batch * width, seed++);
  const std::vector<T> typed(x.begin(), x.end());

  const auto make = [&] {
    return config::Standalone<CellMix<Cell, T, typename C::Backend>>(
        sizes, batch, C::backend(), [&](const TensorSpec& spec) { return p.at(spec.name); },
        [&](const std::string& name) { return name == "shift" ? before : std::vector<double>(); });
  };
  auto block = make(), stepping = make();
  const auto got = block.forward(typed, batch, time);
  std::vector<T> steps(got.size());
  for (std::size_t t = 0; t < time; ++t) {
    std::vector<T> token;
    const auto place = [&](std::size_t b) { return (b * time + t) * width; };
    for (std::size_t b = 0; b < batch; ++b) token.insert(token.end(), &typed[place(b)], &typed[place(b)] + width);
    const auto y = stepping.forward(token, batch, 1);
    for (std::size_t b = 0; b < batch; ++b) std::copy_n(&y[b * width], width, &steps[place(b)]);
  }

  const auto product = [&](const std::string& name, const std::vector<double>& v) {
    std::vector<double> y(width, 0);
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = 0; j < width; ++j) y[i] += p.at(name + ".weight")[i * width + j] * v[j];
    }
    return y;
  };
  std::vector<double> want, shift;
  for (std::size_t b = 0; b < batch; ++b) {
    std::vector<double> last(&before[b * width], &before[b * width] + width);
    for (std::size_t t = 0; t < time; ++t) {
      const std::vector<double> now(&x[(b * time + t) * width], &x[(b * time + t) * width] + width);
      Projected projected;
      for (const auto& name : names) {
        std::vector<double> mixed(width);
        for (std::size_t c = 0; c < width; ++c) {
          const double m = p.at("time_mix_" + name)[c];
          mixed[c] = now[c] * m + last[c] * (1 - m);
        }
        projected[name] = product(name, mixed);
      }
      auto gated = step(b, projected);
      for (std::size_t c = 0; c < width; ++c) gated[c] *= logistic(projected["receptance"][c]);
      const auto y = product("output", gated);
      want.insert(want.end(), y.begin(), y.end());
      last = now;
    }
    shift.insert(shift.end(), last.begin(), last.end());
  }
  const double limit = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  CHECK(golden::relative_error(got, want) < limit);
  CHECK(golden::relative_error(block.state("cell"), state) < limit);
  CHECK(golden::relative_error(block.state("shift"), shift) == 0);
#ifdef RWKV_TEST_CUDA
  CHECK(golden::relative_error(steps, want) < limit);
  CHECK(golden::relative_error(stepping.state("cell"), state) < limit);
#else
  CHECK(steps == got);
  CHECK(stepping.state("cell") == block.state("cell"));
#endif
}

}  // namespace

TEST_CASE_TEMPLATE("a block around a cell computes its formula", C, RWKV_TEST_CONFIGS) {
  const std::size_t width = 19;
  std::vector<double> h(2 * width, 0.25);
  check_formula<C, LeakyGate>({.width = 19}, {"gate", "value"}, h, [&](std::size_t b, Projected& in) {
    std::vector<double> out(width);
    for (std::size_t c = 0; c < width; ++c) {
      const double z = logistic(in["gate"][c]);
      out[c] = h[b * width + c] = (1 - z) * h[b * width + c] + z * in["value"][c];
    }
    return out;
  });
}

TEST_CASE_TEMPLATE("so does one around a row cell, head by head", C, RWKV_TEST_CONFIGS) {
  const std::array<std::size_t, 2> cases[] = {{3, 3}, {5, 1}, {3, 17}};  // the last uses several threads
  for (const auto& heads_and_size : cases) {
    const std::size_t heads = heads_and_size[0], size = heads_and_size[1], width = heads * size;
    CAPTURE(size);
    std::vector<double> s(2 * width * size, 0);  // [batch, head, key, value]
    const auto step = [&](std::size_t b, Projected& in) {
      std::vector<double> out(width);
      for (std::size_t i = 0; i < width; ++i) {
        const std::size_t head = i / size;
        double read = 0;
        for (std::size_t k = head * size; k < (head + 1) * size; ++k) {
          double& number = s[b * width * size + k * size + i % size];
          number = logistic(in["decay"][k]) * number + in["value"][i] * in["key"][k];
          read += number * in["query"][k];
        }
        out[i] = logistic(in["gate"][i]) * read;
      }
      return out;
    };
    check_formula<C, Attention>({.width = static_cast<Index>(width), .head_size = static_cast<Index>(size)},
                                {"gate", "value", "query", "key", "decay"}, s, step);
  }
}

#ifndef RWKV_TEST_CUDA
namespace {

/// All that a block gives, forwards and backwards, from random parameters, states and cotangents.
template <class K>
auto passes(const ModelSizes& sizes, typename K::backend be = {}) {
  const LawTrial trial{.batch = 2, .time = 35};
  BlockRun<K> run(sizes, trial.batch, trial.time, be);
  detail::draw(run, sizes, trial);
  run.forward_keeping();
  run.backward();
  return std::array{run.y, run.last, run.dx, run.dfirst, run.dparameters};
}
template <class Cell, class B>
using Double = CellMix<Cell, double, B>;

}  // namespace

TEST_CASE("a row cell's backward pass is that of the reference, also with an adjoint by hand and with static sizes") {
  const auto check = [](const auto& got, const auto& want) {
    for (std::size_t i = 0; i < want.size(); ++i) {
      CAPTURE(i);
      CHECK(golden::relative_error(got[i], want[i]) < 1e-12);
    }
  };
  const ModelSizes cases[] = {
      {.width = 9, .head_size = 3}, {.width = 5, .head_size = 1}, {.width = 34, .head_size = 17}};
  for (const ModelSizes& sizes : cases) {
    CAPTURE(sizes.head_size);
    const auto got = passes<Double<Attention, Cpu>>(sizes, Cpu(1));
    CHECK(passes<Double<Attention, Cpu>>(sizes, Cpu(3)) == got);
    check(got, passes<Double<Attention, Reference>>(sizes));
    check(passes<Double<AttentionByHand, Cpu>>(sizes, Cpu(3)), got);
  }
  const ModelSizes fixed{.width = 10, .head_size = 5};
  check(passes<CellMix<Attention, double, Cpu, Dims<10, 2>>>(fixed), passes<Double<Attention, Cpu>>(fixed));
}

TEST_CASE("shared vectors give names to tensors, the head size gives the state its size") {
  using K = Double<Attention, Reference>;
  const auto tensors = [](const ModelSizes& sizes) {
    K block(sizes);
    std::string list;
    K::visit(block, "att.", [&](const TensorSpec& tensor, const auto&) { list += tensor.name + ' '; });
    K::State state;
    block.visit_state(state, "att.", [&](const std::string& name, Index numbers, const auto&) {
      list += name + ": " + std::to_string(numbers) + ' ';
    });
    return list;
  };
  const std::string parameters =
      "att.time_mix_gate att.gate.weight att.time_mix_value att.value.weight att.time_mix_query att.query.weight "
      "att.time_mix_key att.key.weight att.time_mix_decay att.decay.weight att.time_mix_receptance "
      "att.receptance.weight att.output.weight ";
  CHECK(tensors({.width = 12, .head_size = 3}) == parameters + "att.shift: 12 att.cell: 36 ");
  CHECK(tensors({.width = 128}) == parameters + "att.shift: 128 att.cell: 8192 ");  // heads of 64
  CHECK_THROWS_WITH_AS(tensors({.width = 12}), "rwkv: a width of 12 does not divide into heads of 64", Error);
}
#endif
