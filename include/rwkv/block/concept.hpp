#pragma once
/// What a block is.
#include <concepts>
#include <string>

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
/// be unchanged since forward. dx must not overlap dy; dfirst must not be dlast, which is read after dfirst is written.
/// Only trained blocks need backward.
template <class K>
concept Block = requires(K& block, const K& fixed, typename K::backend& be, Arena ws,
                         Seq<const typename K::compute, K::Width> x, Seq<typename K::compute, K::Width> y,
                         typename K::State& state, detail::VisitorArchetype visitor) {
  typename K::storage;
  requires std::constructible_from<K, const ModelSizes&, Index>;
  fixed.dims;
  fixed.forward(be, ws, x, state, y);
  fixed.reset(be, state);
  K::visit(block, std::string(), visitor);
  fixed.visit_state(state, std::string(), visitor);
};

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
