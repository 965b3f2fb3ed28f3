/// The verbs of training on the CPU against those of the reference backend, at awkward sizes and on any number of
/// threads.
#include <doctest/doctest.h>

#include <rwkv/backend/rows_back.hpp>
#include <rwkv/blocks.hpp>

#include <cmath>

#include "../configs.hpp"
#include "../gates.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

std::vector<double> noise(Index count, std::uint64_t seed) {
  std::vector<double> x;
  for (Index i = 0; i < count; ++i) {
    x.push_back(static_cast<float>(2 * Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0) - 1));
  }
  return x;
}

/// y = exp(x m) p, z = x - m: a nonlinear program with two outputs.
struct Bent {
  template <class R>
  RWKV_HD void map(R x, R p, R m, R& y, R& z) const {
    y = exp(x * m) * p;
    z = x - m * m;
  }
};

template <class T>
struct BentBack {
  Index batch, time, width, count = batch * time * width;
  Buffer<T> x{noise(count, 1)}, before{noise(batch * width, 2)}, m{noise(width, 3)}, dy{noise(count, 4)},
      dz{noise(count, 5)}, dlast{noise(batch * width, 6)};
  Buffer<T> dx{noise(count, 7)}, dm{noise(width, 8)}, dfirst{batch * width};

  template <class B>
  BentBack& run(B be) {
    config::Scratch scratch(1 << 20);
    const auto seq = [&](Buffer<T>& numbers) { return numbers.seq(batch, time, width); };
    const auto state = [&](Buffer<T>& numbers) { return numbers.mat(batch, width); };
    rows_back(be, scratch.arena(), Bent{}, arg::in(seq(x)), arg::prev(seq(x), state(before)), arg::chan(m.vec()),
              arg::cot(seq(dy)), arg::cot(seq(dz)), arg::add(seq(dx)), arg::back(seq(dx), state(dlast), state(dfirst)),
              arg::sum(dm.vec()));
    return *this;
  }
};

template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-13 : 1e-5;

}  // namespace

TEST_CASE_TEMPLATE("adjoints of row programs agree with the reference, with the same bits on any number of threads", T,
                   float, double) {
  for (const Index width : {1, 3, 7, 8, 17, 130}) {
    for (const Index time : {1, 2, 9, 200}) {
      for (const Index batch : {1, 3}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(batch);
        const auto want = BentBack<double>{batch, time, width}.run(Reference());
        const auto got = BentBack<T>{batch, time, width}.run(Cpu(1));
        CHECK(golden::relative_error(got.dx.numbers, want.dx.numbers) < tolerance<T>);
        CHECK(golden::relative_error(got.dm.numbers, want.dm.numbers) < tolerance<T>);
        CHECK(golden::relative_error(got.dfirst.numbers, want.dfirst.numbers) < tolerance<T>);
        for (const int threads : {2, 3, 5}) {
          const auto more = BentBack<T>{batch, time, width}.run(Cpu(threads));
          CHECK(more.dx.numbers == got.dx.numbers);
          CHECK(more.dm.numbers == got.dm.numbers);
          CHECK(more.dfirst.numbers == got.dfirst.numbers);
        }
      }
    }
  }
}

namespace {

/// The adjoint of a gate whose first input is one number per channel.
template <class T, class Cell>
struct GateBack {
  Index batch, time, width, count = batch * time * width;
  Buffer<T> gate{noise(width, 1)}, value{noise(count, 2)}, dy{noise(count, 3)}, first{noise(batch * width, 4)},
      dlast{noise(batch * width, 5)};
  Buffer<T> dgate{noise(width, 6)}, dvalue{noise(count, 7)}, dfirst{batch * width};

  template <class B, class Schedule>
  GateBack& run(B be, Schedule schedule) {
    config::Scratch scratch(1 << 20);
    const auto seq = [&](Buffer<T>& numbers) { return numbers.seq(batch, time, width); };
    const auto state = [&](Buffer<T>& numbers) { return Mat<const T>(numbers.mat(batch, width)); };
    be.recur_back(scratch.arena(), schedule, Cell{}, Extent<1>{}, state(first), state(dlast), dfirst.mat(batch, width),
                  arg::chan(gate.vec()), arg::in(seq(value)), arg::cot(seq(dy)), arg::sum(dgate.vec()),
                  arg::add(seq(dvalue)));
    return *this;
  }
};

template <class T, class Cell, class Schedule>
void check_gate_back(Schedule schedule) {
  for (const Index width : {1, 7, 8, 35, 130}) {
    for (const Index time : {1, 2, 64, 65, 300}) {
      CAPTURE(width);
      CAPTURE(time);
      const auto want = GateBack<double, config::LeakyGate>{2, time, width}.run(Reference(), Sequential{});
      const auto got = GateBack<T, Cell>{2, time, width}.run(Cpu(1), schedule);
      CHECK(golden::relative_error(got.dgate.numbers, want.dgate.numbers) < tolerance<T>);
      CHECK(golden::relative_error(got.dvalue.numbers, want.dvalue.numbers) < tolerance<T>);
      CHECK(golden::relative_error(got.dfirst.numbers, want.dfirst.numbers) < tolerance<T>);
      for (const int threads : {2, 3, 5}) {
        const auto more = GateBack<T, Cell>{2, time, width}.run(Cpu(threads), schedule);
        CHECK(more.dgate.numbers == got.dgate.numbers);
        CHECK(more.dvalue.numbers == got.dvalue.numbers);
        CHECK(more.dfirst.numbers == got.dfirst.numbers);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("derived adjoints of recurrences agree with the reference, on any number of threads", T, float,
                   double) {
  check_gate_back<T, config::LeakyGate>(Sequential{});
  check_gate_back<T, config::ScannedGate>(Scan{64});
}

TEST_CASE_TEMPLATE("rows are added to a table in their order, on any number of threads", T, float, double) {
  for (const Index width : {1, 7, 127, 128, 129, 300}) {
    for (const Index rows : {0, 1, 5, 400}) {
      const Index vocab = 6;
      std::vector<Token> tokens;
      for (Index r = 0; r < rows; ++r) tokens.push_back(static_cast<Token>(r * r % vocab));
      Buffer<T> from(noise(rows * width, 1)), want(noise(vocab * width, 2));
      const Buffer<T> table = want;
      Reference().scatter_add_rows(Arena(nullptr, 0), from.mat(rows, width), tokens, want.mat(vocab, width));
      for (const int threads : {1, 2, 3, 5}) {
        Buffer<T> got = table;
        Cpu(threads).scatter_add_rows(Arena(nullptr, 0), from.mat(rows, width), tokens, got.mat(vocab, width));
        CHECK(got.numbers == want.numbers);
      }
    }
  }
}

TEST_CASE_TEMPLATE("a sum of squares keeps its digits in every shape, and its bits on any number of threads", T, float,
                   double) {
  config::Scratch scratch(1 << 20);
  const auto check = [&](Mat<T> x) {
    CAPTURE(x.rows);
    CAPTURE(Index(x.cols));
    const double want = Reference().sum_of_squares(scratch.arena(), x);
    const double one = Cpu(1).sum_of_squares(scratch.arena(), x);
    CHECK(std::abs(one - want) <= (std::is_same_v<T, double> ? 1e-11 : 1e-6) * want);
    for (const int threads : {2, 3, 5}) CHECK(Cpu(threads).sum_of_squares(scratch.arena(), x) == one);
  };
  Buffer<T> numbers(noise(3'000'000, 1));
  for (const Index cols : {1, 7, 8, 33, 8'191, 8'193, 100'000}) {
    for (const Index rows : {0, 1, 2, 30}) {
      check(numbers.mat(rows, cols));
      if (rows > 0) check({numbers.numbers.data(), rows - 1, cols, cols + 5});  // a view of a wider matrix
    }
  }
  check(numbers.mat(1, 3'000'000));
  check(numbers.mat(3'000'000, 1));
  check(numbers.mat(5, 0));
}
