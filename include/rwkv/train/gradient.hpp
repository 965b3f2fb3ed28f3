#pragma once
/// The loss of a model on a batch of text, and its gradient in every parameter and in the initial state.
#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "rwkv/backend/concept.hpp"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/cascade.hpp"
#include "rwkv/model/state.hpp"
#include "rwkv/model/tape_policy.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The shape of a batch, and how its loss is taken.
struct GradientOptions {
  Index batch = 1;         ///< sequences side by side
  Index length = 1;        ///< tokens of each
  Index head_chunk = 256;  ///< positions whose logits are in memory at a time
  bool l2_wrap = false;    ///< the official term that keeps the largest logit of every position from drifting away:
                           ///< 1e-4 / positions times that logit, added to its gradient
  LayerOrder order = LayerOrder::automatic;  ///< of the forward pass; see model/cascade.hpp
};

/// A parameter of a model and its gradient.
template <class T>
struct TrainedParameter : TensorSpec {
  std::span<T> values, gradient;  ///< the numbers, and the gradient of the loss by each
};

/// Computes mean cross entropy and gradients for batches of one shape. The constructor allocates all memory. The state
/// is carried from one batch to the next, unless it is reset; gradients stop at the start of the batch (truncated
/// back-propagation through time).
///
/// P says what a pass keeps: Keep or Recompute. The model's scalar must have the same type for storage and computation.
template <class Net, class P>
class Gradient {
  using Body = decltype(Net::Parts::body);
  using backend = typename Net::backend;

 public:
  /// In which gradients are.
  using scalar = typename Net::compute;
  static_assert(explain_training_backend<backend>() && explain_trainable_block<Body, P>());
  static_assert(std::is_same_v<scalar, typename Net::storage>,
                "rwkv: a model is trained in float or double; 16 bits would round small updates away");

  /// Computes gradients of the parameters that the model uses and for which wanted(TensorSpec) is true; weight-gradient
  /// products of other parameters are skipped.
  template <class Wanted>
  Gradient(Net& net, const GradientOptions& options, const Wanted& wanted)
      : parts_(net.parts), owner_(net.owner_), backend_(net.device()), options_(checked(options)),
        vocab_(net.sizes().vocab), grad_(net.sizes()), state_(backend_, parts_.body, options.batch),
        first_(backend_, parts_.body, options.batch), dlast_(backend_, parts_.body, options.batch),
        dfirst_(backend_, parts_.body, options.batch), tape_(make_tape<P>(parts_.body)), tokens_(backend_, positions()),
        targets_(backend_, positions()), losses_(backend_, positions()) {
    expects(owner_ != nullptr, "rwkv: the model has no weights: it is unbound, or was moved from");
    bind_gradients(net, wanted);
    if constexpr (RunsInCascade<Body>) {
      const bool cascade = options_.order == LayerOrder::cascade ||
                           (options_.order == LayerOrder::automatic && cascade_pays(net.sizes(), options_.length, 64));
      if (cascade && backend_.threads() > 1) workers_ = cascade_workers(backend_);
    }
    backend_.fill(dlast_.numbers(), scalar(0));
    memory_ = scratch_for(backend_, [&](Arena ws) { pass(ws, {}); });
    reset_state();
    clear();
  }
  /// Of every parameter.
  Gradient(Net& net, const GradientOptions& options) : Gradient(net, options, [](const TensorSpec&) { return true; }) {}

  /// The wanted parameters with their gradients, in the model's order.
  std::span<const TrainedParameter<scalar>> parameters() const { return parameters_; }

  /// Sets all gradients to zero.
  void clear() { backend_.fill(matrix(gradients_, 1, gradient_bytes() / Index{sizeof(scalar)}), scalar(0)); }

  /// Where the numbers of all gradients are, one after the other as parameters() lists them.
  scalar* numbers() const { return gradients_; }
  /// Puts them elsewhere: from now on gradients are in `memory`, gradient_bytes() of it, which must outlive their use.
  /// After an error it is to be called again.
  void write_to(scalar* memory) {
    if (memory == gradients_) return;
    gradients_ = nullptr;  // until all views are there
    scalar* next = memory;
    const auto move = [&](const TensorSpec& spec, auto& view) {
      if (view.data == nullptr) return;  // of a parameter that is not wanted
      view.data = next;
      next += spec.shape.count();
    };
    decltype(grad_.embedding)::visit(grad_.embedding, std::string(), move);
    Body::visit(grad_.body, std::string(), move);
    decltype(grad_.head)::visit(grad_.head, std::string(), move);
    next = memory;
    for (auto& parameter : parameters_) {
      parameter.gradient = {next, parameter.gradient.size()};
      next += parameter.gradient.size();
    }
    gradients_ = memory;
  }

  /// Adds `share` times the gradient of the mean cross entropy over the positions that have a target, and returns that
  /// mean. Continues from the state after the previous batch.
  /// Shapes    tokens, targets: [batch, length]; no_target where a position does not count
  /// Errors    another number of tokens, a token or target outside the vocabulary, no target at all: nothing changes
  double add(std::span<const Token> tokens, std::span<const Token> targets, double share = 1) {
    const std::size_t counted = check(tokens, targets);
    const double mean = 1 / static_cast<double>(counted);
    return mean * add_weighted(tokens, targets, share * mean);
  }

  /// Adds `weight` times the gradient of the sum of the cross entropies over the positions that have a target, and
  /// returns that sum. Otherwise as add(), for a part of a batch that check() has seen; it may be without a target.
  double add_weighted(std::span<const Token> tokens, std::span<const Token> targets, double weight) {
    asserts(tokens.size() == positions() && targets.size() == positions(), "rwkv: ", tokens.size(), " tokens for ",
            positions(), " positions");
    std::copy(tokens.begin(), tokens.end(), tokens_.numbers().begin());
    std::copy(targets.begin(), targets.end(), targets_.numbers().begin());
    backend_.copy(Mat<const scalar>(state_.numbers()), first_.numbers());
    pass(memory_.arena(), {weight, options_.l2_wrap ? weight * 1e-4 : 0});
    backend_.sync();
    const auto losses = losses_.numbers();
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  /// Throws the errors of add() without doing anything, and returns the number of positions with a target.
  std::size_t check(std::span<const Token> tokens, std::span<const Token> targets) const {
    return check(tokens, targets, options_.batch);
  }
  /// For a batch of another number of sequences.
  std::size_t check(std::span<const Token> tokens, std::span<const Token> targets, Index sequences) const {
    const auto expected = static_cast<std::size_t>(sequences * options_.length);
    expects(tokens.size() == expected && targets.size() == expected, "rwkv: a batch of ", sequences, " sequences of ",
            options_.length, " tokens has ", expected, " tokens and as many targets, not ", tokens.size(), " and ",
            targets.size());
    std::size_t counted = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      expects(tokens[i] >= 0 && tokens[i] < vocab_, "rwkv: token ", tokens[i], " at position ", i,
              " is outside the vocabulary of ", vocab_);
      expects(targets[i] == no_target || (targets[i] >= 0 && targets[i] < vocab_), "rwkv: target ", targets[i],
              " at position ", i, " is outside the vocabulary of ", vocab_);
      counted += targets[i] != no_target;
    }
    expects(counted > 0, "rwkv: no position of the batch has a target");
    return counted;
  }

  /// state() is where the next batch starts. state_gradient() is the gradient of the state where the last batch
  /// started.
  BodyState<Body>& state() { return state_; }
  /// The states behind the last tokens.
  const BodyState<Body>& state() const { return state_; }
  /// The cotangents of the states in front of the first tokens.
  const BodyState<Body>& state_gradient() const { return dfirst_; }
  /// Sets the states before the first token.
  void reset_state() { parts_.body.reset(backend_, state_.views); }

  /// How gradients are made.
  const GradientOptions& options() const { return options_; }
  /// Bytes that are kept from the forward to the backward pass (tape), and all bytes of both passes (working).
  Index tape_bytes() const { return tape_bytes_; }
  /// Bytes of tapes and scratch.
  Index working_bytes() const { return memory_.bytes(); }
  /// Bytes of gradients.
  Index gradient_bytes() const { return gradient_memory_.bytes(); }

 private:
  static const GradientOptions& checked(const GradientOptions& options) {
    expects(options.batch > 0 && options.length > 0, "rwkv: a batch of ", options.batch, " sequences of ",
            options.length, " tokens has nothing to learn from");
    expects(options.head_chunk > 0, "rwkv: the head needs chunks of at least one position, not ", options.head_chunk);
    constexpr Index most_tokens = Index{1} << 31;
    expects(options.batch <= most_tokens / options.length, "rwkv: a batch of ", options.batch, " sequences of ",
            options.length, " tokens is more than ", most_tokens, " tokens at a time");
    return options;
  }

  std::size_t positions() const { return static_cast<std::size_t>(options_.batch * options_.length); }

  template <class Wanted>
  void bind_gradients(Net& net, const Wanted& wanted) {
    const auto trained = [&](const TensorSpec& spec) { return !spec.unused() && wanted(spec); };
    std::vector<BindableParameter<scalar>> views;
    const ListParameters<scalar> collect{views};
    decltype(grad_.embedding)::visit(grad_.embedding, std::string(), collect);
    Body::visit(grad_.body, std::string(), collect);
    decltype(grad_.head)::visit(grad_.head, std::string(), collect);
    Index count = 0;
    for (const auto& view : views) count += trained(view) ? view.shape.count() : 0;
    gradient_memory_ = Memory<backend>(backend_, count * Index{sizeof(scalar)});
    scalar* next = reinterpret_cast<scalar*>(gradient_memory_.data());
    gradients_ = next;
    const auto values = net.parameters();
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (!trained(views[i])) continue;
      views[i].bind(next);
      next += views[i].shape.count();
      parameters_.push_back({values[i], values[i].numbers(), views[i].numbers()});
    }
  }

  void pass(Arena ws, const CrossEntropyWeights& weights) {
    const std::span<const Token> tokens = tokens_.numbers(), targets = targets_.numbers();
    const auto x = sequence(ws), y = sequence(ws);
    typename decltype(parts_.embedding)::Tape rows;
    parts_.embedding.forward(backend_, ws, tokens, x, rows);
    forward(ws, tokens, x, y);
    tape_bytes_ = ws.used();
    // From here on y holds cotangents.
    parts_.head.loss(backend_, ws, Mat<const scalar, Body::Width>(y.flat()), targets, weights, options_.head_chunk,
                     losses_.numbers(), y.flat(), grad_.head);
    parts_.body.backward(backend_, ws, y, tape_, first_.views, dlast_.views, y, grad_.body, dfirst_.views);
    parts_.embedding.backward(backend_, ws, tokens, y, rows, grad_.embedding);
  }

  void forward(Arena& ws, std::span<const Token> tokens, Seq<scalar, Body::Width> x, Seq<scalar, Body::Width> y) {
    if constexpr (RunsInCascade<Body>) {
      // A watched pass runs layer by layer, because a layer that is stopped throws; a dry pass measures both.
      if (!workers_.empty() && backend_.dry) {
        Arena other = ws;
        forward_of_tokens(parts_.body, backend_, other, tokens, x, state_.views, y, tape_);
      }
      if (!workers_.empty() && (backend_.dry || !detail::is_watched())) {
        const Index tile = cascade_tile_tokens(options_.batch, options_.length, backend_.threads());
        return forward_in_cascade<P>(parts_.body, backend_, std::span(workers_), ws, tokens, x, tile, state_.views, y,
                                     tape_);
      }
    }
    forward_of_tokens(parts_.body, backend_, ws, tokens, x, state_.views, y, tape_);
  }

  Seq<scalar, Body::Width> sequence(Arena& ws) const {
    const auto width = parts_.embedding.dims.width;
    return {ws.take<scalar>(options_.batch * options_.length * width), options_.batch, options_.length, width};
  }

  typename Net::Parts parts_;
  std::shared_ptr<const void> owner_;
  backend backend_;
  std::vector<backend> workers_;  // of a cascade; empty where layers run one by one
  GradientOptions options_;
  Index vocab_;
  typename Net::Parts grad_;
  std::vector<TrainedParameter<scalar>> parameters_;
  scalar* gradients_ = nullptr;
  BodyState<Body> state_, first_, dlast_, dfirst_;
  tape_t<Body, P> tape_;
  Exchange<Token, backend> tokens_, targets_;
  Exchange<scalar, backend> losses_;
  Memory<backend> gradient_memory_, memory_;
  Index tape_bytes_ = 0;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
