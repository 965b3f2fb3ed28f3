#pragma once
/// Runs a single block forwards and backwards, with memory for its operands.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/backend/scratch.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/check/live_weights.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/model/tape_policy.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Uniform numbers in [-1, 1), an independent sequence for every stream.
inline std::vector<double> centred_numbers(std::size_t count, std::uint64_t seed, std::uint64_t stream) {
  const Philox numbers{.key = seed, .stream = stream};
  std::vector<double> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = 2 * numbers.block(i / 2).uniform_double(static_cast<int>(i % 2)) - 1;
  return x;
}

}  // namespace detail

/// Runs passes through a block, in memory that the backend shares with the host. The
/// scalar must have the same type for storage and computation; P says what layers keep.
///
/// The numbers are public: set the inputs of a pass, read its outputs. Parameters and states hold one tensor after the
/// other, in the order in which the block visits them; a state tensor is [batch, numbers].
template <class K, class P = Keep>
class BlockRun {
 public:
  using backend = typename K::backend;
  /// The number type of all spans here.
  using scalar = typename K::compute;
  /// Numbers on the host.
  using Numbers = std::vector<scalar>;

  Numbers x, y;               ///< [batch, time, width]
  std::vector<Token> tokens;  ///< [batch, time], whose embedding x is for blocks that read them; at first 0
  Numbers parameters;         ///< of the block
  Numbers first, last;        ///< state before and after
  Numbers dx, dy;             ///< cotangents of x and y
  Numbers dparameters;        ///< gradients, added to
  Numbers dfirst, dlast;      ///< cotangents of the states

  /// All numbers start as zeros. Errors: sizes that the block cannot have.
  BlockRun(const ModelSizes& sizes, Index batch, Index time, backend be = {})
      : be_(std::move(be)), block_(sizes, 0), grad_(sizes, 0), batch_(batch), time_(time), width_(sizes.width) {
    for (auto* sequence : {&x, &y, &dx, &dy}) sequence->resize(static_cast<std::size_t>(batch * time * width_));
    tokens.resize(static_cast<std::size_t>(batch * time));
    bind_parameters(block_, parameters);
    bind_parameters(grad_, dparameters);
    bind_state(first_, first);
    bind_state(last_, last);
    bind_state(dfirst_, dfirst);
    bind_state(dlast_, dlast);
  }
  BlockRun(const BlockRun&) = delete;
  BlockRun& operator=(const BlockRun&) = delete;

  /// Sequences.
  Index batch() const { return batch_; }
  /// Tokens of each.
  Index time() const { return time_; }
  /// The backend that the passes run on.
  const backend& device() const { return be_; }

  /// Every parameter of the block, with its numbers in `parameters`.
  std::vector<BindableParameter<scalar>> parameter_table() { return table_of(block_); }

  /// Calls visit(name, numbers) for every tensor of a state, in the order of its numbers in `first`.
  template <class Visit>
  void visit_state_tensors(const Visit& visit) {
    block_.visit_state(first_, std::string(),
                       [&](const std::string& name, Index, Mat<scalar>& view) { visit(name, view.rows * view.cols); });
  }

  /// The state before the first token, as `first`.
  void reset() { block_.reset(be_, first_); }

  /// Computes y and last from x and first, as in inference. The first call allocates the scratch, later ones nothing.
  void forward() {
    if (scratch_.bytes() == 0) scratch_ = scratch_for(be_, [&](Arena ws) { run_forward(ws); });
    run_forward(scratch_.arena());
  }
  /// The same, and keeps the tape for backward.
  void forward_keeping() {
    if (memory_.bytes() == 0) {
      memory_ = scratch_for(be_, [&](Arena ws) {
        run_keeping(ws);
        run_backward(kept_);
      });
    }
    run_keeping(memory_.arena());
  }
  /// Computes dx and dfirst from dy and dlast, after forward_keeping; adds to dparameters.
  void backward() { run_backward(kept_); }

 private:
  static constexpr Index Width = K::Width;
  static std::vector<BindableParameter<scalar>> table_of(K& block) {
    std::vector<BindableParameter<scalar>> list;
    K::visit(block, std::string(), ListParameters<scalar>{list});
    return list;
  }
  static void bind_parameters(K& block, Numbers& numbers) {
    auto table = table_of(block);
    Index count = 0;
    for (const auto& parameter : table) count += parameter.shape.count();
    numbers.assign(static_cast<std::size_t>(count), scalar(0));
    scalar* next = numbers.data();
    for (auto& parameter : table) {
      parameter.bind(next);
      next += parameter.shape.count();
    }
  }
  void bind_state(typename K::State& state, Numbers& numbers) {
    Index count = 0;
    block_.visit_state(state, std::string(),
                       [&](const std::string&, Index of_sequence, Mat<scalar>&) { count += batch_ * of_sequence; });
    numbers.assign(static_cast<std::size_t>(count), scalar(0));
    scalar* next = numbers.data();
    block_.visit_state(state, std::string(), [&](const std::string&, Index of_sequence, Mat<scalar>& view) {
      view = matrix(next, batch_, of_sequence);
      next += batch_ * of_sequence;
    });
  }

  Seq<scalar, Width> sequence(Numbers& numbers) const { return {numbers.data(), batch_, time_, width_}; }

  void run_forward(Arena ws) {
    std::copy(first.begin(), first.end(), last.begin());
    forward_of_tokens(block_, be_, ws, tokens, Seq<const scalar, Width>(sequence(x)), last_, sequence(y));
  }
  void run_keeping(Arena ws) {
    std::copy(first.begin(), first.end(), last.begin());
    forward_of_tokens(block_, be_, ws, tokens, Seq<const scalar, Width>(sequence(x)), last_, sequence(y), tape_);
    kept_ = ws;
  }
  void run_backward(Arena ws) {
    block_.backward(be_, ws, Seq<const scalar, Width>(sequence(dy)), tape_, first_, dlast_, sequence(dx), grad_,
                    dfirst_);
  }

  backend be_;
  K block_, grad_;
  Index batch_, time_, width_;
  typename K::State first_ = make_state(block_), last_ = first_, dfirst_ = first_, dlast_ = first_;
  tape_t<K, P> tape_ = make_tape<P>(block_);
  Memory<backend> memory_, scratch_;
  Arena kept_{nullptr, 0};
};

}  // namespace RWKV_ABI
}  // namespace rwkv
