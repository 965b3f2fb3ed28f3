/// What verbs add, what they refuse, and how they say it.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include "../configs.hpp"

using namespace rwkv;
using config::Buffer;
using config::noise;

TEST_CASE_TEMPLATE("added outputs accumulate", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  auto be = C::backend();
  Buffer<T> x(noise(2 * 3 * 21, 9)), y(noise(2 * 3 * 21, 10)), expected(2 * 3 * 21);
  for (Index i = 0; i < 2 * 3 * 21; ++i) expected[i] = x[i] + y[i];
  be.rows(Copy{}, arg::in(x.seq(2, 3, 21)), arg::add(y.seq(2, 3, 21)));
  CHECK(y.numbers == expected.numbers);
}

TEST_CASE_TEMPLATE("views of disagreeing shapes are refused", C, RWKV_TEST_CONFIGS) {
  if constexpr (RWKV_CHECKED != 0) {
    using T = typename C::scalar;
    auto be = C::backend();
    Buffer<T> x(24), y(24);
    CHECK_THROWS_WITH_AS(be.rows(Copy{}, arg::in(x.seq(1, 4, 6)), arg::out(y.seq(1, 6, 4))),
                         "rwkv: an operand has shape [1, 4, 6], the output [1, 6, 4]", Error);
    CHECK_THROWS_WITH_AS(be.rows(Copy{}, arg::chan(x.vec()), arg::out(y.seq(1, 6, 4))),
                         "rwkv: a per-channel operand has 24 channels, the output 4", Error);
    CHECK_THROWS_WITH_AS(be.rows(Copy{}, arg::prev(x.seq(1, 6, 4), y.mat(2, 4)), arg::out(y.seq(1, 6, 4))),
                         "rwkv: a token-shift state has shape [2, 4], the sequence needs [1, 4]", Error);
    CHECK_THROWS_WITH_AS(mul(y.mat(2, 3), x.mat(2, 4), transposed(x.mat(3, 5))),
                         "rwkv: a product's factors share an axis of 4 and 5", Error);
    CHECK_THROWS_WITH_AS(mul(y.mat(2, 2), x.mat(2, 4), transposed(x.mat(3, 4))),
                         "rwkv: a product has shape [2, 3], its output [2, 2]", Error);
    CHECK_THROWS_WITH_AS(mul(y.mat(2, 4), x.mat(2, 3), x.mat(5, 4)),
                         "rwkv: a product's factors share an axis of 3 and 5", Error);
    CHECK_THROWS_WITH_AS(mul(plus(y.mat(2, 3)), x.mat(2, 5), x.mat(5, 4)),
                         "rwkv: a product has shape [2, 4], its output [2, 3]", Error);
    CHECK_THROWS_WITH_AS(mul(y.mat(3, 4), transposed(x.mat(2, 3)), x.mat(5, 4)),
                         "rwkv: a product's factors share an axis of 2 and 5", Error);
    CHECK_THROWS_WITH_AS(mul(plus(y.mat(2, 4)), transposed(x.mat(5, 3)), x.mat(5, 4)),
                         "rwkv: a product has shape [3, 4], its output [2, 4]", Error);
  }
}

TEST_CASE_TEMPLATE("a recurrence is refused what does not fit it", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  auto be = C::backend();
  Buffer<T> x(4000), state(160'000);
  const auto run = [&](Index width, Index head, Index numbers) {
    const auto s = arg::shared(arg::in(x.seq(1, 2, width)));
    config::Scratch scratch(64);
    be.recur(scratch.arena(), Auto{}, WKV7{}, Extent<>{head}, state.mat(1, numbers), arg::in(x.seq(1, 2, width)), s, s,
             s, s, s, arg::out(x.seq(1, 2, width)));
  };
  CHECK_THROWS_WITH_AS(run(400, 400, 400 * 400), "rwkv: a head size must be in [1, 256], not 400", Error);
  CHECK_THROWS_WITH_AS(run(8, 0, 8), "rwkv: a head size must be in [1, 256], not 0", Error);
  CHECK_THROWS_WITH_AS(run(10, 4, 40), "rwkv: a width of 10 does not divide into heads of 4", Error);
  if constexpr (RWKV_CHECKED != 0) {
    CHECK_THROWS_WITH_AS(run(8, 4, 31), "rwkv: the state of a recurrence has shape [1, 31], the sequence needs [1, 32]",
                         Error);
    CHECK_THROWS_AS(be.copy(x.mat(2, 3), state.mat(3, 2)), Error);
    const Token outside[] = {7};
    CHECK_THROWS_WITH_AS(be.gather_rows(x.mat(5, 3), outside, state.mat(1, 3)),
                         "rwkv: row 7 is outside a table of 5 rows", Error);
  }
}

TEST_CASE("a number of threads that cannot be is refused") {
  CHECK_THROWS_WITH_AS(Cpu(0), "rwkv: the number of threads must be in [1, 1024], not 0", Error);
  CHECK_THROWS_AS(Cpu(-2), Error);
}

TEST_CASE("an arena that is too small says so") {
  config::Scratch scratch(256);
  Arena arena = scratch.arena();
  arena.take<float>(64);
  CHECK_THROWS_AS(arena.take<float>(1), Error);
  Index peak = 0;
  Arena counter(peak);
  {
    Arena inner = counter;
    inner.take<float>(17);
    inner.take<float>(17);
  }
  counter.take<double>(1);
  CHECK(peak == 256);  // the memory of the inner copy is free again
}
