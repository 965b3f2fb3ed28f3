/// Row cells in chunks of time. Oracle: the same cell token after token on the reference backend, and the goldens of
/// wkv6 and wkv7.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../golden.hpp"
#include "../numbers.hpp"
#include "chunked_cells.hpp"

using namespace rwkv;
using config::Buffer;
using config::Decays;
using config::LinearAttention;
using config::ReadsFirst;
using config::ReadsItself;

namespace {

/// What a row cell is given and what it gives. Inputs: the value, then the shared vectors, all [batch, time, width].
template <class T>
struct Run {
  Index batch, time, width, size;
  std::vector<Buffer<T>> inputs;
  Buffer<T> first;
  Buffer<T> y{batch * time * width}, last = first;

  template <class Cell, class B, class Schedule>
  void operator()(Cell cell, B be, Schedule schedule) {
    run(cell, be, schedule, 0, time);
  }
  /// Runs the tokens [begin, end) from `first`.
  template <class Cell, class B, class Schedule>
  void run(Cell cell, B be, Schedule schedule, Index begin, Index end) {
    with_operands<Cell>(begin, end, [&](const auto&... ops) {
      last = first;
      const auto call = [&](Arena scratch) {
        be.recur(scratch, schedule, cell, Extent<>{size}, last.mat(batch, width * size), ops...);
      };
      const auto memory = scratch_for(be, call);
      call(memory.arena());
      be.sync();
    });
  }

 private:
  /// Parts of sequences need a batch of one.
  template <class Cell, class F>
  void with_operands(Index begin, Index end, const F& f) {
    const auto part = [&](auto& buffer) {
      return Seq<T>{buffer.numbers.data() + begin * width, batch, end - begin, width};
    };
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
      f(arg::in(part(inputs[0])), arg::shared(arg::in(part(inputs[Nth + 1])))..., arg::out(part(y)));
    }
    (std::make_index_sequence<Cell::shared.size()>());
  }
};

template <class Cell, class T>
Run<T> random_run(Index batch, Index time, Index heads, Index size, Decays decays) {
  const Index width = heads * size;
  return {batch,
          time,
          width,
          size,
          config::random_inputs<Cell, T>(batch, time, width, size, decays),
          Buffer<T>(config::noise(batch * width * size, 91))};
}

template <class T, class U>
void check_equal(const Run<T>& got, const Run<U>& want) {
  const double limit = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  CHECK(golden::relative_error(got.y.numbers, want.y.numbers) < limit);
  CHECK(golden::relative_error(got.last.numbers, want.last.numbers) < limit);
}

/// The law of HasTransition: what the transition declares is what `step` does.
template <class Config, class Cell>
void check_law(Cell cell, Index size, std::initializer_list<Index> times) {
  using T = typename Config::scalar;
  static_assert(HasTransition<Cell>);
  CAPTURE(size);
  for (const Index time : times) {
    CAPTURE(time);
    for (const Decays decays : {Decays::usual, Decays::extreme}) {
      auto want = random_run<Cell, double>(2, time, 2, size, decays);
      want(cell, Reference{}, Sequential{});
      for (const Index chunk : {1, 6, 16, 64}) {
        if (size > 16 && chunk == 6) continue;
        CAPTURE(chunk);
        auto got = random_run<Cell, T>(2, time, 2, size, decays);
        got(cell, Config::backend(), Chunked{chunk});
        check_equal(got, want);
      }
    }
  }
}
template <class Config, class Cell>
void check_law(Cell cell) {
  for (const Index size : {1, 3}) check_law<Config>(cell, size, {1, 2, 3, 4, 5, 15, 16, 17, 32, 47, 100, 300});
  for (const Index size : {8, 16}) check_law<Config>(cell, size, {7, 16, 33});
  for (const Index size : {48, 64}) check_law<Config>(cell, size, {21});
  check_law<Config>(cell, 128, {18});
}

template <class Config, class Cell>
void check_goldens(const std::string& prefix, Cell cell, std::size_t fewest) {
  using T = typename Config::scalar;
  constexpr bool v7 = std::is_same_v<Cell, WKV7>;
  for (const auto& path : golden::files("ops", prefix, fewest)) {
    const golden::File file(path);
    CAPTURE(path.filename().string());
    const auto r = file["in.r"];
    const Index batch = r.size(0), time = r.size(1), heads = r.size(2), n = r.size(3);
    const auto state = [&](const std::string& name) {
      return v7 ? golden::transposed(file[name].values, n, n) : file[name].values;
    };
    auto decay = file["in.w"].values;
    for (double& w : decay) w = std::exp(-std::exp(w));
    std::vector<Buffer<T>> inputs{Buffer<T>(file["in.v"].values), Buffer<T>(r.values), Buffer<T>(decay)};
    if constexpr (v7) {
      for (const char* name : {"in.k", "in.a", "in.b"}) inputs.emplace_back(file[name].values);
    } else {  // the bonus, the same for every token
      const auto bonus = file["in.time_faaaa"].values;
      std::vector<double> per_token;
      for (Index token = 0; token < batch * time; ++token)
        per_token.insert(per_token.end(), bonus.begin(), bonus.end());
      inputs.emplace_back(per_token);
      inputs.emplace_back(file["in.k"].values);
    }
    for (const Index chunk : {1, 8, 16}) {
      CAPTURE(chunk);
      Run<T> run{batch, time, heads * n, n, inputs, Buffer<T>(state("in.state.wkv"))};
      run(cell, Config::backend(), Chunked{chunk});
      const bool single = path.filename().string().find("_t1_") != std::string::npos;
      const double limit = std::is_same_v<T, double> ? 1e-11 : single ? 1e-4 : 1e-5;
      CHECK(golden::relative_error(run.y.numbers, file["out.y"].values) < limit);
      CHECK(golden::relative_error(run.last.numbers, state("out.state.wkv")) < limit);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("chunked: WKV5 with a decay for each token is that of RWKV-6", C, RWKV_TEST_CONFIGS) {
  check_goldens<C>("wkv6_", WKV5{}, 4);
}
TEST_CASE_TEMPLATE("chunked: WKV7 is that of the goldens", C, RWKV_TEST_CONFIGS) {
  check_goldens<C>("wkv7_", WKV7{}, 6);
}

TEST_CASE_TEMPLATE("chunked: WKV5 is its step", C, RWKV_TEST_CONFIGS) { check_law<C>(WKV5{}); }
TEST_CASE_TEMPLATE("chunked: WKV7 is its step", C, RWKV_TEST_CONFIGS) { check_law<C>(WKV7{}); }
TEST_CASE_TEMPLATE("chunked: a user's own cell is its step", C, RWKV_TEST_CONFIGS) {
  for (const Index size : {3, 16}) {
    check_law<C>(LinearAttention{}, size, {5, 33});
    check_law<C>(ReadsItself{}, size, {5, 33});
    check_law<C>(ReadsFirst{}, size, {5, 33});
  }
}

TEST_CASE_TEMPLATE("chunked: a long sequence of whole heads", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    auto want = random_run<Cell, double>(1, 300, 1, 64, Decays::extreme);
    auto got = random_run<Cell, T>(1, 300, 1, 64, Decays::extreme);
    want(cell, Reference{}, Sequential{});
    got(cell, C::backend(), Chunked{});
    check_equal(got, want);
  };
  check(WKV5{});
  check(WKV7{});
}

TEST_CASE_TEMPLATE("chunked: two parts of a sequence are the whole", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    auto whole = random_run<Cell, T>(1, 83, 2, 16, Decays::usual);
    whole(cell, C::backend(), Chunked{16});
    for (const Index middle : {1, 32, 50}) {
      CAPTURE(middle);
      auto parts = random_run<Cell, T>(1, 83, 2, 16, Decays::usual);
      parts.run(cell, C::backend(), Chunked{16}, 0, middle);
      std::swap(parts.first, parts.last);
      parts.run(cell, C::backend(), Chunked{16}, middle, 83);
      check_equal(parts, whole);
      if (middle == 32) CHECK(parts.y.numbers == whole.y.numbers);  // a multiple of the chunk
    }
  };
  check(WKV5{});
  check(WKV7{});
}

#ifndef RWKV_TEST_CUDA
TEST_CASE("chunked: the bits are the same for any number of threads and in any batch") {
  const auto check = [](auto cell) {
    using Cell = decltype(cell);
    auto want = random_run<Cell, float>(2, 70, 3, 48, Decays::usual);
    want(cell, Cpu(1), Chunked{});
    for (const int threads : {2, 3}) {
      auto got = random_run<Cell, float>(2, 70, 3, 48, Decays::usual);
      got(cell, Cpu(threads), Chunked{});
      CHECK(got.y.numbers == want.y.numbers);
      CHECK(got.last.numbers == want.last.numbers);
    }
    auto single = random_run<Cell, float>(2, 70, 3, 48, Decays::usual);
    single.batch = 1;
    single(cell, Cpu(1), Chunked{});
    CHECK(std::equal(single.y.numbers.begin(), single.y.numbers.begin() + 70 * 3 * 48, want.y.numbers.begin()));
  };
  check(WKV5{});
  check(WKV7{});
}

TEST_CASE("chunked: fewer tokens than a chunk have the bits of single steps, without scratch") {
  auto want = random_run<WKV7, float>(1, 15, 2, 16, Decays::usual);
  auto got = want;
  want(WKV7{}, Cpu(1), Sequential{});
  got(WKV7{}, Cpu(1), Chunked{16});
  CHECK(got.y.numbers == want.y.numbers);
  CHECK(got.last.numbers == want.last.numbers);
}

TEST_CASE("chunked: vectors of 16 bits, and the same for every token") {
  constexpr Index time = 37, size = 20;
  Run<float> wide = random_run<WKV5, float>(1, time, 1, size, Decays::usual);
  std::vector<bf16> narrow_keys;
  for (float& x : wide.inputs[4].numbers) {
    narrow_keys.push_back(narrow<bf16>(x));
    x = widen<float>(narrow_keys.back());
  }
  for (const std::size_t i : {2u, 3u}) {  // decay and bonus
    for (Index n = size; n < time * size; ++n) wide.inputs[i][n] = wide.inputs[i][n - size];
  }
  wide(WKV5{}, Cpu(1), Chunked{});
  Run<float> got = wide;
  got.last = got.first;
  Cpu be(1);
  const auto seq = [&](std::size_t i) { return got.inputs[i].seq(1, time, size); };
  const auto call = [&](Arena scratch) {
    be.recur(scratch, Chunked{}, WKV5{}, Extent<size>{}, got.last.mat(1, size * size), arg::in(seq(0)),
             arg::shared(arg::in(seq(1))), arg::shared(arg::chan(Vec<float>{got.inputs[2].numbers.data(), size})),
             arg::shared(arg::chan(Vec<float>{got.inputs[3].numbers.data(), size})),
             arg::shared(arg::in(Seq<bf16>{narrow_keys.data(), 1, time, size})), arg::out(got.y.seq(1, time, size)));
  };
  const auto memory = scratch_for(be, call);
  call(memory.arena());
  CHECK(got.y.numbers == wide.y.numbers);
  CHECK(got.last.numbers == wide.last.numbers);
}

TEST_CASE("chunked: a chunk needs a token") {
  auto run = random_run<WKV5, float>(1, 5, 1, 4, Decays::usual);
  CHECK_THROWS_WITH(run(WKV5{}, Cpu(1), Chunked{0}), "rwkv: a chunk needs at least one token, not 0");
}
#endif
