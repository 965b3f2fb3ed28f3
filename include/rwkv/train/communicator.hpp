#pragma once
/// Ranks that train one model together, and how they exchange numbers.
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A handle of one rank among size() ranks, numbered from 0. Every verb is called by all ranks, in the same order and
/// with the same sizes, and returns when this rank's memory holds the result. Copies are the same rank.
///
///     broadcast(bytes, root)       the bytes of rank `root`, on every rank
///     all_gather(all, begins)      rank r holds the bytes [begins[r], begins[r + 1]) of `all`; then every rank holds all
///     all_to_all(to, from)         to[q] goes to rank q, from[q] comes from rank q; both sides know the sizes
///     all_reduce(numbers)          the sums over all ranks, on every rank
///     reduce_scatter(all, begins)  the sums over all ranks, but of rank r's part [begins[r], begins[r + 1]) alone; the
///                                  rest of `all` is then unspecified
///     abort(sentence)              ends all ranks
///
/// The two sums are taken in an order of the communicator's own. For one that depends on the numbers alone, see
/// SumTree. `begins` has size() + 1 elements. Verbs throw an Error where ranks or messages are lost and the
/// communicator can tell; the ranks can then go on with nothing but abort().
template <class C>
concept Communicator = std::copyable<C> &&
    requires(C comm, std::span<std::byte> bytes, std::span<const Index> begins, std::span<float> f, std::span<double> d,
             std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from, int root,
             std::string_view sentence) {
  { comm.rank() } -> std::same_as<int>;
  { comm.size() } -> std::same_as<int>;
  comm.broadcast(bytes, root);
  comm.all_gather(bytes, begins);
  comm.all_to_all(to, from);
  comm.all_reduce(f);
  comm.all_reduce(d);
  comm.reduce_scatter(f, begins);
  comm.reduce_scatter(d, begins);
  comm.abort(sentence);
};

/// A process that trains alone.
struct SelfComm {
  int rank() const { return 0; }
  int size() const { return 1; }
  void broadcast(std::span<std::byte>, int) {}
  void all_gather(std::span<std::byte>, std::span<const Index>) {}
  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    std::copy(to[0].begin(), to[0].end(), from[0].begin());
  }
  template <class T>
  void all_reduce(std::span<T>) {}
  template <class T>
  void reduce_scatter(std::span<T>, std::span<const Index>) {}
  [[noreturn]] void abort(std::string_view sentence) {
    std::cerr << sentence << '\n';
    std::exit(1);
  }
};
static_assert(Communicator<SelfComm>);

/// How the gradients of several ranks become one.
enum class GradientSum : unsigned char {
  tree,      ///< by a SumTree over the grains of a step: the same bits for any number of ranks
  any_order  ///< of a rank's sequences in one pass, of the ranks in the communicator's order: the bits depend on both
};

/// How ranks share a training step. Each takes an equal number of the batch's sequences, in order. Moments and moving
/// averages are divided among the ranks as well: each updates its part of the parameters.
struct Sharing {
  GradientSum sum = GradientSum::tree;  ///< how the gradients of sequences and ranks are added
  Index grain = 1;  ///< sequences whose gradients are computed in one pass, for `tree`; the bits depend on it
};

}  // namespace RWKV_ABI
}  // namespace rwkv
