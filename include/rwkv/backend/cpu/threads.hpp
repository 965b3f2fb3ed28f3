#pragma once
/// A few threads that share the tiles of one operation.
#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <unsupported/Eigen/CXX11/ThreadPool>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The body of a tiled operation: a non-owning, type-erased callable, so that code that runs tiles is compiled once,
/// not once for every operation.
class TileBody {
 public:
  template <class Body>
  TileBody(const Body& body)
      : body_(&body), call_([](const void* erased, Index tile) { (*static_cast<const Body*>(erased))(tile); }) {}

  void operator()(Index tile) const { call_(body_, tile); }

 private:
  const void* body_;
  void (*call_)(const void*, Index);
};

/// Runs tiles on the calling thread and `count - 1` pool threads, which live as long as any copy of this object.
class Threads {
 public:
  explicit Threads(int count) : count_(count) {
    expects(count >= 1 && count <= 1024, "rwkv: the number of threads must be in [1, 1024], not ", count);
    if (count > 1) pool_ = std::make_shared<Eigen::ThreadPool>(count - 1);
  }

  int count() const { return count_; }

  /// Calls body(tile) once for every tile in [0, tiles), in any order, and returns when all are done. The result of a
  /// tile must not depend on the thread that runs it. The body must not throw. Allocates nothing.
  void run(Index tiles, TileBody body) const {
    if (count_ == 1 || tiles <= 1) {
      for (Index tile = 0; tile < tiles; ++tile) body(tile);
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
        for (Index tile = take(run); tile < end; tile = take(run)) body_(tile);
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

  int count_;
  std::shared_ptr<Eigen::ThreadPool> pool_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
