/// Row cells, forwards and backwards. Oracle: the goldens of wkv5, wkv6 and wkv7; for longer sequences and other sizes
/// the reference backend, which derives adjoints from dual numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../configs.hpp"
#include "../golden.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

/// What a recurrence is given and what it gives, forwards and backwards. Inputs: the value, then the shared vectors; a
/// vector of [width] numbers instead of [batch, time, width] is the same for every token.
template <class T>
struct Heads {
  Index batch, time, width, size;
  std::vector<Buffer<T>> inputs;
  Buffer<T> dy, first, dlast;
  std::vector<Buffer<T>> gradients = inputs;
  Buffer<T> y{batch * time * width}, last = first, dfirst = first;

  template <class Cell, class B, Index N, class Schedule = Auto>
  void run(Cell cell, B be, Extent<N> length, Schedule schedule = {}) {
    for (auto& gradient : gradients) std::fill(gradient.numbers.begin(), gradient.numbers.end(), T(0));
    with_operands(cell, [&](const auto&... in) {
      with_gradients(cell, [&](const auto&... out) {
        last = first;
        const auto state = [&](Buffer<T>& x) { return x.mat(batch, width * size); };
        be.recur(Arena(nullptr, 0), Auto{}, cell, length, state(last), in..., arg::out(y.seq(batch, time, width)));
        const auto back = [&](Arena scratch) {
          be.recur_back(scratch, schedule, cell, length, Mat<const T>(state(first)), Mat<const T>(state(dlast)),
                        state(dfirst), in..., arg::cot(dy.seq(batch, time, width)), out...);
        };
        const auto memory = scratch_for(be, back);
        back(memory.arena());
        be.sync();
      });
    });
  }

 private:
  bool per_token(std::size_t i) const { return std::ssize(inputs[i].numbers) == batch * time * width; }

  template <class Cell, class F, class... Op>
  void with_operands(Cell cell, const F& f, const Op&... ops) {
    constexpr std::size_t nth = sizeof...(Op);
    if constexpr (nth == 1 + Cell::shared.size()) {
      f(ops...);
    } else if constexpr (nth == 0) {
      with_operands(cell, f, arg::in(inputs[0].seq(batch, time, width)));
    } else if constexpr (std::is_same_v<Cell, WKV5> && (nth == 2 || nth == 3)) {  // decay and bonus
      if (per_token(nth)) with_operands(cell, f, ops..., arg::shared(arg::in(inputs[nth].seq(batch, time, width))));
      else with_operands(cell, f, ops..., arg::shared(arg::chan(inputs[nth].vec())));
    } else {
      with_operands(cell, f, ops..., arg::shared(arg::in(inputs[nth].seq(batch, time, width))));
    }
  }
  template <class Cell, class F, class... Op>
  void with_gradients(Cell cell, const F& f, const Op&... ops) {
    constexpr std::size_t nth = sizeof...(Op);
    if constexpr (nth == 1 + Cell::shared.size()) {
      f(ops...);
    } else if constexpr (std::is_same_v<Cell, WKV5> && (nth == 2 || nth == 3)) {
      if (per_token(nth)) with_gradients(cell, f, ops..., arg::out(gradients[nth].seq(batch, time, width)));
      else with_gradients(cell, f, ops..., arg::sum(gradients[nth].vec()));
    } else {
      with_gradients(cell, f, ops..., arg::out(gradients[nth].seq(batch, time, width)));
    }
  }
};

/// Swaps the two axes of every head's state.
std::vector<double> transposed_heads(const std::vector<double>& from, Index n) {
  std::vector<double> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto size = static_cast<std::size_t>(n), head = i / (size * size), row = i / size % size, col = i % size;
    to[(head * size + col) * size + row] = from[i];
  }
  return to;
}

/// Per head: repeated for each channel; gradients per channel: summed for each head.
std::vector<double> each_channel(const std::vector<double>& from, Index n) {
  std::vector<double> to;
  for (const double x : from) to.insert(to.end(), static_cast<std::size_t>(n), x);
  return to;
}
std::vector<double> sum_of_heads(const std::vector<double>& from, Index n) {
  std::vector<double> to(from.size() / static_cast<std::size_t>(n), 0.0);
  for (std::size_t i = 0; i < from.size(); ++i) to[i / static_cast<std::size_t>(n)] += from[i];
  return to;
}

template <class T>
std::vector<double> doubles(const Buffer<T>& from) {
  return {from.numbers.begin(), from.numbers.end()};
}

template <class Config, class Cell, class Schedule = Auto>
void check_goldens(const std::string& prefix, Cell cell, std::size_t fewest, Schedule schedule = {}) {
  using T = typename Config::scalar;
  constexpr bool v7 = std::is_same_v<Cell, WKV7>;
  for (const auto& path : golden::files("ops", prefix, fewest)) {
    const golden::File file(path);
    CAPTURE(path.filename().string());
    const auto r = file["in.r"];
    const Index batch = r.size(0), time = r.size(1), heads = r.size(2), n = r.size(3), width = heads * n;
    const auto state = [&](const std::string& name) {
      return v7 ? transposed_heads(file[name].values, n) : file[name].values;
    };
    // The decay is stored raw, and so is the bonus of RWKV-5.0.
    const std::string raw_name = file.has("in.w") ? "w" : "time_decay";
    const std::string bonus_name = file.has("in.time_first") ? "time_first" : "time_faaaa";
    auto raw = file["in." + raw_name].values;
    const bool per_head = raw.size() == static_cast<std::size_t>(heads);
    if (per_head) raw = each_channel(raw, n);
    std::vector<double> decay, bonus;
    for (const double x : raw) decay.push_back(std::exp(-std::exp(x)));
    std::vector<Buffer<T>> inputs{Buffer<T>(file["in.v"].values), Buffer<T>(r.values), Buffer<T>(decay)};
    if constexpr (v7) {
      for (const char* name : {"in.k", "in.a", "in.b"}) inputs.emplace_back(file[name].values);
    } else {
      bonus = file["in." + bonus_name].values;
      if (bonus_name == "time_first")
        std::transform(bonus.begin(), bonus.end(), bonus.begin(), [](double x) { return std::exp(x); });
      if (bonus.size() == static_cast<std::size_t>(heads)) bonus = each_channel(bonus, n);
      inputs.emplace_back(bonus);
      inputs.emplace_back(file["in.k"].values);
    }
    Heads<T> run{batch,
                 time,
                 width,
                 n,
                 inputs,
                 Buffer<T>(file["cot.y"].values),
                 Buffer<T>(state("in.state.wkv")),
                 Buffer<T>(state("cot.state.wkv"))};
    run.run(cell, Config::backend(), Extent<>{n}, schedule);

    const bool single = path.filename().string().find("_t1_") != std::string::npos;
    const auto check = [&](const std::vector<double>& got, const std::vector<double>& want, const std::string& name) {
      CAPTURE(name);
      const double limit = std::is_same_v<T, double> ? 1e-11 : single ? 1e-4 : 1e-5;
      CHECK(golden::relative_error(got, want) < limit);
    };
    check(doubles(run.y), file["out.y"].values, "y");
    check(doubles(run.last), state("out.state.wkv"), "state");
    check(doubles(run.dfirst), state("grad.state.wkv"), "dfirst");
    check(doubles(run.gradients[0]), file["grad.v"].values, "v");
    check(doubles(run.gradients[1]), file["grad.r"].values, "r");
    auto draw = doubles(run.gradients[2]);  // through w = exp(-exp(x)), whose slope is -exp(x) w
    for (std::size_t i = 0; i < draw.size(); ++i) draw[i] *= -std::exp(raw[i]) * decay[i];
    check(per_head ? sum_of_heads(draw, n) : draw, file["grad." + raw_name].values, "decay");
    if constexpr (v7) {
      check(doubles(run.gradients[3]), file["grad.k"].values, "k");
      check(doubles(run.gradients[4]), file["grad.a"].values, "a");
      check(doubles(run.gradients[5]), file["grad.b"].values, "b");
    } else {
      auto dbonus = doubles(run.gradients[3]);
      if (bonus_name == "time_first") {
        for (std::size_t i = 0; i < dbonus.size(); ++i) dbonus[i] *= bonus[i];
      }
      const auto want = file["grad." + bonus_name].values;
      check(want.size() < dbonus.size() ? sum_of_heads(dbonus, n) : dbonus, want, "bonus");
      check(doubles(run.gradients[4]), file["grad.k"].values, "k");
    }
  }
}

#ifdef RWKV_TEST_ALL
/// WKV5 without its hand-written adjoint.
struct DerivedWKV5 {
  static constexpr auto inputs = WKV5::inputs;
  static constexpr auto shared = WKV5::shared;
  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    return WKV5::step(state, x, head);
  }
};
#endif

/// A row cell with every operation and function of functor numbers.
struct Bounded {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"key"};

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    R sum = -R(0), most = x[0];
    for (Index n = 0; n < state.size; ++n) {
      const R k = head(0, n);
      R next = select(state[n] < k, exp(state[n] - k), sigmoid(k)) / (R(1) + k * k);
      next -= R(0.25f) * max(next, x[0]);
      next *= sqrt(R(1) + x[0] * x[0]);
      state[n] = next;
      sum += next;
      most = detach(max(most, next));
    }
    return sum + most;
  }
};

template <class T>
Heads<T> random_heads(Index batch, Index time, Index heads, Index size, std::size_t vectors) {
  const Index width = heads * size, tokens = batch * time * width;
  std::vector<Buffer<T>> inputs;
  for (std::size_t i = 0; i <= vectors; ++i) inputs.emplace_back(config::noise(tokens, i + 1));
  for (T& w : inputs[2].numbers) w = T(0.9) + w / 8;  // the decay
  const auto state = [&](std::uint64_t seed) { return Buffer<T>(config::noise(batch * width * size, seed)); };
  return {batch, time, width, size, inputs, Buffer<T>(config::noise(tokens, 90)), state(91), state(92)};
}

template <class T>
void check_equal(const Heads<T>& got, const Heads<double>& want, double limit) {
  CHECK(golden::relative_error(got.y.numbers, want.y.numbers) < limit);
  CHECK(golden::relative_error(got.last.numbers, want.last.numbers) < limit);
  CHECK(golden::relative_error(got.dfirst.numbers, want.dfirst.numbers) < limit);
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(golden::relative_error(got.gradients[i].numbers, want.gradients[i].numbers) < limit);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("row cells: WKV5 and its gradients are those of the goldens", C, RWKV_TEST_CONFIGS) {
  check_goldens<C>("wkv5_", WKV5{}, 6);
}
TEST_CASE_TEMPLATE("row cells: WKV5 with a decay for each token is that of RWKV-6", C, RWKV_TEST_CONFIGS) {
  check_goldens<C>("wkv6_", WKV5{}, 4);
}
TEST_CASE_TEMPLATE("row cells: WKV7 and its gradients are those of the goldens", C, RWKV_TEST_CONFIGS) {
  check_goldens<C>("wkv7_", WKV7{}, 6);
}

TEST_CASE_TEMPLATE("row cells: awkward sizes agree with the reference", C, RWKV_OPTIMISED_CONFIGS) {
  using T = typename C::scalar;
  const double limit = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  struct Case {
    Index batch, time, heads, size;
  };
  for (const Case& c : {Case{1, 1, 1, 1}, Case{3, 2, 23, 3}, Case{1, 33, 2, 5}, Case{2, 65, 1, 4}, Case{1, 32, 1, 19},
                        Case{1, 3, 1, 33}, Case{1, 2, 1, 117}, Case{2, 0, 2, 4}, Case{0, 3, 2, 4}}) {
    const Index batch = c.batch, time = c.time, heads = c.heads, size = c.size;
    CAPTURE(time);
    CAPTURE(size);
    auto want5 = random_heads<double>(batch, time, heads, size, 4),
         want7 = random_heads<double>(batch, time, heads, size, 5);
    auto got5 = random_heads<T>(batch, time, heads, size, 4), got7 = random_heads<T>(batch, time, heads, size, 5);
    want5.run(WKV5{}, Reference{}, Extent<>{size});
    got5.run(WKV5{}, C::backend(), Extent<>{size});
    check_equal(got5, want5, limit);
    want7.run(WKV7{}, Reference{}, Extent<>{size});
    got7.run(WKV7{}, C::backend(), Extent<>{size});
    check_equal(got7, want7, limit);
  }
}

TEST_CASE_TEMPLATE("row cells: all that a functor may call, in heads of any number of packs", C,
                   RWKV_OPTIMISED_CONFIGS) {
  using T = typename C::scalar;
  for (const Index size : {1, 9, 64, 117}) {  // 117: four packs, two, one and a part, of 16 floats each
    CAPTURE(size);
    const Index time = 3, width = 2 * size;
    const auto run = [&]<class U, class B>(U, B be, std::vector<U>& y, std::vector<U>& last) {
      Buffer<U> value(config::noise(2 * time * width, 1)), key(config::noise(2 * time * width, 2));
      Buffer<U> state(config::noise(2 * width * size, 3)), out(2 * time * width);
      be.recur(Arena(nullptr, 0), Auto{}, Bounded{}, Extent<>{size}, state.mat(2, width * size),
               arg::in(value.seq(2, time, width)), arg::shared(arg::in(key.seq(2, time, width))),
               arg::out(out.seq(2, time, width)));
      be.sync();
      y = out.numbers;
      last = state.numbers;
    };
    std::vector<double> want, want_last;
    std::vector<T> got, got_last;
    run(double{}, Reference{}, want, want_last);
    run(T{}, C::backend(), got, got_last);
    const double limit = std::is_same_v<T, double> ? 1e-13 : 2e-6;
    CHECK(golden::relative_error(got, want) < limit);
    CHECK(golden::relative_error(got_last, want_last) < limit);
  }
}

#if defined(RWKV_TEST_ALL) || defined(RWKV_TEST_CUDA)
TEST_CASE_TEMPLATE("row cells: in chunks of time, the gradients are those of the goldens", C, RWKV_OPTIMISED_CONFIGS) {
  check_goldens<C>("wkv7_", WKV7{}, 6, Chunked{8});
#ifdef RWKV_TEST_ALL  // by CUDA, the mixtures of operands take long to compile
  check_goldens<C>("wkv5_", WKV5{}, 6, Chunked{8});
  check_goldens<C>("wkv6_", WKV5{}, 4, Chunked{8});
#endif
}
#endif
#ifdef RWKV_TEST_ALL
TEST_CASE("row cells: a cell without a hand-written adjoint has the same gradients") {
  auto want = random_heads<double>(2, 7, 3, 6, 4), got = want, fixed = want;
  want.run(WKV5{}, Cpu(2), Extent<>{6});
  got.run(DerivedWKV5{}, Cpu(2), Extent<>{6});
  check_equal(got, want, 1e-13);
  fixed.run(DerivedWKV5{}, Cpu(1), Extent<6>{});
  check_equal(fixed, want, 1e-13);
}
#endif
