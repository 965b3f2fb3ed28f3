#pragma once
/// Ranks that are threads of one process: for tests, and for one large machine.
#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/data_parallel.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A rank that is a thread of run_ranks(). Sums are taken in the order of the ranks. When a rank has ended or called
/// abort(), the verbs of the others throw an Error that says so.
class ThreadComm {
 public:
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(world_->offers.size()); }

  void broadcast(std::span<std::byte> bytes, int root) {
    share({bytes, {}}, [&](const std::vector<Offer>& offers) {
      const auto from = offers[static_cast<std::size_t>(root)].bytes;
      if (rank_ != root) std::copy(from.begin(), from.end(), bytes.begin());
    });
  }

  void all_gather(std::span<std::byte> all, std::span<const Index> begins) {
    share({all, {}}, [&](const std::vector<Offer>& offers) {
      for (std::size_t q = 0; q < offers.size(); ++q) {
        if (q == index()) continue;
        std::copy(offers[q].bytes.begin() + begins[q], offers[q].bytes.begin() + begins[q + 1],
                  all.begin() + begins[q]);
      }
    });
  }

  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    share({{}, to}, [&](const std::vector<Offer>& offers) {
      for (std::size_t q = 0; q < offers.size(); ++q) {
        const auto sent = offers[q].to[index()];
        std::copy(sent.begin(), sent.end(), from[q].begin());
      }
    });
  }

  template <class T>
  void all_reduce(std::span<T> numbers) {
    std::vector<T> sums(numbers.size());
    share({std::as_writable_bytes(numbers), {}},
          [&](const std::vector<Offer>& offers) { add(offers, 0, std::span<T>(sums)); });
    std::copy(sums.begin(), sums.end(), numbers.begin());
  }

  template <class T>
  void reduce_scatter(std::span<T> all, std::span<const Index> begins) {
    const Index begin = begins[index()], end = begins[index() + 1];
    std::vector<T> sums(static_cast<std::size_t>(end - begin));
    share({std::as_writable_bytes(all), {}},
          [&](const std::vector<Offer>& offers) { add(offers, begin, std::span<T>(sums)); });
    std::copy(sums.begin(), sums.end(), all.begin() + begin);
  }

  void abort(std::string_view sentence) {
    const std::lock_guard lock(world_->mutex);
    world_->end(std::string(sentence));
  }

 private:
  template <class Work>
  friend void run_ranks(int count, const Work& work);

  /// What a rank lets the others read.
  struct Offer {
    std::span<std::byte> bytes;
    std::span<const std::span<const std::byte>> to;
  };

  struct World {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Offer> offers;
    std::size_t waiting = 0;
    Index meetings = 0;
    std::string ended;  // why no verb can complete any more

    /// Keeps the first reason.
    void end(std::string why) {
      if (ended.empty()) ended = std::move(why);
      changed.notify_all();
    }
  };

  ThreadComm(std::shared_ptr<World> world, int rank) : world_(std::move(world)), rank_(rank) {}

  std::size_t index() const { return static_cast<std::size_t>(rank_); }

  /// Waits for all ranks.
  void meet() {
    std::unique_lock lock(world_->mutex);
    expects(world_->ended.empty(), world_->ended);  // a rank that has thrown below still counts as waiting
    const Index meeting = world_->meetings;
    if (++world_->waiting == world_->offers.size()) {
      world_->waiting = 0;
      ++world_->meetings;
      world_->changed.notify_all();
    }
    world_->changed.wait(lock, [&] { return world_->meetings > meeting || !world_->ended.empty(); });
    expects(world_->meetings > meeting, world_->ended);
  }

  /// Offers memory, reads what others offer, and waits until others have read this rank's.
  template <class Read>
  void share(const Offer& offer, const Read& read) {
    {
      // Where a verb has failed, others may still read what this rank offered in it.
      const std::lock_guard lock(world_->mutex);
      expects(world_->ended.empty(), world_->ended);
      world_->offers[index()] = offer;
    }
    meet();
    read(world_->offers);
    meet();
  }

  template <class T>
  static void add(const std::vector<Offer>& offers, Index begin, std::span<T> sums) {
    for (const Offer& offer : offers) {
      const T* numbers = reinterpret_cast<const T*>(offer.bytes.data()) + begin;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += numbers[i];
    }
  }

  std::shared_ptr<World> world_;
  int rank_;
};
static_assert(Communicator<ThreadComm>);

/// Runs work(ThreadComm) on `count` threads, each a rank, and waits for them. If ranks throw, so does this, with what
/// the first of them threw.
/// Errors    more threads than the system grants; then no rank waits for one that was not started
template <class Work>
void run_ranks(int count, const Work& work) {
  expects(count > 0, "rwkv: there must be at least one rank, not ", count);
  const auto world = std::make_shared<ThreadComm::World>();
  world->offers.resize(static_cast<std::size_t>(count));
  std::exception_ptr first;
  std::string not_started = "rwkv: not all ranks could be started";
  std::vector<std::thread> threads;
  const auto rank_of_thread = [&](int rank) {
    std::string why = "a rank ended";
    const detail::Outcome outcome = detail::outcome_of([&] {
      why = join("rwkv: rank ", rank, " has ended");
      work(ThreadComm(world, rank));
    });
    // Without memory for it, the shorter sentence stays.
    static_cast<void>(detail::outcome_of([&] {
      if (outcome.thrown) why = join(why, ": ", outcome.sentence);
    }));
    const std::lock_guard lock(world->mutex);
    if (outcome.thrown && !first) first = outcome.thrown;
    world->end(std::move(why));
  };
  const detail::Outcome started = detail::outcome_of([&] {
    for (int rank = 0; rank < count; ++rank) threads.emplace_back(rank_of_thread, rank);
  });
  if (started.thrown) {
    const std::lock_guard lock(world->mutex);
    world->end(std::move(not_started));
  }
  for (std::thread& thread : threads) thread.join();
  if (started.thrown) std::rethrow_exception(started.thrown);
  if (first) std::rethrow_exception(first);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
