#pragma once
/// Sums over ranks in an order that does not depend on the ranks.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/train/communicator.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A binary tree over leaves 0, 1, ..., n - 1. Of the n leaves below a node, the left half has the largest power of two
/// that is less than n. The tree gives a sum of n terms one order, in which any number of ranks can take it: each adds
/// up the nodes() of its own leaves, then nodes of different ranks are added.
struct SumTree {
  /// The leaves [begin, end).
  struct Node {
    Index begin, end;  ///< the first leaf below it, and one past the last
    /// Whether it has no children.
    bool is_leaf() const { return end - begin == 1; }
    /// Its left child, if it is no leaf.
    Node left() const { return {begin, middle()}; }
    /// Its right child, if it is no leaf.
    Node right() const { return {middle(), end}; }
    /// Whether the leaves are the same.
    bool operator==(const Node&) const = default;

   private:
    Index middle() const {
      return begin + static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(end - begin - 1)));
    }
  };

  Index leaves = 1;  ///< how many there are

  /// The node of all leaves.
  Node root() const { return {0, leaves}; }

  /// The largest nodes whose leaves are all in [begin, end), from left to right.
  std::vector<Node> nodes(Index begin, Index end) const {
    std::vector<Node> found;
    collect(root(), begin, end, found);
    return found;
  }

  /// The sum at the root from the sums at some nodes. `given` is called with nodes from left to right; it returns the
  /// sum at the node, or null if only sums below are known. add(a, b) adds the two and returns where their sum is.
  template <class T, class Given, class Add>
  T* sum(const Given& given, const Add& add) const {
    return sum_at<T>(root(), given, add);
  }

 private:
  static void collect(Node node, Index begin, Index end, std::vector<Node>& found) {
    if (node.end <= begin || end <= node.begin) return;
    if (begin <= node.begin && node.end <= end) return found.push_back(node);
    collect(node.left(), begin, end, found);
    collect(node.right(), begin, end, found);
  }

  template <class T, class Given, class Add>
  static T* sum_at(Node node, const Given& given, const Add& add) {
    if (T* known = given(node)) return known;
    T* left = sum_at<T>(node.left(), given, add);
    return add(left, sum_at<T>(node.right(), given, add));
  }
};

/// How many numbers a TreeReduction among `size` ranks receives at a time: `chunk` of every node of the others.
inline std::size_t count_received(Index size, const SumTree& tree, std::span<const Index> begins,
                                  Index chunk = Index{1} << 18) {
  const Index share = tree.leaves / size;
  std::size_t rounds = 0;
  Index longest = 0;
  for (Index q = 0; q < size; ++q) {
    const auto i = static_cast<std::size_t>(q);
    rounds = std::max(rounds, tree.nodes(q * share, (q + 1) * share).size());
    longest = std::max(longest, begins[i + 1] - begins[i]);
  }
  return static_cast<std::size_t>((size - 1) * std::min(chunk, longest)) * rounds;
}

/// Adds vectors of all ranks by a tree and leaves its part of the sum to each rank. Every rank receives its part of the
/// vectors of all nodes of other ranks, `chunk` numbers of each at a time.
template <class T>
class TreeReduction {
 public:
  TreeReduction() = default;
  /// All that run() needs, which then takes no memory.
  ///
  /// tree     its leaves are divided evenly among the ranks, in order
  /// begins   rank r gets the numbers [begins[r], begins[r + 1]) of the sum; outlives this object
  /// received where numbers of other ranks arrive; outlives this object. Grows to count_received(), a MiB of float for
  ///          each node of another rank
  template <Communicator C>
  TreeReduction(const C& comm, const SumTree& tree, std::span<const Index> begins, std::vector<T>& received,
                Index chunk = Index{1} << 18)
      : tree_(tree), begins_(begins), received_(&received), to_(static_cast<std::size_t>(comm.size())),
        from_(static_cast<std::size_t>(comm.size())) {
    const std::size_t size = to_.size();
    const Index share = tree.leaves / comm.size();
    asserts(share * comm.size() == tree.leaves && begins.size() == size + 1, "rwkv: ", tree.leaves, " leaves for ",
            size, " ranks");
    for (std::size_t q = 0; q < size; ++q) {
      nodes_.push_back(tree.nodes(static_cast<Index>(q) * share, static_cast<Index>(q + 1) * share));
      rounds_ = std::max(rounds_, nodes_[q].size());
      longest_ = std::max(longest_, begins[q + 1] - begins[q]);
    }
    chunk_ = std::min(chunk, longest_);
    received.resize(std::max(received.size(), count_received(comm.size(), tree, begins, chunk)));
  }

  /// sums     of this rank's nodes, from left to right: a pointer to begins.back() numbers each; they are overwritten, and
  ///          the first then has this rank's part of the sum
  /// add      add(a, b, n) adds n numbers at b to those at a
  template <Communicator C, class Add>
  void run(C& comm, std::span<T* const> sums, const Add& add) {
    const std::size_t size = to_.size(), rank = static_cast<std::size_t>(comm.rank());
    // What rank q has of its node i, of this rank's part of the sum.
    const auto place = [&](std::size_t q, std::size_t i, Index offset) {
      if (q == rank) return sums[i] + begins_[rank] + offset;
      const std::size_t other = q < rank ? q : q - 1;
      return received_->data() + (other * rounds_ + i) * static_cast<std::size_t>(chunk_);
    };
    const auto count = [&](std::size_t q, Index offset) {
      return static_cast<std::size_t>(std::clamp<Index>(begins_[q + 1] - begins_[q] - offset, 0, chunk_));
    };
    for (Index offset = 0; offset < longest_; offset += chunk_) {
      const std::size_t mine = count(rank, offset);
      for (std::size_t i = 0; i < rounds_ && size > 1; ++i) {
        for (std::size_t q = 0; q < size; ++q) {
          to_[q] = {};
          from_[q] = {};
          if (q == rank) continue;
          const std::size_t its = count(q, offset);  // its part may be shorter than `offset`
          if (i < nodes_[rank].size() && its > 0) {
            to_[q] = std::as_bytes(std::span<const T>(sums[i] + begins_[q] + offset, its));
          }
          if (i < nodes_[q].size()) from_[q] = std::as_writable_bytes(std::span<T>(place(q, i, offset), mine));
        }
        comm.all_to_all(to_, from_);
      }
      if (mine == 0) continue;
      std::size_t q = 0, i = 0;  // the next node
      const auto given = [&](SumTree::Node node) -> T* {
        if (nodes_[q][i] != node) return nullptr;
        T* known = place(q, i, offset);
        if (++i == nodes_[q].size()) i = 0, ++q;
        return known;
      };
      // A sum of two is the same in either place; in this rank's own it need not be copied there.
      const auto is_own = [&](const T* numbers) {
        return std::any_of(sums.begin(), sums.end(),
                           [&](const T* sum) { return sum + begins_[rank] + offset == numbers; });
      };
      tree_.template sum<T>(given, [&](T* a, T* b) {
        if (!is_own(a) && is_own(b)) std::swap(a, b);
        add(a, b, static_cast<Index>(mine));
        return a;
      });
    }
  }

 private:
  SumTree tree_;
  std::span<const Index> begins_;
  std::vector<T>* received_ = nullptr;
  std::vector<std::span<const std::byte>> to_;
  std::vector<std::span<std::byte>> from_;
  std::vector<std::vector<SumTree::Node>> nodes_;  // of every rank
  std::size_t rounds_ = 0;                         // the most nodes of a rank
  Index longest_ = 0, chunk_ = 0;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
