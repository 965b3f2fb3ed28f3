/// The derived adjoints of row programs with stages. Oracles: the hand-written adjoint of Normalise; derivatives by dual
/// numbers along random directions, and by hand where a head is all zero.
#include <doctest/doctest.h>

#include <rwkv/backend/rows_back.hpp>
#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>
#include <rwkv/op/time_mix_v7.hpp>

#include <cmath>

#include "../configs.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

constexpr Index sequences = 2, length = 3, groups = 3;

Buffer<double> drawn(Index count, std::uint64_t seed) { return Buffer<double>(config::noise(count, seed)); }

/// A program, the sizes of a case, and its operands: `In` sequences, `Channels` vectors, `Out` outputs.
template <class P, std::size_t In, std::size_t Channels, std::size_t Out>
struct Case {
  P program;
  Index width;
  std::vector<Buffer<double>> inputs, dinputs, dy;  // sequences and then vectors; their gradients; cotangents

  Case(const P& of, Index channels) : program(of), width(channels) {
    for (std::size_t i = 0; i < In + Channels; ++i) {
      inputs.push_back(drawn(numbers(i), 10 + i));
      dinputs.emplace_back(numbers(i), 0.0);
    }
    for (std::size_t o = 0; o < Out; ++o) dy.push_back(drawn(sequences * length * width, 30 + o));
  }
  Index numbers(std::size_t input) const { return (input < In ? sequences * length : 1) * width; }

  template <class B>
  void backward(B be) {
    config::Scratch scratch(1 << 20);
    const auto seq = [&](Buffer<double>& all) { return all.seq(sequences, length, width); };
    [&]<std::size_t... I, std::size_t... C, std::size_t... O>(std::index_sequence<I...>, std::index_sequence<C...>,
                                                              std::index_sequence<O...>) {
      rows_back(be, scratch.arena(), program, arg::in(seq(inputs[I]))..., arg::chan(inputs[In + C].vec())...,
                arg::cot(seq(dy[O]))..., arg::out(seq(dinputs[I]))..., arg::sum(dinputs[In + C].vec())...);
    }
    (std::make_index_sequence<In>(), std::make_index_sequence<Channels>(), std::make_index_sequence<Out>());
  }

  /// The derivatives of the outputs where input i moves along u[i].
  std::vector<Buffer<double>> along(const std::vector<Buffer<double>>& u) const {
    using D = Dual<double>;
    std::vector<Buffer<D>> moving, y(Out, Buffer<D>(sequences * length * width));
    for (std::size_t i = 0; i < In + Channels; ++i) {
      moving.emplace_back(numbers(i));
      for (std::size_t n = 0; n < moving[i].numbers.size(); ++n) {
        moving[i].numbers[n] = D::variable(inputs[i].numbers[n], 0);
        moving[i].numbers[n].direction[0] = u[i].numbers[n];
      }
    }
    Reference be;
    [&]<std::size_t... I, std::size_t... C, std::size_t... O>(std::index_sequence<I...>, std::index_sequence<C...>,
                                                              std::index_sequence<O...>) {
      be.rows(program, arg::in(moving[I].seq(sequences, length, width))..., arg::chan(moving[In + C].vec())...,
              arg::out(y[O].seq(sequences, length, width))...);
    }
    (std::make_index_sequence<In>(), std::make_index_sequence<Channels>(), std::make_index_sequence<Out>());
    std::vector<Buffer<double>> moved;
    for (const auto& output : y) {
      moved.emplace_back(sequences * length * width);
      for (std::size_t n = 0; n < output.numbers.size(); ++n) moved.back().numbers[n] = output.numbers[n].direction[0];
    }
    return moved;
  }

  /// <cotangent, J u> against <J^T cotangent, u>, for every head by itself: one whose derivatives are large hides no other.
  double defect(std::uint64_t seed) const {
    double worst = 0;
    const Index size = width / groups;
    for (Index head = 0; head < groups; ++head) {
      const auto inside = [&](std::size_t n) { return static_cast<Index>(n) % width / size == head; };
      std::vector<Buffer<double>> u;
      detail::Pairing pairing;
      for (std::size_t i = 0; i < In + Channels; ++i) {
        u.push_back(drawn(numbers(i), 100 * seed + i));
        for (std::size_t n = 0; n < u[i].numbers.size(); ++n) {
          if (!inside(n)) u[i].numbers[n] = 0;
          pairing.add_backwards(dinputs[i].numbers[n], u[i].numbers[n]);
        }
      }
      const auto moved = along(u);
      for (std::size_t o = 0; o < Out; ++o) {
        for (std::size_t n = 0; n < moved[o].numbers.size(); ++n) {
          if (!inside(n)) worst = std::max(worst, std::abs(moved[o].numbers[n]));  // other heads do not move
          pairing.add_forwards(dy[o].numbers[n], moved[o].numbers[n]);
        }
      }
      worst = std::max(worst, pairing.defect());
    }
    return worst;
  }
};

using Keys = Case<PrepareKeys, 3, 4, 4>;
using Read = Case<ReadOut, 5, 3, 1>;

}  // namespace

#define RWKV_STAGED_CONFIGS \
  config::Config<double, Reference>, config::Config<double, Cpu>, config::Config<double, Cpu, 3>

TEST_CASE_TEMPLATE("the derived adjoint of a norm is the hand-written one", C, RWKV_STAGED_CONFIGS) {
  for (const Index size : {1, 3, 7, 8, 64}) {
    CAPTURE(size);
    const Index width = groups * size;
    const double epsilon = 64e-5;
    Case<Normalise, 1, 2, 1> derived({groups, 1.0 / static_cast<double>(size), epsilon}, width);
    derived.backward(C::backend());
    Buffer<double> dx(sequences * length * width), dscale(width), dshift(width);
    auto be = C::backend();
    config::Scratch scratch(1 << 20);
    group_norm_back(be, scratch.arena(), derived.inputs[0].seq(sequences, length, width), groups,
                    derived.inputs[1].vec(), epsilon, derived.dy[0].seq(sequences, length, width),
                    arg::out(dx.seq(sequences, length, width)), dscale.vec(), dshift.vec());
    // A channel alone is its own mean: the gradient of x is then the difference of two equal numbers.
    const double scale = size == 1 ? 1 / std::sqrt(epsilon) : 1e-300;
    double largest = scale;
    for (const double slope : dx.numbers) largest = std::max(largest, std::abs(slope));
    CHECK(golden::max_error(derived.dinputs[0].numbers, dx.numbers) / largest < 1e-14);
    if (size > 1) CHECK(golden::relative_error(derived.dinputs[1].numbers, dscale.numbers) < 1e-14);
    else CHECK(golden::max_error(derived.dinputs[1].numbers, dscale.numbers) < 1e-14);
    CHECK(golden::relative_error(derived.dinputs[2].numbers, dshift.numbers) < 1e-14);
  }
}

TEST_CASE_TEMPLATE("the adjoint of what RWKV-7 prepares for its recurrence is that of its derivative", C,
                   RWKV_STAGED_CONFIGS) {
  for (const Index size : {1, 3, 7, 8, 64}) {
    for (const bool with_zero_head : {false, true}) {
      CAPTURE(size);
      CAPTURE(with_zero_head);
      const Index width = groups * size;
      Keys keys({groups}, width);
      const auto in_zero_head = [&](std::size_t n) {  // the middle head of the last token but one
        const auto token = static_cast<Index>(n) / width, channel = static_cast<Index>(n) % width;
        return with_zero_head && token == sequences * length - 2 && channel / size == 1;
      };
      for (std::size_t n = 0; n < keys.inputs[0].numbers.size(); ++n) {
        if (in_zero_head(n)) keys.inputs[0].numbers[n] = 0;
      }
      keys.backward(C::backend());
      for (std::uint64_t seed = 1; seed <= 3; ++seed) CHECK(keys.defect(seed) < 1e-13);
      for (std::size_t n = 0; n < keys.inputs[0].numbers.size(); ++n) {
        if (!in_zero_head(n)) continue;
        // There the length has its floor, 1e-12, and remove and write are linear in k.
        const auto channel = n % static_cast<std::size_t>(width);
        const auto at = [&](std::size_t vector) { return keys.inputs[vector].numbers[channel]; };
        const double a = 1 / (1 + std::exp(-at(4) - keys.inputs[2].numbers[n]));
        const double want = keys.dy[1].numbers[n] * (1 + (a - 1) * at(6)) +
                            at(5) * 1e12 * (a * keys.dy[3].numbers[n] - keys.dy[2].numbers[n]);
        CHECK(keys.dinputs[0].numbers[n] == doctest::Approx(want).epsilon(1e-13));
        CHECK(std::isfinite(keys.dinputs[0].numbers[n]));
      }
    }
  }
}

TEST_CASE_TEMPLATE("the adjoint of the read-out of RWKV-7 is that of its derivative", C, RWKV_STAGED_CONFIGS) {
  for (const Index size : {1, 3, 7, 8, 64}) {
    CAPTURE(size);
    Read read({groups, 1.0 / static_cast<double>(size), 64e-5}, groups * size);
    read.backward(C::backend());
    for (std::uint64_t seed = 1; seed <= 3; ++seed) CHECK(read.defect(seed) < 1e-13);
  }
}
