#pragma once
/// The columns of every benchmark.
#include <benchmark/benchmark.h>

#include <string>

#include "limits.hpp"

namespace bench {

using rwkv::Work;

/// Adds the columns tokens/s, bytes/s, FLOP/s and `fraction`. `fraction` is the shortest possible time over the
/// measured time. The shortest possible time is at the measured bandwidth of the working set or at the FMA peak `peak`,
/// whichever is longer; the label names which.
inline void report(benchmark::State& state, double seconds, const Work& work, double peak) {
  const double each = seconds / static_cast<double>(state.iterations());
  const double at_bandwidth =
      work.bytes / read_bandwidth(work.working_set > 0 ? work.working_set : work.bytes, work.threads);
  const double at_peak = work.flops / peak;
  state.counters["tokens/s"] = work.tokens / each;
  state.counters["bytes/s"] = work.bytes / each;
  state.counters["FLOP/s"] = work.flops / each;
  state.counters["fraction"] = std::max(at_bandwidth, at_peak) / each;
  state.SetLabel(at_bandwidth >= at_peak ? "of bandwidth" : "of FMA peak");
}

/// Times `body` as the one loop of a benchmark and reports it.
template <class Body>
void measure(benchmark::State& state, const Work& work, const Body& body) {
  body();  // warms up
  const auto start = Clock::now();
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  report(state, seconds_since(start), work, fma_peak(work.threads));
}

/// Registers a benchmark under `name` that calls run(state).
template <class Run>
void add(const std::string& name, Run run) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(run))->UseRealTime();
}

}  // namespace bench
