/// The recurrences alone. `scalar` is the functor on one lane at a time, in the lane driver of the packs; `pack` is the
/// functor as the library runs it; `hand` is a hand-written loop for WKV4; `scan` is parallel over time; `chunked` is a
/// row cell in chunks of time, whose `fraction` counts the operations of token after token. `back` is the backward pass;
/// `derived` is the backward pass with the adjoint from dual numbers. Row cells have 12 heads.
#include <cmath>
#include <numeric>
#include <vector>

#include "../report.hpp"
#include "../sizes.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;
using rwkv::Extent;
using rwkv::Seq;
namespace arg = rwkv::arg;

/// Seconds of the scalar functor for each case, for the ratios.
std::map<std::string, double> scalar_seconds;

/// Measures the scalar functor at the first use of a case.
template <class Body>
double scalar_time(const std::string& key, const Body& body) {
  auto& seconds = scalar_seconds[key];
  if (seconds == 0) {
    std::vector<double> times;
    for (int r = 0; r < 7; ++r) {
      Index runs = 0;
      const auto start = bench::Clock::now();
      do {
        body();
        bench::detail::forget();
        ++runs;
      } while (bench::seconds_since(start) < 0.01);
      times.push_back(bench::seconds_since(start) / static_cast<double>(runs));
    }
    seconds = bench::median(times);
  }
  return seconds;
}

/// Adds the column `x_scalar`: how many times faster than the scalar functor.
void compare(benchmark::State& state, double scalar, Index time) {
  state.counters["x_scalar"] = state.counters["tokens/s"] * scalar / static_cast<double>(time);
}

/// Inputs and output of WKV4 for one sequence.
struct Case4 {
  Index width, time;
  std::vector<float> w, u, k, v, y, state;

  Case4(Index channels, Index tokens)
      : width(channels), time(tokens), w(bench::uniform<float>(width, -3.0f, -0.01f, 1)),
        u(bench::uniform<float>(width, -1, 1, 2)), k(bench::uniform<float>(width * time, -2, 2, 3)),
        v(bench::uniform<float>(width * time, -1, 1, 4)), y(static_cast<std::size_t>(width * time)),
        state(static_cast<std::size_t>(3 * width)) {
    std::fill_n(state.begin() + 2 * width, width, -1e38f);
  }

  bench::Work work(int threads) const {
    const double numbers = static_cast<double>(width * time);
    // Two exponentials, each counted as ten operations, one division and the rest.
    return {.bytes = 3 * numbers * sizeof(float),
            .flops = 34 * numbers,
            .tokens = static_cast<double>(time),
            .threads = threads};
  }

  Seq<const float> in(const std::vector<float>& numbers) const { return {numbers.data(), 1, time, width}; }
  rwkv::Vec<const float> chan(const std::vector<float>& numbers) const { return {numbers.data(), width}; }

  template <class Schedule>
  void library(Cpu& cpu, rwkv::Arena scratch, Schedule schedule) {
    cpu.recur(scratch, schedule, rwkv::WKV4{}, Extent<3>{}, rwkv::matrix(state.data(), 1, 3 * width),
              arg::chan(chan(w)), arg::chan(chan(u)), arg::in(in(k)), arg::in(in(v)),
              arg::out(Seq<float>{y.data(), 1, time, width}));
  }

  void scalar() {
    for (Index lane = 0; lane < width; ++lane) {
      rwkv::advance_lanes<rwkv::One<float>, 1>(rwkv::WKV4{}, Extent<3>{}, state.data(), {0, 0, width, lane},
                                               rwkv::detail::AllLanes{}, 0, time, arg::chan(chan(w)),
                                               arg::chan(chan(u)), arg::in(in(k)), arg::in(in(v)),
                                               arg::out(Seq<float>{y.data(), 1, time, width}));
    }
  }

  /// The loop as written without the library, with channels in the inner loop for the compiler to vectorise.
  void hand() {
    float *a = state.data(), *b = a + width, *p = b + width;
    for (Index t = 0; t < time; ++t) {
      const float *kt = k.data() + t * width, *vt = v.data() + t * width;
      float* yt = y.data() + t * width;
      for (Index c = 0; c < width; ++c) {
        const float uk = u[static_cast<std::size_t>(c)] + kt[c];
        const float now = std::max(p[c], uk);
        const float past = std::exp(p[c] - now), current = std::exp(uk - now);
        yt[c] = (past * a[c] + current * vt[c]) / (past * b[c] + current);
        const float decayed = p[c] + w[static_cast<std::size_t>(c)];
        const float next = std::max(decayed, kt[c]);
        const float keep = std::exp(decayed - next), add = std::exp(kt[c] - next);
        a[c] = keep * a[c] + add * vt[c];
        b[c] = keep * b[c] + add;
        p[c] = next;
      }
    }
  }
};

/// Seconds of the scalar functor for the same case.
double scalar_time(Case4& data) {
  return scalar_time(rwkv::join("wkv4/", data.width, "/", data.time), [&] { data.scalar(); });
}

void wkv4_scalar(benchmark::State& state, Index width, Index time) {
  Case4 data(width, time);
  bench::measure(state, data.work(1), [&] { data.scalar(); });
  compare(state, scalar_time(data), time);
}

void wkv4_hand(benchmark::State& state, Index width, Index time) {
  Case4 data(width, time);
  const double scalar = scalar_time(data);
  bench::measure(state, data.work(1), [&] { data.hand(); });
  compare(state, scalar, time);
}

template <class Schedule>
void wkv4_library(benchmark::State& state, Index width, Index time, int threads) {
  Cpu cpu(threads);
  Case4 data(width, time);
  const double scalar = scalar_time(data);
  const auto call = [&](rwkv::Arena ws) { data.library(cpu, ws, Schedule{}); };
  const auto scratch = rwkv::scratch_for(cpu, call);
  bench::measure(state, data.work(threads), [&] { call(scratch.arena()); });
  compare(state, scalar, time);
}

/// WKV4 with its hand-written adjoint hidden.
struct Derived4 {
  static constexpr auto inputs = rwkv::WKV4::inputs;
  static constexpr int state_size = rwkv::WKV4::state_size;
  template <class R>
  RWKV_HD static void init(R (&state)[3]) {
    rwkv::WKV4::init(state);
  }
  template <class R>
  RWKV_HD static R step(R (&state)[3], const R (&x)[4]) {
    return rwkv::WKV4::step(state, x);
  }
  template <class R>
  RWKV_HD static auto lift(const R (&x)[4]) {
    return rwkv::WKV4::lift(x);
  }
  template <class R>
  RWKV_HD static auto compose(const rwkv::WKV4::Stretch<R>& earlier, const rwkv::WKV4::Stretch<R>& later) {
    return rwkv::WKV4::compose(earlier, later);
  }
  template <class R>
  RWKV_HD static void enter(R (&state)[3], const rwkv::WKV4::Stretch<R>& stretch) {
    rwkv::WKV4::enter(state, stretch);
  }
};

/// The backward pass of WKV4 for one sequence: from the cotangent of the output to the gradients of all inputs.
struct CaseBack4 : Case4 {
  std::vector<float> dy, dw, du, dk, dv, dlast, dfirst;
  std::vector<float> before;  ///< the state before every token, for the loops outside the library

  CaseBack4(Index channels, Index tokens)
      : Case4(channels, tokens), dy(bench::uniform<float>(width * time, -1, 1, 5)), dw(w.size()), du(w.size()),
        dk(k.size()), dv(k.size()), dlast(state.size()), dfirst(state.size()), before(3 * k.size()) {}

  bench::Work work(int threads) const {
    const double numbers = static_cast<double>(width * time);
    // One exponential to recompute the states, two exponentials and a division for the adjoint, and the rest.
    return {.bytes = 5 * numbers * sizeof(float),
            .flops = 75 * numbers,
            .tokens = static_cast<double>(time),
            .threads = threads};
  }

  rwkv::Vec<float> sum(std::vector<float>& numbers) const { return {numbers.data(), width}; }
  Seq<float> out(std::vector<float>& numbers) const { return {numbers.data(), 1, time, width}; }

  template <class Cell, class Schedule>
  void library(Cpu& cpu, rwkv::Arena scratch, Schedule schedule) {
    cpu.recur_back(
        scratch, schedule, Cell{}, Extent<3>{}, rwkv::Mat<const float>{state.data(), 1, 3 * width, 3 * width},
        rwkv::Mat<const float>{dlast.data(), 1, 3 * width, 3 * width}, rwkv::matrix(dfirst.data(), 1, 3 * width),
        arg::chan(chan(w)), arg::chan(chan(u)), arg::in(in(k)), arg::in(in(v)), arg::cot(in(dy)), arg::sum(sum(dw)),
        arg::sum(sum(du)), arg::out(out(dk)), arg::out(out(dv)));
  }

  void scalar() {
    using One = rwkv::One<float>;
    for (Index lane = 0; lane < width; ++lane) {
      One now[3], dstate[3], sums[2]{One(0), One(0)};
      rwkv::detail::load_lanes(now, state.data() + lane, width, rwkv::detail::AllLanes{});
      rwkv::detail::load_lanes(dstate, dlast.data() + lane, width, rwkv::detail::AllLanes{});
      const Index stretches = (time + rwkv::back_stretch - 1) / rwkv::back_stretch;
      const auto begin = [&](Index s) { return std::min(time, s * rwkv::back_stretch); };
      for (Index s = 0; s < stretches; ++s) {
        rwkv::detail::store_lanes(now, before.data() + 3 * s, 1, rwkv::detail::AllLanes{});
        for (Index t = begin(s); t < begin(s + 1); ++t) {
          const auto c = static_cast<std::size_t>(lane), i = static_cast<std::size_t>(t * width + lane);
          const One x[4] = {One(w[c]), One(u[c]), One(k[i]), One(v[i])};
          rwkv::advance<rwkv::WKV4>(now, x);
        }
      }
      for (Index s = stretches; s-- > 0;) {
        One start[3];
        rwkv::detail::load_lanes(start, before.data() + 3 * s, 1, rwkv::detail::AllLanes{});
        rwkv::retreat_lanes<One>(rwkv::WKV4{}, 0, lane, rwkv::detail::AllLanes{}, begin(s), begin(s + 1), start, dstate,
                                 sums, arg::chan(chan(w)), arg::chan(chan(u)), arg::in(in(k)), arg::in(in(v)),
                                 arg::cot(in(dy)), arg::sum(sum(dw)), arg::sum(sum(du)), arg::out(out(dk)),
                                 arg::out(out(dv)));
      }
      rwkv::detail::store_lanes(dstate, dfirst.data() + lane, width, rwkv::detail::AllLanes{});
      dw[static_cast<std::size_t>(lane)] += sums[0].v;
      du[static_cast<std::size_t>(lane)] += sums[1].v;
    }
  }

  /// The loop as written without the library: keeps every state, channels in the inner loop.
  void hand() {
    std::copy(state.begin(), state.end(), before.begin());
    for (Index t = 0; t + 1 < time; ++t) {
      const float *a = before.data() + 3 * t * width, *b = a + width, *p = b + width;
      float *a_next = before.data() + 3 * (t + 1) * width, *b_next = a_next + width, *p_next = b_next + width;
      const float *kt = k.data() + t * width, *vt = v.data() + t * width;
      for (Index c = 0; c < width; ++c) {
        const float decayed = p[c] + w[static_cast<std::size_t>(c)];
        const float next = std::max(decayed, kt[c]);
        const float keep = std::exp(decayed - next), add = std::exp(kt[c] - next);
        a_next[c] = keep * a[c] + add * vt[c];
        b_next[c] = keep * b[c] + add;
        p_next[c] = next;
      }
    }
    std::copy(dlast.begin(), dlast.end(), dfirst.begin());
    float *da = dfirst.data(), *db = da + width, *dp = db + width;
    for (Index t = time; t-- > 0;) {
      const float *a = before.data() + 3 * t * width, *b = a + width, *p = b + width;
      const float *kt = k.data() + t * width, *vt = v.data() + t * width, *dyt = dy.data() + t * width;
      float *dkt = dk.data() + t * width, *dvt = dv.data() + t * width;
      for (Index c = 0; c < width; ++c) {
        const auto channel = static_cast<std::size_t>(c);
        const float uk = u[channel] + kt[c], now = std::max(p[c], uk);
        const float past = std::exp(p[c] - now), current = std::exp(uk - now);
        const float decayed = p[c] + w[channel], next = std::max(decayed, kt[c]);
        const float keep = std::exp(decayed - next), add = std::exp(kt[c] - next);
        const float inverse = 1 / (past * b[c] + current);
        const float wkv = (past * a[c] + current * vt[c]) * inverse, g = dyt[c] * inverse;
        const float by_bonus = current * g * (vt[c] - wkv);
        dw[channel] += keep * (a[c] * da[c] + b[c] * db[c]);
        du[channel] += by_bonus;
        dkt[c] = by_bonus + add * (vt[c] * da[c] + db[c]);
        dvt[c] = current * g + add * da[c];
        da[c] = past * g + keep * da[c];
        db[c] = keep * db[c] - past * g * wkv;
        dp[c] = a[c] * da[c] + b[c] * db[c];
      }
    }
  }
};

double scalar_time(CaseBack4& data) {
  return scalar_time(rwkv::join("wkv4_back/", data.width, "/", data.time), [&] { data.scalar(); });
}

/// Measures run(data), a loop outside the library.
template <class Run>
void wkv4_back_loop(benchmark::State& state, Index width, Index time, const Run& run) {
  CaseBack4 data(width, time);
  const double scalar = scalar_time(data);
  bench::measure(state, data.work(1), [&] { run(data); });
  compare(state, scalar, time);
}

template <class Cell, class Schedule>
void wkv4_back_library(benchmark::State& state, Index width, Index time, int threads) {
  Cpu cpu(threads);
  CaseBack4 data(width, time);
  const double scalar = scalar_time(data);
  const auto call = [&](rwkv::Arena ws) { data.template library<Cell>(cpu, ws, Schedule{}); };
  const auto scratch = rwkv::scratch_for(cpu, call);
  bench::measure(state, data.work(threads), [&] { call(scratch.arena()); });
  compare(state, scalar, time);
}

/// One sequence of a row cell, forwards and backwards.
template <class Cell, Index Head = 64>
struct RowCase {
  static constexpr Index head = Head;
  static constexpr std::size_t vectors = Cell::shared.size();
  Index width, time;
  std::vector<float> v, y, dy, dv, state, dstate;
  std::vector<std::vector<float>> shared, dshared;

  RowCase(Index channels, Index tokens)
      : width(channels), time(tokens), v(numbers(-1, 1, 1)), y(v), dy(numbers(-1, 1, 2)), dv(v),
        state(static_cast<std::size_t>(width * head)), dstate(state) {
    for (std::size_t i = 0; i < vectors; ++i) {
      const bool decay = i == Cell::decay;
      shared.push_back(numbers(decay ? 0.5f : -0.1f, decay ? 0.99f : 0.1f, 3 + i));
    }
    dshared = shared;
  }

  std::vector<float> numbers(float low, float high, std::uint64_t seed) const {
    return bench::uniform<float>(width * time, low, high, seed);
  }
  /// A lane does `operations` for each number of its state at each token.
  bench::Work work(int threads, double operations) const {
    const double tokens = static_cast<double>(width * time);
    return {.bytes = static_cast<double>(vectors + 2) * tokens * sizeof(float) +
                     2 * sizeof(float) * static_cast<double>(width * head),
            .flops = operations * tokens * static_cast<double>(head),
            .tokens = static_cast<double>(time),
            .threads = threads};
  }
  static constexpr double forward_operations = std::is_same_v<Cell, rwkv::WKV5> ? 8 : 10;
  static constexpr double backward_operations = std::is_same_v<Cell, rwkv::WKV5> ? 28 : 40;

  arg::In<float, rwkv::dyn> in(const std::vector<float>& from) const {
    return arg::in(Seq<const float>{from.data(), 1, time, width});
  }
  arg::Out<float, rwkv::dyn> out(std::vector<float>& to) { return arg::out(Seq<float>{to.data(), 1, time, width}); }

  template <class Schedule>
  void library(Cpu& cpu, rwkv::Arena scratch, Schedule schedule) {
    each_vector([&](auto... nth) {
      cpu.recur(scratch, schedule, Cell{}, Extent<head>{}, rwkv::matrix(state.data(), 1, width * head), in(v),
                arg::shared(in(shared[nth]))..., out(y));
    });
  }
  template <class Schedule>
  void library_back(Cpu& cpu, rwkv::Arena scratch, Schedule schedule) {
    const rwkv::Mat<const float> first = rwkv::matrix(state.data(), 1, width * head);
    each_vector([&](auto... nth) {
      cpu.recur_back(scratch, schedule, Cell{}, Extent<head>{}, first, first,
                     rwkv::matrix(dstate.data(), 1, width * head), in(v), arg::shared(in(shared[nth]))...,
                     arg::cot(Seq<const float>{dy.data(), 1, time, width}), out(dv), out(dshared[nth])...);
    });
  }
  void scalar() {
    each_vector([&](auto... nth) {
      for (Index lane = 0; lane < width; ++lane) {
        rwkv::advance_lanes<rwkv::One<float>, 1>(Cell{}, Extent<head>{}, state.data() + lane / head * head * head,
                                                 {0, lane / head, head, lane % head}, rwkv::detail::AllLanes{}, 0, time,
                                                 in(v), arg::shared(in(shared[nth]))..., out(y));
      }
    });
  }

 private:
  template <class F>
  static void each_vector(const F& f) {
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) { f(Nth...); }
    (std::make_index_sequence<vectors>());
  }
};

template <class Cell>
double scalar_time(const std::string& name, RowCase<Cell>& data) {
  return scalar_time(rwkv::join(name, "/", data.width, "/", data.time), [&] { data.scalar(); });
}

template <class Cell>
void row_scalar(benchmark::State& state, const std::string& name, Index width, Index time) {
  RowCase<Cell> data(width, time);
  bench::measure(state, data.work(1, data.forward_operations), [&] { data.scalar(); });
  compare(state, scalar_time(name, data), time);
}

template <class Cell, class Schedule>
void row_library(benchmark::State& state, const std::string& name, Index width, Index time, int threads,
                 Schedule schedule) {
  Cpu cpu(threads);
  RowCase<Cell> data(width, time);
  const double scalar = scalar_time(name, data);
  const auto call = [&](rwkv::Arena ws) { data.library(cpu, ws, schedule); };
  const auto scratch = rwkv::scratch_for(cpu, call);
  bench::measure(state, data.work(threads, data.forward_operations), [&] { call(scratch.arena()); });
  compare(state, scalar, time);
}

template <class Cell, Index Head>
void row_back(benchmark::State& state, Index time, int threads) {
  Cpu cpu(threads);
  RowCase<Cell, Head> data(12 * Head, time);
  const auto call = [&](rwkv::Arena ws) { data.library_back(cpu, ws, rwkv::Sequential{}); };
  const auto scratch = rwkv::scratch_for(cpu, call);
  bench::measure(state, data.work(threads, data.forward_operations + data.backward_operations),
                 [&] { call(scratch.arena()); });
}

/// Runs token after token in turn with chunks, for the column `x_pack`: how many times faster chunks are.
template <class Cell, Index Head>
void row_back_chunked(benchmark::State& state, Index time, int threads) {
  Cpu cpu(threads);
  RowCase<Cell, Head> data(12 * Head, time);
  const auto by_token = [&](rwkv::Arena ws) { data.library_back(cpu, ws, rwkv::Sequential{}); };
  const auto in_chunks = [&](rwkv::Arena ws) { data.library_back(cpu, ws, rwkv::Chunked{}); };
  const auto token_scratch = rwkv::scratch_for(cpu, by_token), chunk_scratch = rwkv::scratch_for(cpu, in_chunks);
  std::vector<double> token_seconds, chunk_seconds;
  const auto timed = [](const auto& body, const auto& scratch, std::vector<double>& seconds) {
    const auto start = bench::Clock::now();
    body(scratch.arena());
    seconds.push_back(bench::seconds_since(start));
  };
  in_chunks(chunk_scratch.arena());  // warms up
  for (auto _ : state) {
    state.PauseTiming();
    timed(by_token, token_scratch, token_seconds);
    state.ResumeTiming();
    timed(in_chunks, chunk_scratch, chunk_seconds);
  }
  const double seconds = std::accumulate(chunk_seconds.begin(), chunk_seconds.end(), 0.0);
  bench::report(state, seconds, data.work(threads, data.forward_operations + data.backward_operations),
                bench::fma_peak(threads));
  state.counters["x_pack"] = bench::median(token_seconds) / bench::median(chunk_seconds);
}

template <class Cell, Index Head>
void add_row_back(const std::string& name, Index time) {
  for (const int threads : {1, 2}) {
    const std::string on = rwkv::join("/", 12 * Head, "/T", time, "/", threads, "threads");
    bench::add(name + "_back_pack" + on, [=](auto& state) { row_back<Cell, Head>(state, time, threads); });
    bench::add(name + "_back_chunked" + on, [=](auto& state) { row_back_chunked<Cell, Head>(state, time, threads); });
  }
}

template <class Cell>
void add_row_cell(const std::string& name) {
  for (const Index time : {1, 64, 512, 1024}) {
    const std::string suffix = rwkv::join("/768/T", time);
    bench::add(name + "_scalar" + suffix, [=](auto& state) { row_scalar<Cell>(state, name, 768, time); });
    for (const int threads : {1, 2}) {
      const std::string on = rwkv::join(suffix, "/", threads, "threads");
      bench::add(name + "_pack" + on,
                 [=](auto& state) { row_library<Cell>(state, name, 768, time, threads, rwkv::Sequential{}); });
      if (time > 1) {
        bench::add(name + "_chunked" + on,
                   [=](auto& state) { row_library<Cell>(state, name, 768, time, threads, rwkv::Chunked{}); });
      }
    }
    if (time > 1) add_row_back<Cell, 64>(name, time);
  }
  add_row_back<Cell, 128>(name, 1024);
}

void add_wkv4(Index width, Index time) {
  const std::string suffix = rwkv::join("/", width, "/T", time);
  bench::add("wkv4_scalar" + suffix, [=](auto& state) { wkv4_scalar(state, width, time); });
  bench::add("wkv4_hand" + suffix, [=](auto& state) { wkv4_hand(state, width, time); });
  for (const int threads : {1, 2}) {
    bench::add(rwkv::join("wkv4_pack", suffix, "/", threads, "threads"),
               [=](auto& state) { wkv4_library<rwkv::Sequential>(state, width, time, threads); });
  }
}

/// At fixed sizes: the backward pass, narrow models on a long text, and row cells.
void add_others() {
  for (const Index time : {64, 512, 4096}) {
    const std::string suffix = rwkv::join("/768/T", time);
    bench::add("wkv4_back_scalar" + suffix,
               [=](auto& state) { wkv4_back_loop(state, 768, time, [](CaseBack4& data) { data.scalar(); }); });
    bench::add("wkv4_back_hand" + suffix,
               [=](auto& state) { wkv4_back_loop(state, 768, time, [](CaseBack4& data) { data.hand(); }); });
    for (const int threads : {1, 2}) {
      const std::string on = rwkv::join(suffix, "/", threads, "threads");
      bench::add("wkv4_back_pack" + on,
                 [=](auto& state) { wkv4_back_library<rwkv::WKV4, rwkv::Sequential>(state, 768, time, threads); });
      bench::add("wkv4_back_derived" + on,
                 [=](auto& state) { wkv4_back_library<Derived4, rwkv::Sequential>(state, 768, time, threads); });
    }
  }
  for (const Index width : {16, 64}) {
    for (const int threads : {1, 2}) {
      bench::add(rwkv::join("wkv4_back_pack/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_back_library<rwkv::WKV4, rwkv::Sequential>(state, width, 4096, threads); });
      bench::add(rwkv::join("wkv4_back_scan/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_back_library<rwkv::WKV4, rwkv::Scan>(state, width, 4096, threads); });
      bench::add(rwkv::join("wkv4_pack/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_library<rwkv::Sequential>(state, width, 4096, threads); });
      bench::add(rwkv::join("wkv4_scan/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_library<rwkv::Scan>(state, width, 4096, threads); });
    }
  }
  add_row_cell<rwkv::WKV5>("wkv5");
  add_row_cell<rwkv::WKV7>("wkv7");
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Sizes sizes = bench::sizes_from(argc, argv, {.widths = {768, 2048}, .times = {1, 64, 512, 4096}});
  for (const Index width : sizes.widths) {
    for (const Index time : sizes.times) add_wkv4(width, time);
  }
  if (!sizes.given) add_others();
  return bench::run(argc, argv);
}
