/// The adjoint of row cells in chunks of time. Oracle: the adjoint of the same cell token after token, in double, from a
/// hand-written step_back or from dual numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "../numbers.hpp"
#include "chunked_cells.hpp"

using namespace rwkv;
using config::Buffer;
using config::Decays;
using config::LinearAttention;
using config::ReadsFirst;
using config::ReadsItself;

namespace {

/// What the adjoint of a row cell is given and what it gives; inputs and gradients are of [batch, time, width].
template <class T>
struct Back {
  Index batch, time, width, size;
  std::vector<Buffer<T>> inputs;
  Buffer<T> dy, first, dlast;
  std::vector<Buffer<T>> gradients = inputs;
  Buffer<T> dfirst = first;

  template <class Cell, class B, class Schedule>
  void operator()(Cell cell, B be, Schedule schedule) {
    run(cell, be, schedule, 0, time);
  }
  /// Runs the tokens [begin, end), from dlast to dfirst; parts of sequences need a batch of one.
  template <class Cell, class B, class Schedule>
  void run(Cell cell, B be, Schedule schedule, Index begin, Index end) {
    const auto part = [&](Buffer<T>& buffer) {
      return Seq<T>{buffer.numbers.data() + begin * width, batch, end - begin, width};
    };
    const auto state = [&](Buffer<T>& buffer) { return Mat<const T>(buffer.mat(batch, width * size)); };
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
      const auto call = [&](Arena scratch) {
        be.recur_back(scratch, schedule, cell, Extent<>{size}, state(first), state(dlast),
                      dfirst.mat(batch, width * size), arg::in(part(inputs[0])),
                      arg::shared(arg::in(part(inputs[Nth + 1])))..., arg::cot(part(dy)), arg::out(part(gradients[0])),
                      arg::out(part(gradients[Nth + 1]))...);
      };
      const auto memory = scratch_for(be, call);
      call(memory.arena());
    }
    (std::make_index_sequence<Cell::shared.size()>());
  }
};

template <class Cell, class T>
Back<T> random_back(Index batch, Index time, Index heads, Index size, Decays decays) {
  const Index width = heads * size;
  const auto state = [&](std::uint64_t seed) { return Buffer<T>(config::noise(batch * width * size, seed)); };
  return {batch,
          time,
          width,
          size,
          config::random_inputs<Cell, T>(batch, time, width, size, decays),
          Buffer<T>(config::noise(batch * time * width, 90)),
          state(91),
          state(92)};
}

template <class T, class U>
void check_equal(const Back<T>& got, const Back<U>& want) {
  // Rounding errors add up over the memory of a state, not over all of time. The largest is 5 epsilon with AVX-512.
  constexpr double limit = 64 * std::numeric_limits<T>::epsilon();
  CHECK(golden::relative_error(got.dfirst.numbers, want.dfirst.numbers) < limit);
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(golden::relative_error(got.gradients[i].numbers, want.gradients[i].numbers) < limit);
  }
}

template <class T>
bool same_bits(const Back<T>& a, const Back<T>& b) {
  bool same = a.dfirst.numbers == b.dfirst.numbers;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) same &= a.gradients[i].numbers == b.gradients[i].numbers;
  return same;
}

template <class Cell>
void check_adjoint(Cell cell, Index size, std::initializer_list<Index> times) {
  CAPTURE(size);
  for (const Index time : times) {
    CAPTURE(time);
    for (const Decays decays : {Decays::usual, Decays::extreme}) {
      CAPTURE(decays == Decays::extreme);
      auto want = random_back<Cell, double>(2, time, 2, size, decays);
      want(cell, Cpu(1), Sequential{});
      for (const Index chunk : {1, 4, 16, 64}) {
        CAPTURE(chunk);
        auto wide = random_back<Cell, double>(2, time, 2, size, decays);
        wide(cell, Cpu(2), Chunked{chunk});
        check_equal(wide, want);
        auto got = random_back<Cell, float>(2, time, 2, size, decays);
        got(cell, Cpu(2), Chunked{chunk});
        check_equal(got, want);
      }
    }
  }
}
template <class Cell>
void check_adjoint(Cell cell) {
  for (const Index size : {1, 3}) check_adjoint(cell, size, {1, 2, 3, 4, 5, 15, 16, 17, 32, 47, 100, 300});
  for (const Index size : {8, 16}) check_adjoint(cell, size, {7, 16, 33, 64, 65});
  for (const Index size : {48, 64}) check_adjoint(cell, size, {21, 70});
  check_adjoint(cell, 128, {18});
}

}  // namespace

TEST_CASE("chunked back: WKV5 has the gradients of its steps") { check_adjoint(WKV5{}); }
TEST_CASE("chunked back: WKV7 has the gradients of its steps") { check_adjoint(WKV7{}); }
TEST_CASE("chunked back: a user's own cell has the gradients of its steps") {
  for (const Index size : {3, 16}) {
    check_adjoint(LinearAttention{}, size, {5, 33});
    check_adjoint(ReadsItself{}, size, {5, 33});
    check_adjoint(ReadsFirst{}, size, {5, 33});
  }
}

TEST_CASE("chunked back: a decay of zero has the gradient of its neighbourhood") {
  // The loss is linear in a decay, so the slope between two decays is the gradient at either.
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    constexpr Index time = 40, size = 5, place = (17 * 2 + 1) * size + 3;
    auto back = random_back<Cell, double>(1, time, 2, size, Decays::extreme);
    const auto loss = [&](double decay) {
      auto inputs = back.inputs;
      inputs[Cell::decay + 1][place] = decay;
      Buffer<double> y(time * 2 * size), last = back.first;
      const auto seq = [&](std::size_t i) { return arg::in(inputs[i].seq(1, time, 2 * size)); };
      [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
        Reference{}.recur(Arena(nullptr, 0), Sequential{}, cell, Extent<>{size}, last.mat(1, 2 * size * size), seq(0),
                          arg::shared(seq(Nth + 1))..., arg::out(y.seq(1, time, 2 * size)));
      }
      (std::make_index_sequence<Cell::shared.size()>());
      double sum = 0;
      for (std::size_t i = 0; i < y.numbers.size(); ++i) sum += y.numbers[i] * back.dy.numbers[i];
      for (std::size_t i = 0; i < last.numbers.size(); ++i) sum += last.numbers[i] * back.dlast.numbers[i];
      return sum;
    };
    back.inputs[Cell::decay + 1][place] = 0;
    back(cell, Cpu(1), Chunked{16});
    const double want = loss(1) - loss(0);
    CHECK(back.gradients[Cell::decay + 1][place] == doctest::Approx(want).epsilon(1e-9));
    CHECK(std::abs(want) > 1e-3);
  };
  check(WKV5{});
  check(WKV7{});
}

TEST_CASE("chunked back: two parts of a sequence, joined by the cotangent of the state, are the whole") {
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    constexpr Index time = 83, middle = 32, size = 16, width = 2 * size;
    auto whole = random_back<Cell, double>(1, time, 2, size, Decays::usual);
    whole(cell, Cpu(1), Chunked{16});
    auto parts = random_back<Cell, double>(1, time, 2, size, Decays::usual);
    const Buffer<double> first = parts.first;
    const auto seq = [&](std::size_t i) {
      return arg::in(Seq<double>{parts.inputs[i].numbers.data(), 1, middle, width});
    };
    Buffer<double> y(middle * width);
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {  // the state in the middle
      Reference{}.recur(Arena(nullptr, 0), Sequential{}, cell, Extent<>{size}, parts.first.mat(1, width * size), seq(0),
                        arg::shared(seq(Nth + 1))..., arg::out(y.seq(1, middle, width)));
    }
    (std::make_index_sequence<Cell::shared.size()>());
    parts.run(cell, Cpu(1), Chunked{16}, middle, time);
    parts.first = first;
    parts.dlast = parts.dfirst;
    parts.run(cell, Cpu(1), Chunked{16}, 0, middle);
    check_equal(parts, whole);
  };
  check(WKV5{});
  check(WKV7{});
}

TEST_CASE("chunked back: the bits are the same for any number of threads and in any batch") {
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    auto want = random_back<Cell, float>(2, 70, 3, 48, Decays::usual);
    want(cell, Cpu(1), Chunked{});
    for (const int threads : {2, 3}) {
      auto got = random_back<Cell, float>(2, 70, 3, 48, Decays::usual);
      got(cell, Cpu(threads), Chunked{});
      CHECK(same_bits(got, want));
    }
    auto single = random_back<Cell, float>(2, 70, 3, 48, Decays::usual);
    single.batch = 1;
    single(cell, Cpu(1), Chunked{});
    for (std::size_t i = 0; i < single.gradients.size(); ++i) {
      const auto& numbers = single.gradients[i].numbers;
      CHECK(std::equal(numbers.begin(), numbers.begin() + 70 * 3 * 48, want.gradients[i].numbers.begin()));
    }
  };
  check(WKV5{});
  check(WKV7{});
}

TEST_CASE("chunked back: Auto takes it from heads of 16 on") {
  for (const Index size : {15, 16}) {
    auto want = random_back<WKV7, float>(1, 21, 2, size, Decays::usual), got = want;
    if (size == 16) want(WKV7{}, Cpu(1), Chunked{});
    else want(WKV7{}, Cpu(1), Sequential{});
    got(WKV7{}, Cpu(1), Auto{});
    CHECK(same_bits(got, want));
  }
}

TEST_CASE("chunked back: parameters for all tokens, gradients that are added to, vectors of 16 bits") {
  constexpr Index batch = 2, time = 37, size = 20;
  auto each = random_back<WKV5, float>(batch, time, 1, size, Decays::usual);
  std::vector<bf16> narrow_keys;
  for (float& x : each.inputs[WKV5::key + 1].numbers) {
    narrow_keys.push_back(narrow<bf16>(x));
    x = widen<float>(narrow_keys.back());
  }
  for (const std::size_t i : {WKV5::decay + 1u, WKV5::bonus + 1u}) {
    for (Index n = size; n < batch * time * size; ++n) each.inputs[i][n] = each.inputs[i][n - size];
  }
  each(WKV5{}, Cpu(1), Chunked{});

  Back<float> got = each;
  std::vector<std::vector<float>> of_decay;
  for (const int threads : {1, 2, 3}) {
    Cpu be(threads);
    Buffer<float> ddecay(size, 1.0f), dbonus(size), dvalue(batch * time * size, 1.0f);
    const auto seq = [&](Buffer<float>& x) { return x.seq(batch, time, size); };
    const auto state = [&](Buffer<float>& x) { return Mat<const float>(x.mat(batch, size * size)); };
    const auto run = [&](Vec<float> to_bonus) {
      const auto call = [&](Arena scratch) {
        be.recur_back(scratch, Chunked{}, WKV5{}, Extent<size>{}, state(got.first), state(got.dlast),
                      got.dfirst.mat(batch, size * size), arg::in(seq(got.inputs[0])),
                      arg::shared(arg::in(seq(got.inputs[1]))),
                      arg::shared(arg::chan(Vec<float>{got.inputs[2].numbers.data(), size})),
                      arg::shared(arg::chan(Vec<float>{got.inputs[3].numbers.data(), size})),
                      arg::shared(arg::in(Seq<bf16>{narrow_keys.data(), batch, time, size})), arg::cot(seq(got.dy)),
                      arg::add(seq(dvalue)), arg::out(seq(got.gradients[1])), arg::sum(ddecay.vec()),
                      arg::sum(to_bonus), arg::out(seq(got.gradients[4])));
      };
      const auto memory = scratch_for(be, call);
      call(memory.arena());
    };
    run(dbonus.vec());
    CHECK(got.dfirst.numbers == each.dfirst.numbers);
    CHECK(got.gradients[1].numbers == each.gradients[1].numbers);
    CHECK(got.gradients[4].numbers == each.gradients[4].numbers);
    const auto added = [&](const Buffer<float>& to, const Buffer<float>& each_token) {
      double worst = 0;
      for (std::size_t n = 0; n < to.numbers.size(); ++n) {
        worst = std::max(worst, std::abs(double{to.numbers[n]} - 1 - double{each_token.numbers[n]}));
      }
      return worst;
    };
    CHECK(added(dvalue, each.gradients[0]) < 1e-5);
    const auto sum = [&](const Buffer<float>& each_token) {
      std::vector<double> totals(static_cast<std::size_t>(size));
      for (std::size_t n = 0; n < each_token.numbers.size(); ++n) totals[n % totals.size()] += each_token.numbers[n];
      return totals;
    };
    auto want = sum(each.gradients[2]);
    for (double& x : want) x += 1;
    CHECK(golden::relative_error(ddecay.numbers, want) < 1e-5);
    CHECK(golden::relative_error(dbonus.numbers, sum(each.gradients[3])) < 1e-5);
    of_decay.push_back(ddecay.numbers);
    run(Vec<float>{nullptr, 0});  // a frozen bonus
  }
  CHECK(of_decay[1] == of_decay[0]);
  CHECK(of_decay[2] == of_decay[0]);
}

TEST_CASE("chunked back: sequences without tokens, no sequences, and chunks without tokens") {
  auto run = random_back<WKV7, float>(0, 20, 2, 4, Decays::usual);
  run(WKV7{}, Cpu(2), Chunked{});
  auto still = random_back<WKV7, float>(2, 0, 2, 4, Decays::usual);
  still(WKV7{}, Cpu(2), Chunked{});
  CHECK(still.dfirst.numbers == still.dlast.numbers);
  auto wrong = random_back<WKV5, float>(1, 5, 1, 4, Decays::usual);
  CHECK_THROWS_WITH(wrong(WKV5{}, Cpu(1), Chunked{0}), "rwkv: a chunk needs at least one token, not 0");
}
