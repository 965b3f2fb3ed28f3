#pragma once
/// The limits of this machine, measured in the running process, and how near to them a piece of work comes. Each limit is
/// measured at first use, as the median of several short repetitions, and kept.
#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The least work of one call: every operand read once, every result written once.
struct Work {
  double bytes = 0;        ///< that must move
  double flops = 0;        ///< operations; a multiply-add is two
  double tokens = 0;       ///< that pass
  double working_set = 0;  ///< bytes that one pass over the data touches; 0: `bytes`
  int threads = 1;         ///< that share the work
};

/// How long a call takes, and how near that is to what the machine can do.
struct Timing {
  Work work;                  ///< of a call
  double seconds = 0;         ///< of a call, the median of the repetitions
  double spread = 0;          ///< from the tenth to the ninetieth percentile, over the median
  double fraction = 0;        ///< the shortest possible time over `seconds`
  bool of_bandwidth = false;  ///< whether bandwidth is the limit, and not multiply-adds

  /// A line such as "12.3 us (+- 4 %), 41.6 k tokens/s, 63.9 GB/s, 4.3 GFLOP/s, 84 % of the read bandwidth".
  std::string text() const {
    const auto digits = [](double number) { return std::round(number * 10) / 10; };
    return join(digits(seconds * 1e6), " us (+- ", std::round(spread * 50), " %), ",
                digits(work.tokens / seconds / 1e3), " k tokens/s, ", digits(work.bytes / seconds / 1e9), " GB/s, ",
                digits(work.flops / seconds / 1e9), " GFLOP/s, ", std::round(fraction * 100), " % of the ",
                of_bandwidth ? "read bandwidth" : "FMA peak");
  }
};

namespace detail::limits {
inline namespace RWKV_CPU_ABI {

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
    if (block_ == nullptr) RWKV_THROW(std::bad_alloc());
#ifdef MADV_HUGEPAGE
    static_cast<void>(::madvise(block_.get(), rounded, MADV_HUGEPAGE));
#endif
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

/// As many numbers as the widest register of the target holds.
#if RWKV_SIMD_BYTES
using Lanes [[gnu::vector_size(RWKV_SIMD_BYTES)]] = float;
inline constexpr int lanes = RWKV_SIMD_BYTES / static_cast<int>(sizeof(float));
#else
using Lanes = float;
inline constexpr int lanes = 1;
#endif

inline float sum_of(Lanes numbers) {
  float each[lanes], sum = 0;
  std::memcpy(each, &numbers, sizeof each);
  for (const float number : each) sum += number;
  return sum;
}

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

/// Threads that begin their work together, or not at all if one of them cannot start; joined at the end.
class Others {
 public:
  /// Starts `count` threads, which call work(1), work(2), ...; `work` must live until they are joined.
  /// Errors    std::system_error where a thread cannot start
  template <class Work>
  void start(int count, const Work& work) {
    for (int t = 1; t <= count; ++t) {
      threads_.emplace_back([this, &work, t] {
        word_.wait(Word::wait);
        if (word_.load() == Word::begin) work(t);
      });
    }
    say(Word::begin);
  }
  ~Others() {
    if (word_.load() == Word::wait) say(Word::end);
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  enum class Word { wait, begin, end };
  void say(Word word) {
    word_.store(word);
    word_.notify_all();
  }
  std::atomic<Word> word_ = Word::wait;
  std::vector<std::thread> threads_;
};

/// Seconds from the moment when all threads are ready until the last has finished body(thread): the median over the
/// repetitions. The threads are started once, because the system may place a new thread on a busy core at first.
template <class Body>
double time_together(int threads, const Body& body) {
  std::barrier<> line(threads);
  std::vector<double> seconds;
  seconds.reserve(repetitions);
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
    Others others;
    others.start(threads - 1, repeat);
    repeat(0);
  }
  return median(seconds);
}

/// Reads `Streams` equal parts of the block side by side.
template <int Streams>
float read_block(const float* from, Index count) {
  constexpr int unroll = 8 / Streams;
  Lanes sums[8] = {};
  const Index part = count / Streams;
  for (Index i = 0; i + unroll * lanes <= part; i += unroll * lanes) {
    RWKV_UNROLL for (int u = 0; u < unroll; ++u) {
      RWKV_UNROLL for (int s = 0; s < Streams; ++s) {
        Lanes read;
        std::memcpy(&read, from + s * part + i + u * lanes, sizeof read);
        sums[u * Streams + s] += read;
      }
    }
  }
  for (int i = 1; i < 8; ++i) sums[0] += sums[i];
  return sum_of(sums[0]);
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
    RWKV_CONTRACT
    Lanes sums[chains] = {};
    for (int c = 0; c < chains; ++c) sums[c] += static_cast<float>(t + c);
    const volatile float shrink = 0.999f;
    const Lanes a = Lanes{} + float{shrink}, b = Lanes{} + (1.0f - float{shrink});
    for (Index step = 0; step < steps; ++step) {
      RWKV_UNROLL for (int c = 0; c < chains; ++c) sums[c] = sums[c] * a + b;
    }
    for (int c = 1; c < chains; ++c) sums[0] += sums[c];
    keep(sum_of(sums[0]));
  });
  return 2.0 * chains * lanes * static_cast<double>(steps) * threads / seconds;
}

/// Larger working sets are measured at this size, which is far beyond every cache.
inline constexpr double largest_working_set = 1e9;

/// Calls measured() once for each key.
template <class Key, class Measured>
double once(const Key& key, const Measured& measured) {
  static std::map<Key, double> known;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  return known[key] = measured();
}

inline void check_threads(int threads) {
  expects(threads >= 1 && threads <= 1024, "rwkv: the number of threads must be in [1, 1024], not ", threads);
}

}  // namespace RWKV_CPU_ABI
}  // namespace detail::limits

inline namespace RWKV_CPU_ABI {

/// The total read bandwidth of `threads` threads over a working set of `bytes`, in bytes per second. Each thread reads
/// its own contiguous part, as one stream or as four, whichever is faster. Takes half a second where it is not yet known.
/// Errors    bytes below 0 or NaN, a number of threads outside [1, 1024], std::system_error where one cannot start
inline double read_bandwidth(double bytes, int threads) {
  expects(bytes >= 0, "rwkv: a working set has 0 bytes or more, not ", bytes);
  detail::limits::check_threads(threads);
  constexpr double grain = 16384;
  const double set = std::clamp(bytes, grain * threads, std::max(grain * threads, detail::limits::largest_working_set));
  const std::pair key{static_cast<Index>(set / grain), threads};
  return detail::limits::once(key, [&] {
    const Index count = key.first * static_cast<Index>(grain / sizeof(float));
    const detail::limits::HugePages block(static_cast<std::size_t>(count) * sizeof(float));
    return std::max(detail::limits::read_rate<1>(block.as<float>(), count, threads),
                    detail::limits::read_rate<4>(block.as<float>(), count, threads));
  });
}

/// The total FP32 operations per second of `threads` threads, on registers only; a fused multiply-add counts as two.
/// Errors    a number of threads outside [1, 1024], std::system_error where one cannot start
inline double fma_peak(int threads) {
  detail::limits::check_threads(threads);
  return detail::limits::once(threads, [&] { return detail::limits::fma_rate(threads); });
}

/// The shortest possible time of the work over `seconds`: at the bandwidth of reading its working set, or at the FMA peak,
/// whichever takes longer.
/// Errors    a time of 0, below or NaN; those of read_bandwidth and fma_peak
inline Timing judged(const Work& work, double seconds, double spread = 0) {
  expects(seconds > 0, "rwkv: the time of a call is above 0 seconds, not ", seconds);
  const double at_bandwidth =
      work.bytes / read_bandwidth(work.working_set > 0 ? work.working_set : work.bytes, work.threads);
  const double at_peak = work.flops / fma_peak(work.threads);
  return {work, seconds, spread, std::max(at_bandwidth, at_peak) / seconds, at_bandwidth >= at_peak};
}

/// Times call(), which does that work on the CPU: the median of `repetitions`, each of as many calls as take 10 ms. For work
/// in a queue, `call` must end with sync().
/// Errors    fewer than one repetition; those of `call`
template <class Call>
Timing measure(const Work& work, const Call& call, int repetitions = 15) {
  expects(repetitions >= 1, "rwkv: a time needs at least one repetition, not ", repetitions);
  const auto seconds_of = [&](Index calls) {
    const auto start = detail::limits::Clock::now();
    for (Index n = 0; n < calls; ++n) {
      call();
      detail::limits::forget();
    }
    return detail::limits::seconds_since(start) / static_cast<double>(calls);
  };
  call();  // warms up
  const double once = seconds_of(1);
  const Index calls = static_cast<Index>(std::clamp(0.01 / std::max(once, 1e-9), 1.0, 1e6));
  std::vector<double> times;
  for (int r = 0; r < repetitions; ++r) times.push_back(seconds_of(calls));
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return times[static_cast<std::size_t>(part * static_cast<double>(times.size() - 1))];
  };
  return judged(work, at(0.5), (at(0.9) - at(0.1)) / at(0.5));
}

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
