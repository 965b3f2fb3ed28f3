#pragma once
/// A few threads that share the tiles of one operation.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <unsupported/Eigen/CXX11/ThreadPool>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The body of a tiled operation: a non-owning, type-erased callable, so that code that runs tiles is compiled once,
/// not once for every operation. It takes the tile or, for memory that a thread has to itself, the tile and the number of
/// the thread that runs it, in [0, count()).
class TileBody {
 public:
  template <class Body>
  TileBody(const Body& body)
      : body_(&body), call_([](const void* erased, Index tile, [[maybe_unused]] int thread) {
          const Body& callable = *static_cast<const Body*>(erased);
          if constexpr (std::is_invocable_v<const Body&, Index, int>) callable(tile, thread);
          else callable(tile);
        }) {}

  void operator()(Index tile, int thread) const { call_(body_, tile, thread); }

 private:
  const void* body_;
  void (*call_)(const void*, Index, int);
};

namespace detail {

/// What Eigen's pool needs to know of threads, with threads that run before the pool exists. The system may refuse a
/// thread. A pool that starts its own never comes back from that: it joins the others, which nobody tells to end.
class StartedThreads : public Eigen::StlThreadEnvironment {
 public:
  /// A thread that waits for its work. The destructor joins it, also where no work came.
  class EnvThread {
   public:
    EnvThread() : thread_([this] { wait(); }) {}
    EnvThread(const EnvThread&) = delete;
    EnvThread& operator=(const EnvThread&) = delete;
    ~EnvThread() {
      begin({});
      thread_.join();
    }

    /// Does the work, or ends when that is none. Later calls do nothing. Allocates nothing.
    void begin(std::function<void()>&& work) {
      {
        const std::lock_guard lock(mutex_);
        if (!std::exchange(begun_, true)) work_ = std::move(work);
      }
      changed_.notify_one();
    }
    void OnCancel() {}

   private:
    void wait() {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return begun_; });
      }
      if (work_) work_();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> work_;
    bool begun_ = false;
    std::thread thread_;  // the last member: it uses the others
  };

  explicit StartedThreads(int count) : idle_(std::make_shared<Idle>()) {
    idle_->reserve(static_cast<std::size_t>(count));
    while (std::ssize(*idle_) < count) idle_->push_back(std::make_unique<EnvThread>());
  }

  /// Called `count` times, by the constructor of the pool. Throws nothing.
  EnvThread* CreateThread(std::function<void()> work) {
    EnvThread* thread = idle_->back().release();
    idle_->pop_back();
    thread->begin(std::move(work));
    return thread;
  }

 private:
  using Idle = std::vector<std::unique_ptr<EnvThread>>;
  std::shared_ptr<Idle> idle_;  // copies of an environment are one
};

}  // namespace detail

/// Runs tiles on the calling thread and `count - 1` pool threads, which live as long as any copy of this object.
class Threads {
 public:
  /// Errors    a number of threads outside [1, 1024], or more than the system grants; then none is left
  explicit Threads(int count) : count_(count) {
    expects(count >= 1 && count <= 1024, "rwkv: the number of threads must be in [1, 1024], not ", count);
    if (count == 1) return;
#if defined(__cpp_exceptions)
    std::string reason;
    try {
      pool_ = started(count - 1);
      return;
    } catch (const std::system_error& error) {
      reason = error.code().message();
    } catch (const std::bad_alloc&) {
      reason = "not enough memory";
    }
    fail("rwkv: ", count, " threads could not be started: ", reason);
#else  // the standard library ends the program instead
    pool_ = started(count - 1);
#endif
  }

  int count() const { return count_; }

  /// Calls body(tile) once for every tile in [0, tiles), in any order, and returns when all are done. The result of a
  /// tile must not depend on the thread that runs it. The body must not throw. Allocates nothing.
  void run(Index tiles, TileBody body) const {
    if (count_ == 1 || tiles <= 1) {
      for (Index tile = 0; tile < tiles; ++tile) body(tile, 0);
      return;
    }
    const int helpers = static_cast<int>(std::min<Index>(count_ - 1, tiles - 1));
    Job job(body, tiles, helpers);
    for (int h = 0; h < helpers; ++h) {
      // A capture of one reference fits into std::function without an allocation.
      pool_->Schedule([&job] { job.help(); });
    }
    job.work(0);
    job.wait();
  }

 private:
  /// Each thread starts with its own run of neighbouring tiles, because neighbouring tiles read neighbouring memory. A
  /// thread that has finished its run helps with the next.
  class Job {
   public:
    Job(TileBody body, Index tiles, int helpers)
        : body_(body), tiles_(tiles), runs_(std::min(helpers + 1, max_runs)), helping_(helpers) {
      for (int r = 0; r < runs_; ++r) next_[r].tile.store(begin_of(r), std::memory_order_relaxed);
    }

    void work(int thread) {
      for (int r = 0; r < runs_; ++r) {
        const int run = (thread + r) % runs_;
        const Index end = begin_of(run + 1);
        for (Index tile = take(run); tile < end; tile = take(run)) body_(tile, thread);
      }
    }
    void help() {
      work(entered_.fetch_add(1, std::memory_order_relaxed) + 1);
      // The last access to the job: once the owner sees this store, it may destroy the job.
      helping_.fetch_sub(1, std::memory_order_release);
    }
    /// Tiles are short, so the owner spins; after many spins it yields, because a helper may have been preempted.
    void wait() const {
      for (int spins = 0; helping_.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins > 4096) std::this_thread::yield();
      }
    }

   private:
    static constexpr int max_runs = 16;
    struct alignas(64) Next {
      std::atomic<Index> tile{0};
    };

    Index begin_of(int run) const { return tiles_ * run / runs_; }
    Index take(int run) { return next_[run].tile.fetch_add(1, std::memory_order_relaxed); }

    TileBody body_;
    Index tiles_;
    int runs_;
    Next next_[max_runs];
    std::atomic<int> entered_{0};
    std::atomic<int> helping_;
  };

  using Pool = Eigen::ThreadPoolTempl<detail::StartedThreads>;

  static std::shared_ptr<Pool> started(int count) {
    return std::make_shared<Pool>(count, detail::StartedThreads(count));
  }

  int count_;
  std::shared_ptr<Pool> pool_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
