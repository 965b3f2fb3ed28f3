#pragma once
/// Runs CUDA kernels on the host, for tests only. A kernel compiled by a host compiler is called once per thread, each
/// on a fibre of its own; between barriers the fibres resume in a random order that a seed chooses, and the blocks of a
/// grid run one after the other. Reported as simt::Error:
///  - threads of a block that wait at different barriers, or end while others wait, with the lines where they wait;
///  - two threads that touch one element of shared memory, one of them writing, with no barrier in between;
///  - an element of shared memory read before a thread of the block wrote it (both for simt::Shared<T> only);
///  - threads that spin without end on an atomic variable.
/// Not modelled: memory ordering, and blocks that run side by side.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>  // says __noinline__ itself, so it comes before our macro
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fibre.hpp"

// Blocks run one after the other, so one static copy serves as the shared memory of each.
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) alignas(bytes)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace simt {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The shape of a launch and the order its threads and blocks run in.
struct Launch {
  dim3 grid = {}, block = {};
  std::size_t shared_bytes = 0;
  std::uint64_t seed = 1;        ///< of the order of the threads between barriers
  std::uint64_t block_seed = 0;  ///< of the order of the blocks; 0 runs them in ascending order
  bool check_races = true;       ///< off, a race shows only as a wrong result
  long longest_spin = 100'000;   ///< switches between two barriers after which a block counts as hanging
};

namespace detail {

/// A small generator of random numbers: the order of threads takes one for each.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()() {  // SplitMix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  /// A number below n.
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(((*this)() >> 32) * n >> 32); }

 private:
  std::uint64_t state_;
};

/// A line of the kernel.
struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

enum class Wait { none, block, warp };

/// The moment of an access: between which barriers of the block, by whom, between which barriers of the warp.
struct Moment {
  std::int64_t epoch = -1;
  int thread = -1, warp = -1;  ///< -1: several
  int warp_epoch = 0;

  /// Whether this earlier access may happen at the same time as `now`.
  bool races(const Moment& now) const {
    return epoch == now.epoch && thread != now.thread && (warp != now.warp || warp_epoch == now.warp_epoch);
  }
  /// Remembers `now`, and the earlier accesses that are not over yet.
  void add(const Moment& now) {
    if (!races(now)) {
      *this = now;
    } else {
      thread = -1;
      if (warp != now.warp) warp = -1;
    }
  }
};

struct Thread {
  Fibre fibre;
  uint3 place;
  Moment now;
  Wait wait = Wait::none;
  Site site;
  unsigned mask = 0;                 // the lanes a warp operation waits for
  std::uint64_t offered = 0;         // what this lane brings to a warp operation
  std::uint64_t exchanged[32] = {};  // what all lanes brought

  std::string report() const {
    return "thread " + std::to_string(now.thread) + (fibre.ended() ? " has ended" : " waits at " + site.text());
  }
};

/// Runs the blocks of one launch.
class Machine {
 public:
  Machine(const Launch& launch, std::function<void()> kernel)
      : launch_(launch), kernel_(std::move(kernel)), order_(launch.seed),
        shared_(launch.shared_bytes * shared_space / 16 + 1),
        threads_(std::size_t{launch.block.x} * launch.block.y * launch.block.z) {
    if (threads_.empty() || threads_.size() > 1024) throw Error("simt: a block has 1 to 1024 threads");
    blockDim = launch.block;
    gridDim = launch.grid;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      const unsigned n = static_cast<unsigned>(i), x = blockDim.x, y = blockDim.y;
      threads_[i].place = {n % x, n / x % y, n / x / y};
    }
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine() { running = nullptr; }

  void run_grid() {
    running = this;
    std::vector<unsigned> blocks(std::size_t{gridDim.x} * gridDim.y * gridDim.z);
    std::iota(blocks.begin(), blocks.end(), 0u);
    if (launch_.block_seed != 0) std::shuffle(blocks.begin(), blocks.end(), std::mt19937_64(launch_.block_seed));
    for (const unsigned block : blocks) {
      blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
      run_block();
    }
  }

  // Below: called from a kernel, on the fibre that runs.

  /// Waits until the other threads come to the same place.
  void rendezvous(Wait kind, unsigned mask, Site site) {
    current_->wait = kind;
    current_->mask = mask;
    current_->site = site;
    current_->fibre.suspend();
  }
  /// Lets other threads run.
  void yield() {
    ready_.push_back(current_);
    current_->fibre.suspend();
  }
  /// What each lane of the warp brings; waits for the lanes of the mask.
  const std::uint64_t* exchange(unsigned mask, std::uint64_t value, Site site) {
    if ((mask >> lane() & 1u) == 0) throw Error("simt: a lane is not in its own mask, at " + site.text());
    current_->offered = value;
    rendezvous(Wait::warp, mask, site);
    return current_->exchanged;
  }
  int lane() const { return current_->now.thread % warpSize; }
  unsigned active_lanes() const {
    const std::size_t begin = static_cast<std::size_t>(current_->now.warp) * warpSize;
    unsigned lanes = 0;
    for (std::size_t i = begin; i < std::min(begin + warpSize, threads_.size()); ++i) {
      lanes |= (threads_[i].fibre.ended() ? 0u : 1u) << (i - begin);
    }
    return lanes;
  }
  std::byte* dynamic_shared() { return reinterpret_cast<std::byte*>(shared_.data()); }

  enum Access { read, write, atomic };
  /// Checks an access to shared memory against the earlier ones of each kind.
  void touch(Moment (&earlier)[3], Access access) {
    const Moment& now = current_->now;
    if (launch_.check_races) {
      for (const Access other : {read, write, atomic}) {
        const bool conflict = access == write || other != access;
        if (conflict && earlier[other].races(now)) {
          throw Error("simt: threads " + name(earlier[other].thread) + " and " + name(now.thread) +
                      " touch an element of shared memory, one of them writing, without a barrier in between");
        }
      }
      if (access == read && earlier[write].epoch < first_epoch_ && earlier[atomic].epoch < first_epoch_) {
        throw Error("simt: thread " + name(now.thread) + " reads shared memory that its block has not written");
      }
    }
    earlier[access].add(now);
  }

  static inline Machine* running = nullptr;

 private:
  static constexpr std::size_t shared_space = 64;  // Shared<T> is up to so much larger than T, for which a launch asks

  struct alignas(16) Chunk {
    std::byte bytes[16];
  };

  static std::string name(int thread) { return thread < 0 ? "(several)" : std::to_string(thread); }

  void run_block() {
    first_epoch_ = ++epoch_;
    std::memset(shared_.data(), 0xff, shared_.size() * sizeof(Chunk));  // a NaN, and no Moment of any block
    ready_.clear();
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      Thread& thread = threads_[i];
      thread.wait = Wait::none;
      thread.now = {epoch_, static_cast<int>(i), static_cast<int>(i) / warpSize, 0};
      thread.fibre.start(kernel_);
      ready_.push_back(&thread);
    }
    long switches = 0;
    do {
      while (!ready_.empty()) {
        std::swap(ready_[order_() % ready_.size()], ready_.back());
        current_ = ready_.back();
        ready_.pop_back();
        threadIdx = current_->place;
        current_->fibre.resume();
        if (current_->wait == Wait::warp) release_warp(*current_);
        if (++switches > launch_.longest_spin + static_cast<long>(threads_.size())) {
          throw Error("simt: the threads of a block spin without end");
        }
      }
      switches = 0;
    } while (release_block());
  }

  /// Goes on when all threads wait at one barrier; returns false when all have ended.
  bool release_block() {
    const auto first = std::find_if(threads_.begin(), threads_.end(), [](const Thread& t) { return !t.fibre.ended(); });
    if (first == threads_.end()) return false;
    const auto other = std::find_if(threads_.begin(), threads_.end(), [&](const Thread& t) {
      return t.fibre.ended() || t.wait != first->wait || !(t.site == first->site) || t.mask != first->mask;
    });
    if (other != threads_.end()) {
      throw Error("simt: the threads of a block diverge: " + first->report() + ", " + other->report());
    }
    ++epoch_;
    for (Thread& thread : threads_) {
      thread.wait = Wait::none;
      thread.now.epoch = epoch_;
      ready_.push_back(&thread);
    }
    return true;
  }

  /// Goes on when all lanes of the mask have come to the place where `last` waits.
  void release_warp(const Thread& last) {
    const std::size_t begin = static_cast<std::size_t>(last.now.warp) * warpSize;
    const std::size_t end = std::min(begin + warpSize, threads_.size());
    std::uint64_t offered[32] = {};
    int latest = 0;
    std::vector<Thread*> group;
    const unsigned mask = last.mask;
    for (std::size_t i = begin; i < end; ++i) {
      Thread& thread = threads_[i];
      if ((mask >> (i - begin) & 1u) == 0) continue;
      if (thread.wait != Wait::warp || !(thread.site == last.site) || thread.mask != mask) return;
      offered[i - begin] = thread.offered;
      latest = std::max(latest, thread.now.warp_epoch);
      group.push_back(&thread);
    }
    for (Thread* thread : group) {
      std::copy(std::begin(offered), std::end(offered), thread->exchanged);
      thread->now.warp_epoch = latest + 1;
      thread->wait = Wait::none;
      ready_.push_back(thread);
    }
  }

  Launch launch_;
  std::function<void()> kernel_;
  std::mt19937_64 order_;
  std::vector<Chunk> shared_;
  std::vector<Thread> threads_;
  std::vector<Thread*> ready_;
  Thread* current_ = nullptr;
  static inline std::int64_t epoch_ = 0;  // never repeats: what an earlier launch left in shared memory is told apart
  std::int64_t first_epoch_ = 0;
};

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

/// The value of the lane that `source` names, given this lane and the ends of its segment of `width` lanes.
template <class T, class Source>
T shuffle(unsigned mask, T value, int width, Site site, Source source) {
  const int lane = Machine::running->lane(), begin = lane / width * width;
  const int from = source(lane, begin, begin + width);
  if ((mask >> from & 1u) == 0) throw Error("simt: a shuffle reads a lane outside its mask, at " + site.text());
  const std::uint64_t bits = Machine::running->exchange(mask, to_bits(value), site)[from];
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace detail

/// An element of shared memory whose accesses are checked for races.
template <class T>
class Shared {
 public:
  Shared() = default;
  Shared(const Shared&) = delete;
  operator T() const {
    touch(detail::Machine::read);
    return value_;
  }
  Shared& operator=(T value) {
    touch(detail::Machine::write);
    value_ = value;
    return *this;
  }
  Shared& operator=(const Shared& other) { return *this = static_cast<T>(other); }
  Shared& operator+=(T value) { return *this = static_cast<T>(*this) + value; }

  template <class F>
  T update(F change) {
    touch(detail::Machine::atomic);
    return std::exchange(value_, change(value_));
  }

 private:
  void touch(detail::Machine::Access access) const { detail::Machine::running->touch(accesses_, access); }

  T value_;
  mutable detail::Moment accesses_[3];
};

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(detail::Machine::running->dynamic_shared());
}

/// What `kernel<<<...>>>(args...)` is in CUDA; returns when the grid has run.
template <class Kernel, class... Args>
void launch(const Launch& how, Kernel kernel, Args... args) {
  detail::Machine(how, [&] { kernel(args...); }).run_grid();
}

}  // namespace simt
