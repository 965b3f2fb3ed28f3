#pragma once
/// A few threads that share the tiles of one operation.
#include <atomic>
#include <memory>
#include <thread>
#include <unsupported/Eigen/CXX11/ThreadPool>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv::inline RWKV_ABI {

/// Runs tiles on the calling thread and `count - 1` others, which live as long as any copy of this object.
class Threads {
 public:
  explicit Threads(int count) : count_(count) {
    expects(count >= 1 && count <= 1024, "rwkv: the number of threads must be in [1, 1024], not ", count);
    if (count > 1) pool_ = std::make_shared<Eigen::ThreadPool>(count - 1);
  }

  int count() const { return count_; }

  /// Calls body(tile) once for every tile in [0, tiles), in any order, and returns when all are done. What a tile computes
  /// must not depend on which thread runs it. Allocates nothing.
  template <class Body>
  void run(Index tiles, const Body& body) const {
    if (count_ == 1 || tiles <= 1) {
      for (Index tile = 0; tile < tiles; ++tile) body(tile);
      return;
    }
    Job<Body> job{body, tiles};
    const int helpers = static_cast<int>(std::min<Index>(count_ - 1, tiles - 1));
    job.helping.store(helpers, std::memory_order_relaxed);
    for (int h = 0; h < helpers; ++h) {
      // A capture of one pointer fits into std::function without an allocation.
      pool_->Schedule([&job] { job.help(); });
    }
    job.work();
    job.wait();
  }

 private:
  template <class Body>
  struct Job {
    const Body& body;
    Index tiles;
    std::atomic<Index> next{0};
    std::atomic<int> helping{0};

    void work() {
      for (Index tile = next.fetch_add(1, std::memory_order_relaxed); tile < tiles;
           tile = next.fetch_add(1, std::memory_order_relaxed)) {
        body(tile);
      }
    }
    void help() {
      work();
      // The last touch of the job: once it is seen, the owner may destroy it.
      helping.fetch_sub(1, std::memory_order_release);
    }
    /// Tiles are short, so the owner spins; it gives way when a helper was put off the processor.
    void wait() const {
      for (int spins = 0; helping.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins > 4096) std::this_thread::yield();
      }
    }
  };

  int count_;
  std::shared_ptr<Eigen::ThreadPool> pool_;
};

}  // namespace rwkv::inline RWKV_ABI
