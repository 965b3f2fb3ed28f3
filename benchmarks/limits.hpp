#pragma once
/// The limits of this machine, measured in the running process: the denominator of every `fraction` that a benchmark
/// prints. Each limit is measured at first use, as the median of several short repetitions, and cached.
#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/core/extent.hpp"

namespace bench {

using rwkv::Index;
using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Zeroed memory, on huge pages where the system grants them, so that TLB misses do not lower a measured bandwidth.
class HugePages {
 public:
  explicit HugePages(std::size_t bytes) {
    constexpr std::size_t huge = std::size_t{2} << 20;
    const std::size_t rounded = (bytes + huge - 1) / huge * huge;
    block_.reset(std::aligned_alloc(huge, rounded));
    if (block_ == nullptr) throw std::bad_alloc();
    ::madvise(block_.get(), rounded, MADV_HUGEPAGE);
    std::fill_n(static_cast<std::byte*>(block_.get()), rounded, std::byte{0});
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(block_.get());
  }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  std::unique_ptr<void, Free> block_;
};

namespace detail {

using Lanes = rwkv::Widest<float>;
inline constexpr int repetitions = 7;
inline constexpr int warm_ups = 2;
inline constexpr double bytes_per_repetition = 6e8;  // some 10 ms

/// Consumes the result of a measuring loop, so that the compiler cannot remove the loop.
inline void keep(float value) {
  volatile float sink = value;
  static_cast<void>(sink);
}

/// A compiler barrier: without it, repeated passes over a block would be merged into one.
inline void forget() { asm volatile("" ::: "memory"); }

/// Seconds from the moment when all threads are ready until the last has finished body(thread): the median over the
/// repetitions. The threads are started once, because the system may place a new thread on a busy core at first.
template <class Body>
double time_together(int threads, const Body& body) {
  std::barrier<> line(threads);
  std::vector<double> seconds;
  const auto repeat = [&](int thread) {
    for (int r = 0; r < warm_ups + repetitions; ++r) {
      line.arrive_and_wait();
      const auto start = Clock::now();
      body(thread);
      line.arrive_and_wait();
      if (thread == 0 && r >= warm_ups) seconds.push_back(seconds_since(start));
    }
  };
  {
    std::vector<std::jthread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(repeat, t);
    repeat(0);
  }
  return median(seconds);
}

/// Reads `Streams` equal parts of the block side by side.
template <int Streams>
float read_block(const float* from, Index count) {
  constexpr int unroll = 8 / Streams;
  Lanes sums[8];
  for (auto& sum : sums) sum = Lanes(0);
  const Index part = count / Streams;
  for (Index i = 0; i + unroll * Lanes::size <= part; i += unroll * Lanes::size) {
    RWKV_UNROLL for (int u = 0; u < unroll; ++u) {
      RWKV_UNROLL for (int s = 0; s < Streams; ++s) {
        sums[u * Streams + s] += Lanes::load(from + s * part + i + u * Lanes::size);
      }
    }
  }
  for (int i = 1; i < 8; ++i) sums[0] += sums[i];
  return rwkv::sum_lanes(sums[0]);
}

template <int Streams>
double read_rate(const float* block, Index count, int threads) {
  const Index part = count / threads;
  const double bytes = static_cast<double>(part * threads) * sizeof(float);
  const Index passes = static_cast<Index>(std::ceil(bytes_per_repetition / bytes));
  const double seconds = time_together(threads, [&](int t) {
    float sum = 0;
    for (Index pass = 0; pass < passes; ++pass) {
      sum += read_block<Streams>(block + t * part, part);
      forget();
    }
    keep(sum);
  });
  return bytes * static_cast<double>(passes) / seconds;
}

inline double fma_rate(int threads) {
  constexpr Index steps = 2'000'000;
  constexpr int chains = 12;  // at least FMA latency times units per cycle of today's processors; fits 16 registers
  const double seconds = time_together(threads, [](int t) {
    Lanes sums[chains];
    for (int c = 0; c < chains; ++c) sums[c] = Lanes(t + c);
    const volatile float shrink = 0.999f;
    const Lanes a(float{shrink}), b(1.0f - float{shrink});
    for (Index step = 0; step < steps; ++step) {
      RWKV_UNROLL for (int c = 0; c < chains; ++c) sums[c] = sums[c] * a + b;
    }
    for (int c = 1; c < chains; ++c) sums[0] += sums[c];
    keep(rwkv::sum_lanes(sums[0]));
  });
  return 2.0 * chains * Lanes::size * static_cast<double>(steps) * threads / seconds;
}

}  // namespace detail

/// Larger working sets are measured at this size, which is far beyond every cache.
inline constexpr double largest_working_set = 1e9;

/// The total read bandwidth of `threads` threads over a working set of `bytes`, in bytes per second. Each thread reads
/// its own contiguous part, as one stream or as four, whichever is faster.
inline double read_bandwidth(double bytes, int threads) {
  static std::map<std::pair<Index, int>, double> known;
  constexpr double grain = 16384;
  const double set = std::clamp(bytes, grain * threads, largest_working_set);
  const std::pair key{static_cast<Index>(set / grain), threads};
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const Index count = key.first * static_cast<Index>(grain / sizeof(float));
  const HugePages block(static_cast<std::size_t>(count) * sizeof(float));
  return known[key] = std::max(detail::read_rate<1>(block.as<float>(), count, threads),
                               detail::read_rate<4>(block.as<float>(), count, threads));
}

/// The total FP32 operations per second of `threads` threads, on registers only; a fused multiply-add counts as two.
inline double fma_peak(int threads) {
  static std::map<int, double> known;
  if (const auto found = known.find(threads); found != known.end()) return found->second;
  return known[threads] = detail::fma_rate(threads);
}

}  // namespace bench
