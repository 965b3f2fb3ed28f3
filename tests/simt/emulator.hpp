#pragma once
/// Runs CUDA kernels on the host, for tests only. A kernel compiled by a host compiler is called once per thread;
/// between barriers the threads run in a random order that a seed chooses, each until it waits, and the blocks of a
/// grid run one after the other. Reported as simt::Error:
///  - threads of a block that wait at different barriers, or end while others wait, with the lines where they wait;
///  - two threads that touch one element of shared memory, one of them writing, with no barrier in between;
///  - an element of shared memory read before a thread of the block wrote it (both for simt::Shared<T> only);
///  - threads that spin without end on an atomic variable.
/// Not modelled: memory ordering, and blocks that run side by side.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iterator>
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
#define __forceinline__ inline
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
  std::uint64_t seed = 1;         ///< of the order of the threads between barriers
  std::uint64_t block_seed = 0;   ///< of the order of the blocks; 0 runs them in ascending order
  bool check_races = true;        ///< off, a race shows only as a wrong result
  long longest_spin = 1'000'000;  ///< switches between two barriers after which a block counts as hanging
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
  bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

enum class Wait { none, block, warp, ended };

/// When an access happens and by which thread: between which barriers of the block, and of the warp.
struct Moment {
  std::int64_t epoch = -1;
  std::int32_t warp_epoch = 0;
  std::int16_t thread = -1, warp = -1;  ///< -1: several

  /// Whether this earlier access may happen at the same time as `now`.
  bool races(const Moment& now) const {
    return epoch == now.epoch && thread != now.thread && (warp != now.warp || warp_epoch == now.warp_epoch);
  }
  /// Records `now`, keeping earlier accesses that may still be concurrent with later ones.
  void add(const Moment& now) {
    if (!races(now)) {
      *this = now;
    } else {
      thread = -1;
      if (warp != now.warp) warp = -1;
    }
  }
};

/// The result of a warp operation for a lane: from the values of all lanes of the mask, and of the lane that it names.
using Combine = std::uint64_t (*)(const std::uint64_t* offered, int source);

struct alignas(64) Thread {
  uint3 place = {};
  int number = 0;
  Fibre* fibre = nullptr;  // holds its stack while it waits; null before it begins and after it has ended
  Moment now;
  Site site;
  Wait wait = Wait::none;
  unsigned mask = 0;  // the lanes a warp operation waits for
  int source = 0;
  Combine combine = nullptr;
  std::uint64_t offered = 0, received = 0;

  bool ended() const { return wait == Wait::ended; }
  int lane() const { return number % warpSize; }
  std::size_t warp() const { return static_cast<std::size_t>(number / warpSize); }
  std::string report() const {
    return "thread " + std::to_string(number) + (ended() ? " has ended" : " waits at " + site.text());
  }
};

/// Runs the blocks of a launch one after the other. A fibre runs one thread after another; when a thread waits, its
/// fibre is suspended with it and another fibre goes on. Fibres are reused by later launches.
class Machine {
 public:
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// Calls kernel(arguments) for each thread of the launch.
  static void run(const Launch& launch, void (*kernel)(const void*), const void* arguments) {
    static Machine& machine = *new Machine;  // its fibres never end
    if (running != nullptr) throw Error("simt: a kernel cannot launch another");
    const struct Running {
      Running(Machine* it) { running = it; }
      ~Running() { running = nullptr; }
    } while_running(&machine);
    machine.kernel_ = kernel;
    machine.arguments_ = arguments;
    machine.run_grid(launch);
  }

  // Below: called from a kernel, on the fibre that runs.

  /// Waits until the other threads come to the same place.
  void barrier(Site site) {
    current_->wait = Wait::block;
    current_->site = site;
    suspend();
  }
  /// Lets other threads run.
  void yield() {
    add_ready(*current_);
    suspend();
  }
  /// Waits for the lanes of the mask and combines their values.
  std::uint64_t exchange(unsigned mask, std::uint64_t offered, Combine combine, int source, Site site) {
    Thread& thread = *current_;
    if ((mask >> thread.lane() & 1u) == 0) throw Error("simt: a lane is not in its own mask, at " + site.text());
    thread.wait = Wait::warp;
    thread.site = site;
    thread.mask = mask;
    thread.offered = offered;
    thread.combine = combine;
    thread.source = source;
    Warp& warp = warps_[thread.warp()];
    warp.waiting |= 1u << thread.lane();
    if ((mask & warp.present & ~warp.waiting) == 0) release_warp(thread, warp);
    suspend();
    return thread.received;
  }
  int lane() const { return current_->lane(); }
  /// The lanes of this warp that have not ended.
  unsigned active_lanes() const {
    const Warp& warp = warps_[current_->warp()];
    return warp.present & ~warp.ended;
  }
  /// Dynamic shared memory; null if the launch asked for none.
  std::byte* dynamic_shared() const { return launch_.shared_bytes == 0 ? nullptr : shared_; }

  enum Access { read, write, atomic };
  /// Checks an access to shared memory against the earlier ones of each kind.
  void touch(Moment (&earlier)[3], Access access) {
    const Moment& now = current_->now;
    if (launch_.check_races) {
      for (const Access other : {read, write, atomic}) {
        const bool conflict = access == write || other != access;
        if (conflict && earlier[other].races(now)) report_race(earlier[other], now);
      }
      if (access == read && earlier[write].epoch < first_epoch_ && earlier[atomic].epoch < first_epoch_) {
        report_unwritten(now);
      }
    }
    earlier[access].add(now);
  }

  static inline Machine* running = nullptr;

 private:
  static constexpr std::size_t most_threads = 1024, most_shared = std::size_t{227} << 10;
  static constexpr std::size_t shared_space = 64;  // a Shared<T> is up to so much larger than the T a launch asks for

  struct Warp {
    unsigned present = 0, waiting = 0, ended = 0;
  };

  Machine() : threads_(most_threads) {
    void* const memory = mmap(nullptr, most_shared * shared_space, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("simt: no memory for shared memory");
    shared_ = static_cast<std::byte*>(memory);
    for (std::size_t i = 0; i < most_threads; ++i) threads_[i].number = static_cast<int>(i);
  }

  static std::string name(int thread) { return thread < 0 ? "(several)" : std::to_string(thread); }
  [[noreturn]] static void report_race(const Moment& earlier, const Moment& now) {
    throw Error("simt: threads " + name(earlier.thread) + " and " + name(now.thread) +
                " touch an element of shared memory, one of them writing, without a barrier in between");
  }
  [[noreturn]] static void report_unwritten(const Moment& now) {
    throw Error("simt: thread " + name(now.thread) + " reads shared memory that its block has not written");
  }

  void run_grid(const Launch& launch) {
    const dim3 block = launch.block;
    const std::size_t size = std::size_t{block.x} * block.y * block.z;
    if (size == 0 || size > most_threads) throw Error("simt: a block has 1 to 1024 threads");
    if (launch.shared_bytes > most_shared) throw Error("simt: a block has no more than 227 KiB of shared memory");
    if (size != all_.size() || block.x != blockDim.x || block.y != blockDim.y) place_threads(block, size);
    if (launch.shared_bytes != launch_.shared_bytes) {
      // Bytes of another kernel must not look like elements of this one. Fresh pages are zero.
      madvise(shared_, most_shared * shared_space, MADV_DONTNEED);
    }
    launch_ = launch;
    gridDim = launch.grid;
    order_ = Random(launch.seed);
    Context host;
    host_ = &host;
    const std::uint64_t blocks = std::uint64_t{gridDim.x} * gridDim.y * gridDim.z;
    if (launch.block_seed == 0) {
      for (std::uint64_t i = 0; i < blocks; ++i) run_block(i);
    } else {
      std::vector<std::uint64_t> order(blocks);
      std::iota(order.begin(), order.end(), 0u);
      std::shuffle(order.begin(), order.end(), std::mt19937_64(launch.block_seed));
      for (const std::uint64_t i : order) run_block(i);
    }
  }

  void place_threads(dim3 block, std::size_t size) {
    blockDim = block;
    all_.clear();
    for (std::size_t i = 0; i < size; ++i) {
      const unsigned n = static_cast<unsigned>(i);
      threads_[i].place = {n % block.x, n / block.x % block.y, n / block.x / block.y};
      all_.push_back(&threads_[i]);
    }
    for (std::size_t warp = 0; warp < std::size(warps_); ++warp) {
      const std::size_t begin = std::min(warp * warpSize, size), lanes = std::min<std::size_t>(size - begin, warpSize);
      warps_[warp].present = static_cast<unsigned>((std::uint64_t{1} << lanes) - 1);
    }
  }

  void run_block(std::uint64_t number) {
    blockIdx = {static_cast<unsigned>(number % gridDim.x), static_cast<unsigned>(number / gridDim.x % gridDim.y),
                static_cast<unsigned>(number / gridDim.x / gridDim.y)};
    first_epoch_ = ++epoch_;
    if (launch_.shared_bytes > 0) std::memset(shared_, 0xff, launch_.shared_bytes);  // NaN, and no Moment of any block
    for (Warp& warp : warps_) warp.waiting = warp.ended = 0;
    all_ready();
    do {
      switches_ = 0;
      while (!ready_.empty()) {
        if (Thread* const next = pick()) leave(*host_, next);
        if (failure_) give_up();
      }
    } while (release_block());
  }

  /// Throws the error, if there was one, and drops the suspended fibres.
  [[noreturn]] void give_up() {
    idle_.clear();
    for (const auto& fibre : fibres_) {
      fibre->start(&work);
      idle_.push_back(fibre.get());
    }
    for (Thread* const thread : all_) thread->fibre = nullptr;
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  /// Makes all threads ready, in a random order; the last of the list runs first.
  void all_ready() {
    ready_ = all_;
    Random order = order_;
    for (std::size_t i = ready_.size(); i > 1; --i) {
      std::swap(ready_[order.below(static_cast<std::uint32_t>(i))], ready_[i - 1]);
    }
    order_ = order;
  }
  /// Makes one more thread ready, at a random place among the others.
  void add_ready(Thread& thread) {
    ready_.push_back(&thread);
    std::swap(ready_[order_.below(static_cast<std::uint32_t>(ready_.size()))], ready_.back());
  }
  /// The thread that runs next, taken from those that are ready; null if there is none.
  Thread* pick() {
    if (ready_.empty()) return nullptr;
    if (++switches_ > launch_.longest_spin + static_cast<long>(all_.size())) {
      failure_ = std::make_exception_ptr(Error("simt: the threads of a block spin without end"));
      return nullptr;
    }
    current_ = ready_.back();
    ready_.pop_back();
    // Prefetch: in a random order the stack of the next thread is rarely in the cache.
    constexpr std::size_t soon = 3, later = 6;
    const std::size_t left = ready_.size();
    if (left >= later) __builtin_prefetch(ready_[left - later]);
    if (left >= soon && ready_[left - soon]->fibre != nullptr) ready_[left - soon]->fibre->prefetch();
    threadIdx = current_->place;
    return current_;
  }
  /// Switches to the fibre of a thread, to an idle one that will begin it, or without a thread to the host.
  void leave(Context& from, const Thread* next) {
    if (next == nullptr) return Context::go(from, *host_);
    fibre_ = next->fibre != nullptr ? next->fibre : idle();
    fibre_->resume(from);
  }
  Fibre* idle() {
    if (idle_.empty()) {
      fibres_.push_back(std::make_unique<Fibre>(fibres_.size()));
      fibres_.back()->start(&work);
      return fibres_.back().get();
    }
    Fibre* const fibre = idle_.back();
    idle_.pop_back();
    return fibre;
  }
  /// Leaves the thread that runs, until it is picked again.
  [[gnu::noinline]] void suspend() {
    Thread& self = *current_;
    const Thread* const next = pick();
    if (next == &self) return;
    self.fibre = fibre_;
    leave(*self.fibre, next);
  }

  /// The loop of a fibre: runs the thread that was picked when it was entered, then threads that have not begun.
  static void work() {
    Machine& machine = *running;
    for (;;) {
      if (!machine.run_thread()) machine.leave(*machine.fibre_, nullptr);
      const Thread* next = machine.pick();
      if (next != nullptr && next->fibre == nullptr) continue;
      Fibre& self = *machine.fibre_;
      machine.idle_.push_back(&self);
      machine.leave(self, next);
    }
  }
  bool run_thread() {
    Thread& thread = *current_;
    thread.wait = Wait::none;
    thread.now = {epoch_, 0, static_cast<std::int16_t>(thread.number), static_cast<std::int16_t>(thread.warp())};
    try {
      kernel_(arguments_);
    } catch (...) {
      failure_ = std::current_exception();
      return false;
    }
    thread.wait = Wait::ended;
    thread.fibre = nullptr;
    warps_[thread.warp()].ended |= 1u << thread.lane();
    return true;
  }

  /// Goes on when all threads wait at one barrier; returns false when all have ended.
  bool release_block() {
    const auto first = std::find_if(all_.begin(), all_.end(), [](const Thread* t) { return !t->ended(); });
    if (first == all_.end()) return false;
    for (const Thread* const other : all_) {
      if (other->wait != Wait::block || !(other->site == (*first)->site)) report_divergence(**first);
    }
    ++epoch_;
    for (Thread* const thread : all_) {
      thread->wait = Wait::none;
      thread->now.epoch = epoch_;
    }
    all_ready();
    return true;
  }
  [[noreturn]] void report_divergence(const Thread& first) {
    const auto other = std::find_if(all_.begin(), all_.end(), [&](const Thread* t) {
      return t->wait != first.wait || !(t->site == first.site) || t->mask != first.mask;
    });
    const std::string text = "simt: the threads of a block diverge: " + first.report() + ", " + (*other)->report();
    failure_ = std::make_exception_ptr(Error(text));
    give_up();
  }

  /// Goes on when all lanes of the mask have come to the place where `last` waits.
  void release_warp(const Thread& last, Warp& warp) {
    Thread* const lanes = &threads_[last.warp() * warpSize];
    const unsigned mask = last.mask & warp.present;
    std::uint64_t offered[warpSize] = {};
    std::int32_t latest = 0;
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      if (!(lanes[lane].site == last.site) || lanes[lane].mask != last.mask) return;
      offered[lane] = lanes[lane].offered;
      latest = std::max(latest, lanes[lane].now.warp_epoch);
    }
    warp.waiting &= ~mask;
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      Thread& thread = lanes[std::countr_zero(rest)];
      thread.received = thread.combine(offered, thread.source);
      thread.now.warp_epoch = latest + 1;
      thread.wait = Wait::none;
      add_ready(thread);
    }
  }

  Launch launch_;
  void (*kernel_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
  Random order_{0};
  std::byte* shared_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Thread*> all_, ready_;  // all threads of the block; the ones that can run
  Warp warps_[most_threads / warpSize];
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  Context* host_ = nullptr;
  Fibre* fibre_ = nullptr;  // the running one
  Thread* current_ = nullptr;
  std::exception_ptr failure_;
  long switches_ = 0;
  std::int64_t epoch_ = 0;  // never repeats, so accesses of earlier launches are told apart
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
  const Combine combine = [](const std::uint64_t* offered, int of) { return offered[of]; };
  const std::uint64_t bits = Machine::running->exchange(mask, to_bits(value), combine, from, site);
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
  const auto thread = [&] { kernel(args...); };
  using Body = decltype(thread);
  detail::Machine::run(
      how, [](const void* body) { (*static_cast<Body*>(body))(); }, &thread);
}

}  // namespace simt
