/// The recurrences alone. `scalar` is the functor on one lane at a time through the lane driver that packs use, `pack`
/// the functor as the library runs it, `hand` a loop written out for WKV4, `scan` the form that is parallel in time.
#include <cmath>

#include "../report.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;
using rwkv::Extent;
using rwkv::Seq;
namespace arg = rwkv::arg;

/// Seconds of the scalar functor by case, for the ratios.
std::map<std::string, double> scalar_seconds;

/// Measures the scalar functor when the case is first asked for.
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

  /// As one writes it without the library: channels inside, so that the compiler may vectorise what it can.
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

/// Seconds in which the scalar functor runs the same case.
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
  Index bytes = 0;
  cpu.dry = true;
  data.library(cpu, rwkv::Arena(bytes), Schedule{});
  cpu.dry = false;
  const rwkv::Memory<Cpu> scratch(cpu, bytes);
  bench::measure(state, data.work(threads), [&] { data.library(cpu, scratch.arena(), Schedule{}); });
  compare(state, scalar, time);
}

/// One sequence of WKV7 with heads of 64.
struct Case7 {
  static constexpr Index head = 64;
  Index width, time;
  std::vector<float> r, w, k, v, a, b, y, state;

  Case7(Index channels, Index tokens)
      : width(channels), time(tokens), r(numbers(-1, 1, 1)), w(numbers(0.5f, 0.99f, 2)), k(numbers(-1, 1, 3)),
        v(numbers(-1, 1, 4)), a(numbers(-0.1f, 0.1f, 5)), b(numbers(-0.1f, 0.1f, 6)),
        y(static_cast<std::size_t>(width * time)), state(static_cast<std::size_t>(width * head)) {}

  std::vector<float> numbers(float low, float high, std::uint64_t seed) const {
    return bench::uniform<float>(width * time, low, high, seed);
  }
  bench::Work work(int threads) const {
    const double tokens = static_cast<double>(width * time);
    return {.bytes = 7 * tokens * sizeof(float) + 2 * sizeof(float) * static_cast<double>(width * head),
            .flops = 10 * tokens * static_cast<double>(head),
            .tokens = static_cast<double>(time),
            .threads = threads};
  }
  arg::In<float, rwkv::dyn> in(const std::vector<float>& from) const {
    return arg::in(Seq<const float>{from.data(), 1, time, width});
  }
  arg::Out<float, rwkv::dyn> out() { return arg::out(Seq<float>{y.data(), 1, time, width}); }

  void library(Cpu& cpu) {
    Index none = 0;
    cpu.recur(rwkv::Arena(none), rwkv::Sequential{}, rwkv::WKV7{}, Extent<head>{},
              rwkv::matrix(state.data(), 1, width * head), in(v), arg::shared(in(r)), arg::shared(in(w)),
              arg::shared(in(k)), arg::shared(in(a)), arg::shared(in(b)), out());
  }
  void scalar() {
    for (Index lane = 0; lane < width; ++lane) {
      rwkv::advance_lanes<rwkv::One<float>, 1>(rwkv::WKV7{}, Extent<head>{}, state.data() + lane / head * head * head,
                                               {0, lane / head, head, lane % head}, rwkv::detail::AllLanes{}, 0, time,
                                               in(v), arg::shared(in(r)), arg::shared(in(w)), arg::shared(in(k)),
                                               arg::shared(in(a)), arg::shared(in(b)), out());
    }
  }
};

double scalar_time(Case7& data) {
  return scalar_time(rwkv::join("wkv7/", data.width, "/", data.time), [&] { data.scalar(); });
}

void wkv7_scalar(benchmark::State& state, Index width, Index time) {
  Case7 data(width, time);
  bench::measure(state, data.work(1), [&] { data.scalar(); });
  compare(state, scalar_time(data), time);
}

void wkv7_library(benchmark::State& state, Index width, Index time, int threads) {
  Cpu cpu(threads);
  Case7 data(width, time);
  const double scalar = scalar_time(data);
  bench::measure(state, data.work(threads), [&] { data.library(cpu); });
  compare(state, scalar, time);
}

const bool registered = [] {
  for (const Index width : {768, 2048}) {
    for (const Index time : {1, 64, 512, 4096}) {
      const std::string suffix = rwkv::join("/", width, "/T", time);
      bench::add("wkv4_scalar" + suffix, [=](auto& state) { wkv4_scalar(state, width, time); });
      bench::add("wkv4_hand" + suffix, [=](auto& state) { wkv4_hand(state, width, time); });
      for (const int threads : {1, 2}) {
        bench::add(rwkv::join("wkv4_pack", suffix, "/", threads, "threads"),
                   [=](auto& state) { wkv4_library<rwkv::Sequential>(state, width, time, threads); });
      }
    }
  }
  for (const Index width : {16, 64}) {
    for (const int threads : {1, 2}) {
      bench::add(rwkv::join("wkv4_pack/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_library<rwkv::Sequential>(state, width, 4096, threads); });
      bench::add(rwkv::join("wkv4_scan/", width, "/T4096/", threads, "threads"),
                 [=](auto& state) { wkv4_library<rwkv::Scan>(state, width, 4096, threads); });
    }
  }
  for (const Index time : {1, 64, 512}) {
    bench::add(rwkv::join("wkv7_scalar/768/T", time), [=](auto& state) { wkv7_scalar(state, 768, time); });
    for (const int threads : {1, 2}) {
      bench::add(rwkv::join("wkv7_pack/768/T", time, "/", threads, "threads"),
                 [=](auto& state) { wkv7_library(state, 768, time, threads); });
    }
  }
  return true;
}();

}  // namespace
