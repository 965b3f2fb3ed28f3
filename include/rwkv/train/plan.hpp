#pragma once
/// What each of several ranks will hold and exchange while it trains a model, counted without the model's memory.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/product.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/data_parallel.hpp"
#include "rwkv/train/gradient.hpp"
#include "rwkv/train/sum_tree.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The backend B without memory: it only measures scratch, and what it allocates are addresses that nobody may use, and a count
/// of their bytes. Models on it are unbound, so that a model of any size can be planned anywhere.
template <class B>
class Unbacked : public B {
 public:
  /// As a backend that is always dry.
  Unbacked() { this->dry = true; }

  /// An address that nobody may use. Counts its bytes.
  template <class T>
  T* allocate(Index count) {
    *bytes_ += count * Index{sizeof(T)};
    return reinterpret_cast<T*>(std::uintptr_t{1} << 20);
  }
  /// There is nothing to give back.
  void free(void*) {}
  /// Bytes that this object and its copies have allocated.
  Index allocated() const { return *bytes_; }

  /// A verb that takes no scratch.
  template <class From, class To>
  void copy(const From&, const To&) {}
  /// A verb that takes no scratch.
  template <class To, class T>
  void fill(const To&, T) {}
  /// A verb that takes no scratch.
  template <class Table, class T, Index N>
  void gather_rows(const Table&, std::span<const Token>, Mat<T, N>) {}
  /// A verb that takes no scratch.
  template <class T, Index N, class W, Index M>
  void scatter_add_rows(Arena, Mat<T, N>, std::span<const Token>, Mat<W, M>) {}
  /// A verb that takes no scratch.
  template <class... Products>
  void gemm(const Products&...) {}

 private:
  std::shared_ptr<Index> bytes_ = std::make_shared<Index>(0);
};

namespace detail {
/// A rank that is planned for. It exchanges nothing.
struct PlannedComm {
  int number = 0, ranks = 1;

  int rank() const { return number; }
  int size() const { return ranks; }
  void broadcast(std::span<std::byte>, int) {}
  void all_gather(std::span<std::byte>, std::span<const Index>) {}
  void all_to_all(std::span<const std::span<const std::byte>>, std::span<const std::span<std::byte>>) {}
  template <class T>
  void all_reduce(std::span<T>) {}
  template <class T>
  void reduce_scatter(std::span<T>, std::span<const Index>) {}
  void abort(std::string_view sentence) { fail(sentence); }
};
}  // namespace detail

/// A communicator that counts the bytes that its rank sends to others: what a verb hands to another rank, once for each rank
/// that gets it. The sums in an order of the communicator's own count as what a rank hands to the owners of their parts, and
/// for all_reduce as much again.
template <Communicator C>
class CountedComm {
 public:
  /// Counts what goes through `comm`.
  explicit CountedComm(C comm) : comm_(std::move(comm)) {}

  int rank() const { return comm_.rank(); }
  int size() const { return comm_.size(); }
  void broadcast(std::span<std::byte> bytes, int root) {
    if (rank() == root) count(std::ssize(bytes) * others());
    comm_.broadcast(bytes, root);
  }
  void all_gather(std::span<std::byte> all, std::span<const Index> begins) {
    const auto own = static_cast<std::size_t>(rank());
    count((begins[own + 1] - begins[own]) * others());
    comm_.all_gather(all, begins);
  }
  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    for (std::size_t q = 0; q < to.size(); ++q) count(static_cast<int>(q) == rank() ? 0 : std::ssize(to[q]));
    comm_.all_to_all(to, from);
  }
  template <class T>
  void all_reduce(std::span<T> numbers) {
    count(2 * std::ssize(numbers) * Index{sizeof(T)} * others() / size());
    comm_.all_reduce(numbers);
  }
  template <class T>
  void reduce_scatter(std::span<T> all, std::span<const Index> begins) {
    const auto own = static_cast<std::size_t>(rank());
    count((std::ssize(all) - (begins[own + 1] - begins[own])) * Index{sizeof(T)});
    comm_.reduce_scatter(all, begins);
  }
  void abort(std::string_view sentence) { comm_.abort(sentence); }

  /// Bytes that this rank has sent, by this object and its copies.
  Index sent() const { return *sent_; }

 private:
  Index others() const { return size() - 1; }
  void count(Index bytes) { *sent_ += bytes; }

  C comm_;
  std::shared_ptr<Index> sent_ = std::make_shared<Index>(0);
};

/// What is planned.
struct RunShape {
  Index ranks = 1;       ///< that divide the batch and the moments
  Index rows = 1;        ///< sequences of a batch on each rank
  Index length = 1024;   ///< tokens of a sequence
  Index grain = 1;       ///< sequences of a pass, see Sharing
  bool average = false;  ///< whether a moving average is kept
};

/// What a rank holds, in bytes, and sends and computes in a step of one batch: of each kind what the rank with the most of it
/// holds; what it sends is that of the rank that sends the most.
struct RankPlan {
  Index parameters = 0;  ///< numbers of the model
  Index weights = 0;     ///< all of them, on every rank
  Index gradients = 0;   ///< of one pass
  Index sums = 0;        ///< gradients of more passes until they are added, and those that come from other ranks
  Index moments = 0;     ///< and averages, of the part that this rank updates
  Index tape = 0;        ///< activations from the forward pass to the backward pass
  Index scratch = 0;     ///< of both ways, beside the tape
  Index states = 0;      ///< of recurrences and shifts, with their gradients

  Index sent_gradients = 0;   ///< bytes that go to other ranks: parts of the gradients
  Index sent_parameters = 0;  ///< updated parameters
  Index sent_notes = 0;       ///< losses, norms, and that all is well
  Index updated = 0;          ///< numbers that this rank updates
  double flops =
      0;  ///< of its products, each once: 6 for each token and each number in a matrix or the head; 8 by Recompute,
          ///< which takes the forward pass twice

  /// All that it holds.
  Index held() const { return weights + gradients + sums + moments + tape + scratch + states; }
  /// All that it sends.
  Index sent() const { return sent_gradients + sent_parameters + sent_notes; }
};

/// Plans a Trainer<LanguageModel<V, T, B>, P, ThreadComm or MpiComm> of models of type Net = LanguageModel<V, T, Unbacked<B>>:
/// its gradient is counted by the same dry pass as that of a run, its parts by the same division.
/// What is not counted: a few MB that a backend keeps for its products, tokens, and lists of tensors.
/// Errors    those of Model, Gradient and Trainer about sizes
template <class Net, class P>
RankPlan plan_of_rank(const ModelSizes& sizes, const RunShape& run) {
  using B = typename Net::backend;
  using T = typename Net::compute;
  expects(run.ranks > 0 && run.rows > 0, "rwkv: ", run.ranks, " ranks with ", run.rows,
          " sequences each have nothing to learn from");
  expects(run.grain > 0 && run.rows % run.grain == 0, "rwkv: ", run.rows,
          " sequences of a rank are no whole passes of ", run.grain);
  RankPlan plan;
  Net net = Net::unbound(sizes, B());
  alignas(64) static std::byte nowhere[64];  // what the dry pass takes for weights; nothing is read
  for (auto& parameter : net.stored_parameters()) parameter.bind(nowhere, parameter.dtype);
  net.adopt(std::make_shared<int>());
  double multiplied = 0;
  for (const auto& parameter : net.parameters()) {
    const Index count = parameter.shape.count();
    plan.parameters += count;
    if (parameter.role != Role::embedding && parameter.role != Role::vector) multiplied += static_cast<double>(count);
  }
  const double passes = std::is_same_v<P, Recompute> ? 8 : 6;
  plan.flops = passes * multiplied * static_cast<double>(run.rows * run.length);
  plan.weights = plan.parameters * Index{sizeof(T)};

  const Gradient<Net, P> gradient(net, {.batch = run.grain, .length = run.length});
  plan.gradients = gradient.gradient_bytes();
  plan.tape = gradient.tape_bytes();
  plan.scratch = gradient.working_bytes() - plan.tape;
  const Index state = gradient.state().bytes() / run.grain;  // of one sequence
  plan.states = (4 * run.grain + 1 + 2 * run.rows) * state;

  using Share = detail::Share<T, B, detail::PlannedComm>;
  Share first(detail::PlannedComm{0, static_cast<int>(run.ranks)}, {.grain = run.grain},
              {.batch = run.ranks * run.rows, .length = run.length});
  std::vector<typename Share::Tensor> divided;
  for (const auto& parameter : gradient.parameters()) {
    const auto shape = parameter.shape.span();
    divided.push_back({parameter.values, parameter.gradient, shape.empty() ? 1 : shape.back()});
  }
  B be;
  first.divide(be, std::move(divided), gradient.numbers());
  const std::size_t tensors = gradient.parameters().size();
  std::vector<Index> begins{0};
  for (Index rank = 0; rank < run.ranks; ++rank) {
    Index own = 0;
    for (std::size_t i = 0; i < tensors; ++i) own += first.part_of(i, rank).count;
    begins.push_back(begins.back() + own);
    plan.updated = std::max(plan.updated, own);
  }
  const Index total = begins.back();
  plan.moments = plan.updated * (run.average ? 3 : 2) * Index{sizeof(T)};

  const Index leaves = run.rows / run.grain, others = run.ranks - 1;
  const SumTree tree{leaves * run.ranks};
  Index slots = 1;
  for (Index rank = 0; rank < run.ranks; ++rank) {
    slots = std::max(slots, Share::slots_of(tree, rank * leaves, (rank + 1) * leaves));
  }
  plan.sums = (slots - 1) * plan.gradients;
  plan.sums += static_cast<Index>(count_received(run.ranks, tree, begins)) * Index{sizeof(T)};
  for (Index rank = 0; rank < run.ranks; ++rank) {
    const auto nodes = static_cast<Index>(tree.nodes(rank * leaves, (rank + 1) * leaves).size());
    const Index own = begins[static_cast<std::size_t>(rank) + 1] - begins[static_cast<std::size_t>(rank)];
    constexpr Index reports = 2, report = 16, number = 8;  // that the batches are equal, and the gradients there
    RankPlan of_rank;
    of_rank.sent_gradients = nodes * (total - own) * Index{sizeof(T)};
    of_rank.sent_parameters = own * others * Index{sizeof(T)};
    of_rank.sent_notes = others * (reports * report + leaves * number + first.blocks(rank) * number);
    if (of_rank.sent() <= plan.sent()) continue;
    plan.sent_gradients = of_rank.sent_gradients;
    plan.sent_parameters = of_rank.sent_parameters;
    plan.sent_notes = of_rank.sent_notes;
  }
  return plan;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
