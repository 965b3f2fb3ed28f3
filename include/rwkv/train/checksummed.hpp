#pragma once
/// A communicator that notices damaged messages.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/system/crc32.hpp"
#include "rwkv/train/communicator.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Compares a checksum of every message where it was sent and where it arrived, for networks that are not trusted. Sums
/// are taken in the order of the ranks. Costs a CRC-32 on either side and one small all_gather per verb.
///
/// Errors    a message that arrived damaged: the ranks that notice name it; as a rule all do. Then end all by abort().
template <Communicator C>
class Checksummed {
 public:
  /// Checks the messages of `comm`.
  explicit Checksummed(C comm) : comm_(std::move(comm)) {}

  int rank() const { return comm_.rank(); }
  int size() const { return comm_.size(); }

  void broadcast(std::span<std::byte> bytes, int root) {
    comm_.broadcast(bytes, root);
    compare([&](std::size_t) { return rank() == root ? bytes : bytes.first(0); },
            [&](std::size_t q) { return static_cast<int>(q) == root ? bytes : bytes.first(0); });
  }

  void all_gather(std::span<std::byte> all, std::span<const Index> begins) {
    comm_.all_gather(all, begins);
    const auto part = [&](std::size_t q) {
      return all.subspan(static_cast<std::size_t>(begins[q]), static_cast<std::size_t>(begins[q + 1] - begins[q]));
    };
    compare([&](std::size_t) { return part(static_cast<std::size_t>(rank())); }, part);
  }

  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    comm_.all_to_all(to, from);
    compare([&](std::size_t q) { return to[q]; }, [&](std::size_t q) { return from[q]; });
  }

  template <class T>
  void all_reduce(std::span<T> numbers) {
    std::vector<Index> begins, bytes;
    for (Index q = 0; q <= size(); ++q) {
      begins.push_back(q * std::ssize(numbers) / size());
      bytes.push_back(begins.back() * Index{sizeof(T)});
    }
    reduce_scatter(numbers, begins);
    all_gather(std::as_writable_bytes(numbers), bytes);
  }

  template <class T>
  void reduce_scatter(std::span<T> all, std::span<const Index> begins) {
    const auto part = [&](std::size_t q) {
      return all.subspan(static_cast<std::size_t>(begins[q]), static_cast<std::size_t>(begins[q + 1] - begins[q]));
    };
    const std::span<T> mine = part(static_cast<std::size_t>(rank()));
    std::vector<std::vector<T>> received(static_cast<std::size_t>(size()), std::vector<T>(mine.size()));
    std::vector<std::span<const std::byte>> to;
    std::vector<std::span<std::byte>> from;
    for (std::size_t q = 0; q < received.size(); ++q) {
      to.push_back(std::as_bytes(part(q)));
      from.push_back(std::as_writable_bytes(std::span(received[q])));
    }
    all_to_all(to, from);
    std::fill(mine.begin(), mine.end(), T(0));
    for (const std::vector<T>& numbers : received) {
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] += numbers[i];
    }
  }

  void abort(std::string_view sentence) { comm_.abort(sentence); }

 private:
  /// Compares what this rank sent to rank q, sent(q), and received from it, received(q), with the other side.
  template <class Sent, class Received>
  void compare(const Sent& sent, const Received& received) {
    const auto ranks = static_cast<std::size_t>(size());
    // Of every rank, the checksums of what it sent to each, and of what it received from each.
    std::vector<std::uint32_t> sums(2 * ranks * ranks);
    std::vector<Index> begins;
    for (std::size_t q = 0; q <= ranks; ++q)
      begins.push_back(static_cast<Index>(q * 2 * ranks * sizeof(std::uint32_t)));
    std::uint32_t* mine = sums.data() + static_cast<std::size_t>(rank()) * 2 * ranks;
    for (std::size_t q = 0; q < ranks; ++q) {
      mine[q] = detail::crc32(sent(q));
      mine[ranks + q] = detail::crc32(received(q));
    }
    comm_.all_gather(std::as_writable_bytes(std::span(sums)), begins);
    for (std::size_t from = 0; from < ranks; ++from) {
      for (std::size_t to = 0; to < ranks; ++to) {
        expects(sums[from * 2 * ranks + to] == sums[to * 2 * ranks + ranks + from], "rwkv: a message from rank ", from,
                " to rank ", to, " arrived damaged: its checksum differs");
      }
    }
  }

  C comm_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
