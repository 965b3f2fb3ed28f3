#pragma once
/// What a block is.
#include <concepts>
#include <string>
#include <utility>

#include "rwkv/backend/concept.hpp"
#include "rwkv/core/fields.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
/// A stand-in for a visitor of parameters or states in concept checks.
struct VisitorArchetype {
  void operator()(const auto&...) const {}
};
}  // namespace detail

/// A block maps a batch of sequences to a batch of the same shape. Its State remembers the past. A block is a
/// descriptor: sizes, and views of its parameters; it owns no memory.
///
///     K(sizes, layer)                                        made from the model's sizes and the layer's number
///     void forward(B&, Arena, x, State&, y) const            x, y: [batch, time, width]; time 1 is a step
///     void forward(B&, Arena&, x, State&, y, Tape&) const    the same, keeping in the arena what backward needs
///     void backward(B&, Arena, dy, tape, first, dlast, dx, K& grad, dfirst) const
///     void reset(B&, State&) const                           the state before the first token
///     static void visit(self, prefix, visitor)               visitor(TensorSpec, view) for every parameter
///     void visit_state(State&, prefix, visitor) const        visitor(name, numbers per sequence, view) for every state
///
/// backward is the adjoint of the forward pass that filled the tape from the state `first`. It reads dy and dlast, the
/// cotangents of y and of the state after the sequence. It writes dx and dfirst, the cotangents of x and of the state
/// before, and adds the parameter gradients to `grad`, a block of the same type whose views point to gradients. x must
/// be unchanged since forward. dx must not overlap dy, unless the block says that it may be dy; dfirst must not be dlast,
/// which is read after dfirst is written. Only trained blocks need Tape and backward.
///
/// Layer, Chain and Stack are blocks as well. Their tape depends on what a pass keeps: TapeFor<P> with P Keep or
/// Recompute, and Tape is TapeFor<Keep>; see tape_t. A block whose State or Tape has a size of its own makes them by
/// make_state() and make_tape<P>(). Blocks may exchange sequences beside the residual stream: see SideStreams.
template <class K>
concept Block = requires(K& block, const K& fixed, typename K::backend& be, Arena ws,
                         Seq<const typename K::compute, K::Width> x, Seq<typename K::compute, K::Width> y,
                         typename K::State& state, detail::VisitorArchetype visitor) {
  typename K::storage;
  requires std::constructible_from<K, const ModelSizes&, Index>;
  fixed.forward(be, ws, x, state, y);
  fixed.reset(be, state);
  K::visit(block, std::string(), visitor);
  fixed.visit_state(state, std::string(), visitor);
};

namespace detail {
template <class K, class P>
struct tape_of {
  using type = typename K::Tape;
};
template <class K, class P>
requires requires { typename K::template TapeFor<P>; }
struct tape_of<K, P> {
  using type = typename K::template TapeFor<P>;
};
}  // namespace detail

/// The tape of a block when a pass keeps what P says.
template <class K, class P>
using tape_t = typename detail::tape_of<K, P>::type;

/// A state of a block, not yet bound to memory; and a tape.
template <class K>
typename K::State make_state(const K& block) {
  if constexpr (requires { block.make_state(); }) return block.make_state();
  else return {};
}
/// A tape of what a pass keeps by P, not yet bound to memory.
template <class P, class K>
tape_t<K, P> make_tape(const K& block) {
  if constexpr (requires { block.template make_tape<P>(); }) return block.template make_tape<P>();
  else return {};
}

/// The state of one sequence of a batch, as views of its numbers. A cascade calls it on the threads of a pool, where memory
/// that ends ends the program: the names of a block's states should be short enough that strings allocate nothing, or the
/// block has a state_of(state, sequence) of its own.
template <class K>
typename K::State state_of(const K& block, typename K::State state, Index sequence) {
  if constexpr (requires { block.state_of(state, sequence); }) {
    return block.state_of(std::move(state), sequence);
  } else {
    block.visit_state(state, std::string(), [&](const std::string&, Index, Mat<typename K::compute>& view) {
      if (view.data != nullptr) view.data = view.row(sequence);
      view.rows = 1;
    });
    return state;
  }
}

/// For training the initial state: begin_tuning sets an initial state that has gradients, make_valid projects a changed
/// state back onto the valid ones. Blocks without these members need neither.
template <class K>
void begin_tuning_of(const K& block, typename K::backend& be, typename K::State& state) {
  block.reset(be, state);
  if constexpr (requires { block.begin_tuning(be, state); }) block.begin_tuning(be, state);
}
/// Projects a changed initial state onto the valid ones; nothing where the block has no make_valid.
template <class K>
void make_valid_of([[maybe_unused]] const K& block, [[maybe_unused]] typename K::backend& be,
                   [[maybe_unused]] typename K::State& state) {
  if constexpr (requires { block.make_valid(be, state); }) block.make_valid(be, state);
}

/// A block with a backward pass.
template <class K, class P = void>
concept TrainableBlock = Block<K> &&
    requires(const K& fixed, typename K::backend& be, Arena ws, Seq<const typename K::compute, K::Width> x,
             Seq<typename K::compute, K::Width> y, typename K::State& state, tape_t<K, P>& tape, K& grad) {
  fixed.forward(be, ws, x, state, y, tape);
  fixed.backward(be, ws, x, tape, state, state, y, grad, state);
};

/// Fails to compile with a sentence that says why K cannot be trained.
template <class K, class P>
consteval bool explain_trainable_block() {
  static_assert(
      TrainableBlock<K, P>,
      "rwkv: to be trained a block needs Tape, forward(be, ws, x, state, y, tape) and backward(be, ws, dy, tape, first, "
      "dlast, dx, grad, dfirst); see rwkv::Block");
  return TrainableBlock<K, P>;
}

namespace detail {
/// The declarations of a block whose version there is none of: whoever is made of it compiles, so that the sentence about
/// the version stands alone.
template <class S, class B, class D>
struct BlockOfNoVersion {
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  struct State {};
  struct Tape {};
  D dims;

  BlockOfNoVersion(const ModelSizes& sizes, Index);
  void forward(B&, Arena, Seq<const compute, Width>, State&, Seq<compute, Width>) const;
  void reset(B&, State&) const;
  template <class Self, class Visitor>
  static void visit(Self&, const std::string&, Visitor&&);
  template <class Visitor>
  void visit_state(State&, const std::string&, Visitor&&) const;
};
}  // namespace detail

/// Checks the scalar and the backend of a block, each with a sentence.
template <class S, class B>
consteval bool explain_block_parameters() {
  return explain_scalar<S>() && explain_backend<B>();
}

}  // namespace RWKV_ABI
}  // namespace rwkv
