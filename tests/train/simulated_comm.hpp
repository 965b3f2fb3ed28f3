#pragma once
/// A network between ranks that a seed decides: which rank runs, how long every message takes, which message is damaged,
/// which rank ends without a word. Every message of a rank that lives arrives.
/// Ranks are threads of which one runs at a time, so equal seeds give equal runs.
#include <rwkv/rwkv.hpp>
#include <rwkv/train/communicator.hpp>

#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace simulated {

using rwkv::Index;

struct Faults {
  int slow = -1;       ///< a rank whose messages take a thousand times as long
  int lost = -1;       ///< a rank that ends without a word
  Index lost_at = 0;   ///< with this message of its own
  Index flipped = -1;  ///< the message with a flipped bit, counted over all ranks
};

/// What ends the thread of a lost rank.
struct Lost {};

class Network {
 public:
  Network(int size, std::uint64_t seed, const Faults& faults)
      : faults_(faults), random_{.key = seed, .stream = rwkv::stream_of("network")},
        ranks_(static_cast<std::size_t>(size)) {}

  /// Runs work(rank) for every rank and returns how each ended: "" or a sentence.
  template <class Work>
  std::vector<std::string> run(const Work& work) {
    std::vector<std::string> ends(ranks_.size());
    std::vector<std::thread> threads;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      threads.emplace_back([&, r] {
        wait_for_turn(r);
        try {
          work(static_cast<int>(r));
        } catch (const Lost&) {
          ends[r] = "lost";
        } catch (const std::exception& error) {
          ends[r] = error.what();
        }
        ranks_[r].ended = true;
        pass_on();
      });
    }
    {
      const std::lock_guard lock(mutex_);
      started_ = true;
      choose();
    }
    for (std::thread& thread : threads) thread.join();
    return ends;
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  Index messages() const { return messages_; }

  void send(int from, int to, std::span<const std::byte> bytes) {
    Rank& sender = ranks_[static_cast<std::size_t>(from)];
    if (from == faults_.lost && sender.sent++ == faults_.lost_at) throw Lost();
    Message message{now_ + 1 + below(50) * (from == faults_.slow ? 1000u : 1u), {bytes.begin(), bytes.end()}};
    if (messages_++ == faults_.flipped && !bytes.empty()) {
      const std::uint64_t bit = below(8 * bytes.size());
      message.bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    }
    const Index number = sender.sent_to[to]++;
    flying_[{from, to, number}] = std::move(message);
  }

  void receive(int from, int to, std::span<std::byte> bytes) {
    Rank& receiver = ranks_[static_cast<std::size_t>(to)];
    const Key key{from, to, receiver.received_from[from]++};
    receiver.awaits = &key;
    pass_on();
    wait_for_turn(static_cast<std::size_t>(to));
    receiver.awaits = nullptr;
    rwkv::expects(dead_.empty(), dead_);
    const Message message = std::move(flying_.at(key));
    flying_.erase(key);
    rwkv::expects(message.bytes.size() == bytes.size(), "rank ", to, " expects ", bytes.size(), " bytes of rank ", from,
                  " and gets ", message.bytes.size());
    std::copy(message.bytes.begin(), message.bytes.end(), bytes.begin());
  }

  void end(std::string_view sentence) { dead_ = sentence; }

 private:
  using Key = std::tuple<int, int, Index>;  // from, to, number between them
  struct Message {
    std::uint64_t arrives = 0;
    std::vector<std::byte> bytes;
  };
  struct Rank {
    std::map<int, Index> sent_to, received_from;
    Index sent = 0;
    const Key* awaits = nullptr;
    bool ended = false;
    std::condition_variable turn;
  };

  std::uint64_t below(std::uint64_t limit) {
    return static_cast<std::uint64_t>(random_.block(draws_++).uniform_double(0) * static_cast<double>(limit));
  }

  void wait_for_turn(std::size_t r) {
    std::unique_lock lock(mutex_);
    ranks_[r].turn.wait(lock, [&] { return started_ && running_ == r; });
  }

  void pass_on() {
    const std::lock_guard lock(mutex_);
    choose();
  }

  bool can_run(const Rank& rank) const {
    if (rank.ended) return false;
    if (rank.awaits == nullptr || !dead_.empty()) return true;
    const auto found = flying_.find(*rank.awaits);
    return found != flying_.end() && found->second.arrives <= now_;
  }

  /// Chooses who runs next; when all wait, time goes on to the next message, and without one it is over.
  void choose() {
    for (;;) {
      std::vector<std::size_t> able;
      bool all_ended = true;
      for (std::size_t r = 0; r < ranks_.size(); ++r) {
        if (can_run(ranks_[r])) able.push_back(r);
        all_ended &= ranks_[r].ended;
      }
      if (all_ended) return;
      if (!able.empty()) {
        running_ = able[below(able.size())];
        ranks_[running_].turn.notify_all();
        return;
      }
      std::uint64_t next = 0;
      for (const auto& [key, message] : flying_) {
        if (message.arrives > now_ && (next == 0 || message.arrives < next)) next = message.arrives;
      }
      if (next != 0) {
        now_ = next;
        continue;
      }
      for (const Rank& rank : ranks_) {
        if (rank.ended || !dead_.empty()) continue;
        dead_ = rwkv::join("rank ", std::get<1>(*rank.awaits), " waits in vain for rank ", std::get<0>(*rank.awaits));
      }
    }
  }

  Faults faults_;
  rwkv::Philox random_;
  std::uint64_t draws_ = 0, now_ = 0;
  Index messages_ = 0;
  std::vector<Rank> ranks_;
  std::map<Key, Message> flying_;
  std::string dead_;
  std::mutex mutex_;
  bool started_ = false;
  std::size_t running_ = 0;
};

/// A rank on that network.
class Comm {
 public:
  Comm(Network& network, int rank) : network_(&network), rank_(rank) {}
  int rank() const { return rank_; }
  int size() const { return network_->size(); }

  void broadcast(std::span<std::byte> bytes, int root) {
    if (rank_ != root) return network_->receive(root, rank_, bytes);
    for (int q = 0; q < size(); ++q) {
      if (q != rank_) network_->send(rank_, q, bytes);
    }
  }
  void all_gather(std::span<std::byte> all, std::span<const Index> begins) {
    const auto part = [&](int q) {
      const auto i = static_cast<std::size_t>(q);
      return all.subspan(std::size_t(begins[i]), std::size_t(begins[i + 1] - begins[i]));
    };
    for (int q = 0; q < size(); ++q) {
      if (q != rank_) network_->send(rank_, q, part(rank_));
    }
    for (int q = 0; q < size(); ++q) {
      if (q != rank_) network_->receive(q, rank_, part(q));
    }
  }
  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    for (int q = 0; q < size(); ++q) network_->send(rank_, q, to[static_cast<std::size_t>(q)]);
    for (int q = size() - 1; q >= 0; --q) network_->receive(q, rank_, from[static_cast<std::size_t>(q)]);
  }
  template <class T>
  void all_reduce(std::span<T> numbers) {
    std::vector<T> all(numbers.size() * static_cast<std::size_t>(size()));
    std::vector<Index> begins;
    for (Index q = 0; q <= size(); ++q) begins.push_back(q * std::ssize(numbers) * Index{sizeof(T)});
    std::copy(numbers.begin(), numbers.end(), all.begin() + rank_ * std::ssize(numbers));
    all_gather(std::as_writable_bytes(std::span(all)), begins);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = T(0);
      for (std::size_t q = 0; q < std::size_t(size()); ++q) numbers[i] += all[q * numbers.size() + i];
    }
  }
  template <class T>
  void reduce_scatter(std::span<T> all, std::span<const Index>) {
    all_reduce(all);
  }
  void abort(std::string_view sentence) { network_->end(sentence); }

 private:
  Network* network_;
  int rank_;
};
static_assert(rwkv::Communicator<Comm>);

}  // namespace simulated
