/// The limits of this machine: read bandwidth by working set, and FP32 fused multiply-adds, for one thread and two.
#include "../report.hpp"
#include "rwkv/core/error.hpp"

namespace {

/// Prints a limit. It was measured with its own repetitions and cached, so one iteration is enough.
void print(benchmark::State& state, double bytes, double flops) {
  for (auto _ : state) state.SetIterationTime(1 / std::max(bytes, flops));
  state.counters["bytes/s"] = bytes;
  state.counters["FLOP/s"] = flops;
}

const bool registered = [] {
  for (const int threads : {1, 2}) {
    for (const bench::Index kilobytes : {16, 256, 1024, 4096, 16384, 65536, 262144, 1000000}) {
      const double bytes = static_cast<double>(kilobytes) * 1e3;
      benchmark::RegisterBenchmark(
          rwkv::join("read/", kilobytes, "kB/", threads, "threads").c_str(),
          [=](benchmark::State& state) { print(state, bench::read_bandwidth(bytes, threads), 0); })
          ->Iterations(1)
          ->UseManualTime();
    }
    benchmark::RegisterBenchmark(rwkv::join("fma/", threads, "threads").c_str(),
                                 [=](benchmark::State& state) { print(state, 0, bench::fma_peak(threads)); })
        ->Iterations(1)
        ->UseManualTime();
  }
  return true;
}();

}  // namespace
