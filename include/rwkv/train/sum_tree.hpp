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

/// How many numbers reduce_scatter() below receives at a time among `size` ranks: `chunk` of every node of the others.
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

/// Adds vectors of all ranks by a tree and leaves its part of the sum to each rank.
///
/// tree     its leaves are divided evenly among the ranks, in order
/// sums     of this rank's nodes, from left to right: a pointer to begins.back() numbers each; they are overwritten, and the
///          first then has this rank's part of the sum
/// begins   rank r gets the numbers [begins[r], begins[r + 1]) of the sum
/// add      add(a, b, n) adds n numbers at b to those at a
/// received where numbers of other ranks arrive; grows to count_received()
/// Cost     every rank receives its part of the vectors of all nodes of other ranks, `chunk` numbers at a time. `received`
///          is of (ranks - 1) x (most nodes of a rank) x `chunk` numbers, a MiB of float for each such node
template <class T, Communicator C, class Add>
void reduce_scatter(C& comm, const SumTree& tree, std::span<T* const> sums, std::span<const Index> begins,
                    const Add& add, std::vector<T>& received, Index chunk = Index{1} << 18) {
  const auto size = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
  const Index share = tree.leaves / comm.size();
  asserts(share * comm.size() == tree.leaves && begins.size() == size + 1, "rwkv: ", tree.leaves, " leaves for ", size,
          " ranks");
  std::vector<std::vector<SumTree::Node>> nodes;
  std::size_t rounds = 0;
  Index longest = 0;
  for (std::size_t q = 0; q < size; ++q) {
    nodes.push_back(tree.nodes(static_cast<Index>(q) * share, static_cast<Index>(q + 1) * share));
    rounds = std::max(rounds, nodes[q].size());
    longest = std::max(longest, begins[q + 1] - begins[q]);
  }
  chunk = std::min(chunk, longest);
  received.resize(std::max(received.size(), count_received(comm.size(), tree, begins, chunk)));
  // What rank q has of its node i, of this rank's part of the sum.
  const auto place = [&](std::size_t q, std::size_t i, Index offset) {
    if (q == rank) return sums[i] + begins[rank] + offset;
    const std::size_t other = q < rank ? q : q - 1;
    return received.data() + (other * rounds + i) * static_cast<std::size_t>(chunk);
  };
  const auto count = [&](std::size_t q, Index offset) {
    return static_cast<std::size_t>(std::clamp<Index>(begins[q + 1] - begins[q] - offset, 0, chunk));
  };
  std::vector<std::span<const std::byte>> to(size);
  std::vector<std::span<std::byte>> from(size);
  for (Index offset = 0; offset < longest; offset += chunk) {
    const std::size_t mine = count(rank, offset);
    for (std::size_t i = 0; i < rounds && size > 1; ++i) {
      for (std::size_t q = 0; q < size; ++q) {
        to[q] = {};
        from[q] = {};
        if (q == rank) continue;
        const std::size_t its = count(q, offset);  // its part may be shorter than `offset`
        if (i < nodes[rank].size() && its > 0) {
          to[q] = std::as_bytes(std::span<const T>(sums[i] + begins[q] + offset, its));
        }
        if (i < nodes[q].size()) from[q] = std::as_writable_bytes(std::span<T>(place(q, i, offset), mine));
      }
      comm.all_to_all(to, from);
    }
    if (mine == 0) continue;
    std::size_t q = 0, i = 0;  // the next node
    const auto given = [&](SumTree::Node node) -> T* {
      if (nodes[q][i] != node) return nullptr;
      T* known = place(q, i, offset);
      if (++i == nodes[q].size()) i = 0, ++q;
      return known;
    };
    // A sum of two is the same in either place; in this rank's own it need not be copied there.
    const auto is_own = [&](const T* numbers) {
      return std::any_of(sums.begin(), sums.end(),
                         [&](const T* sum) { return sum + begins[rank] + offset == numbers; });
    };
    tree.sum<T>(given, [&](T* a, T* b) {
      if (!is_own(a) && is_own(b)) std::swap(a, b);
      add(a, b, static_cast<Index>(mine));
      return a;
    });
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
