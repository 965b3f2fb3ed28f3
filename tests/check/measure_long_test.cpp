/// A bare recurrence in a program of one's own, and the limits that its time is judged by. Oracle: the scalar functor.
#include <doctest/doctest.h>

#include <rwkv/backend/cpu.hpp>
#include <rwkv/backend/reference.hpp>
#include <rwkv/cell/wkv4.hpp>
#include <rwkv/cell/wkv7.hpp>
#include <rwkv/check/cell_run.hpp>

#include <atomic>
#include <limits>
#include <string>
#include <vector>

using namespace rwkv;

TEST_CASE("a bare recurrence runs on any backend from the same numbers, and goes on from its state") {
  const auto check = []<class Cell>(Cell, const CellSizes& sizes, double tolerance) {
    CellRun<Cell, Cpu, double> run(sizes, Cpu(2));
    CellRun<Cell, Reference, double> reference(sizes);
    for (int pass = 0; pass < 2; ++pass) {
      run.forward(), reference.forward();
      const auto y = run.output(), want = reference.output();
      REQUIRE(std::ssize(y) == sizes.batch * sizes.time * sizes.width);
      double apart = 0, most = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        apart = std::max(apart, std::abs(y[i] - want[i]));
        most = std::max(most, std::abs(want[i]));
      }
      CHECK(most > 0);
      CHECK(apart <= tolerance * most);
    }
    CHECK(run.state() != CellRun<Cell, Cpu, double>(sizes).state());
    run.reset();
    CHECK(run.state() == CellRun<Cell, Cpu, double>(sizes).state());
  };
  check(WKV4{}, {.width = 13, .time = 9, .batch = 2}, 1e-12);
  check(WKV7{}, {.width = 12, .time = 5, .batch = 2, .head_size = 6}, 1e-12);

  using Channels = CellRun<WKV4, Reference>;
  using Rows = CellRun<WKV7, Reference>;
  Channels run({.width = 5});
  CHECK_THROWS_WITH_AS(run.fill("keys", 0, 1), "rwkv: the cell has no input named keys; it has decay bonus key value",
                       Error);
  CHECK_THROWS_WITH_AS(Rows({.width = 65}), "rwkv: a width of 65 has no whole heads of 64 channels, of at most 256",
                       Error);
  CHECK_THROWS_AS(Channels({.width = 0}), Error);
  CHECK_THROWS_WITH_AS(
      Channels({.width = 1 << 20, .time = Index{1} << 42}),
      "rwkv: the memory of a recurrence of 1 sequences, 4398046511104 tokens and 1048576 channels cannot "
      "be counted",
      Error);
  CHECK_THROWS_AS(Channels({.width = Index{1} << 62, .batch = 4}), Error);
  CHECK(run.work(34).bytes == (5 + 2 * 3) * 5 * 4);  // states are read and written
  CHECK(run.work(34).threads == 1);
  CHECK(CellRun<WKV4, Cpu>({.width = 8}, Cpu(3)).work(34).threads == 3);
  Rows rows({.width = 64, .time = 16});
  for (int pass = 0; pass < 50; ++pass) rows.forward();
  CHECK(std::ranges::all_of(rows.state(), [](float number) { return std::abs(number) < 1; }));
}

TEST_CASE("a time is judged by the limit that binds") {
  const double peak = fma_peak(1), bandwidth = read_bandwidth(1e6, 1);
  CHECK(peak > 1e8);
  CHECK(bandwidth > 1e8);
  CHECK(fma_peak(1) == peak);  // measured once
  const Timing computing = judged({.bytes = 1e6, .flops = peak, .tokens = 3}, 2);
  CHECK_FALSE(computing.of_bandwidth);
  CHECK(computing.fraction == doctest::Approx(0.5));
  const Timing reading = judged({.bytes = 1e6, .flops = 1, .tokens = 3}, 4e6 / bandwidth);
  CHECK(reading.of_bandwidth);
  CHECK(reading.fraction == doctest::Approx(0.25));
  CHECK(reading.text().ends_with(" GFLOP/s, 25 % of the read bandwidth"));
  int calls = 0;
  const Timing timed = measure(
      {.bytes = 1, .flops = 1, .tokens = 1}, [&] { ++calls; }, 3);
  CHECK(calls > 10);
  CHECK(timed.seconds > 0);
  CHECK(timed.spread >= 0);
  CHECK_THROWS_AS(read_bandwidth(1, 0), Error);
  CHECK_THROWS_AS(fma_peak(2000), Error);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(read_bandwidth(nan, 1), "rwkv: a working set has 0 bytes or more, not nan", Error);
  CHECK_THROWS_AS(read_bandwidth(-1, 1), Error);
  CHECK_THROWS_WITH_AS(judged({.bytes = 1}, 0), "rwkv: the time of a call is above 0 seconds, not 0", Error);
  CHECK_THROWS_AS(judged({.bytes = 1}, nan), Error);
}

TEST_CASE("threads begin together, or none where one cannot start") {
  std::atomic<int> begun = 0;
  const auto work = [&](int thread) { begun += thread; };
  {
    detail::limits::Others others;
    others.start(3, work);
  }
  CHECK(begun == 1 + 2 + 3);
}
