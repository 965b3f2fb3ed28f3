#pragma once
/// What crosses the layers of a model beside the residual stream.
#include <span>
#include <type_traits>

#include "rwkv/backend/operand.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/op/activation.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The tokens and their embedding, which RWKV-7a reads in every layer; and the value of the first layer of a model, v_first
/// in official code, which later layers of RWKV-7 mix into theirs (the value residual). The first block that uses that value
/// provides it; whatever stands below that block may be of another kind.
///
/// A block that uses any of these says `static constexpr bool uses_side_streams = true`, and has besides the forms of
/// rwkv::Block others with `SideStreams<compute>&` in front of x, or of dy. A block called without side streams starts new
/// ones, so it is the first. A block that reads tokens also says `static constexpr bool reads_tokens = true`; the first such
/// block is run by forward_of_tokens, and takes the embedding as its x.
template <class T>
struct SideStreams {
  std::span<const Token> tokens{};  ///< [batch * time], those of the model
  Seq<const T> embedding{};         ///< [batch, time, width]: their embedding, with which the first layer starts
  Seq<T> dembedding{};              ///< its cotangent in the backward pass: readers add to it, the first layer takes it
  Seq<T> first_value{};             ///< [batch, time, width]
  Seq<T> dfirst_value{};            ///< its cotangent in the backward pass: readers add to it, the provider takes it
  bool provided = false;            ///< whether a layer has written first_value
};

/// Whether a block uses side streams.
template <class K>
inline constexpr bool uses_side_streams = false;
/// Of a block that says so.
template <class K>
requires(K::uses_side_streams) inline constexpr bool uses_side_streams<K> = true;

/// Whether a block reads the tokens.
template <class K>
inline constexpr bool reads_tokens = false;
/// Of a block that says so.
template <class K>
requires(K::reads_tokens) inline constexpr bool reads_tokens<K> = true;

/// New side streams for a pass of x, the embedding of `tokens`, in the arena; without memory if none of the blocks K uses
/// them.
template <class... K, class T, Index W>
SideStreams<std::remove_const_t<T>> start_side_streams(Arena& ws, Seq<T, W> x, std::span<const Token> tokens) {
  using Number = std::remove_const_t<T>;
  SideStreams<Number> side{.tokens = tokens, .embedding = x};
  if constexpr ((uses_side_streams<K> || ...)) side.first_value = ws.like<Number>(x, Extent<dyn>(Index(x.width)));
  return side;
}
/// The same where no block reads tokens.
template <class... K, class T, Index W>
SideStreams<std::remove_const_t<T>> start_side_streams(Arena& ws, Seq<T, W> x) {
  static_assert((!reads_tokens<K> && ...),
                "rwkv: this block reads tokens: run it by forward_of_tokens(block, be, ws, tokens, x, state, y)");
  return start_side_streams<K...>(ws, x, {});
}
/// The side streams in the backward pass: those of the forward pass, and cotangents that are zero.
template <class... K, class B, class T>
SideStreams<T> start_side_streams_back(B& be, Arena& ws, SideStreams<T> side) {
  if constexpr ((uses_side_streams<K> || ...)) {
    side.dfirst_value = ws.like<T>(side.first_value, side.first_value.width);
    be.fill(side.dfirst_value.flat(), T(0));
  }
  if constexpr ((reads_tokens<K> || ...)) {
    side.dembedding = ws.like<T>(side.embedding, side.embedding.width);
    be.fill(side.dembedding.flat(), T(0));
  }
  return side;
}
/// Adds the cotangent of the embedding to that of what the first layer starts with.
template <class... K, class B, class T, Index W>
void end_side_streams_back([[maybe_unused]] B& be, [[maybe_unused]] const SideStreams<T>& side,
                           [[maybe_unused]] Seq<T, W> dx) {
  if constexpr ((reads_tokens<K> || ...)) be.rows(Copy{}, arg::in(side.dembedding), arg::add(dx));
}

/// Runs a block with the side streams if it uses them, without otherwise; the other arguments as in rwkv::Block.
template <class K, class B, class Ws, class T, class... Rest>
void forward_beside(const K& block, B& be, Ws& ws, [[maybe_unused]] SideStreams<T>& side, Rest&&... rest) {
  if constexpr (uses_side_streams<K>) block.forward(be, ws, side, rest...);
  else block.forward(be, ws, rest...);
}
/// Runs the body of a model on x, the embedding of the tokens. x must not overlap the output if the block reads tokens;
/// `rest` is state, output and, for training, tape.
/// Shapes    tokens: [batch * time]   x: [batch, time, width]
template <class K, class B, class T, Index W, class... Rest>
void forward_of_tokens(const K& block, B& be, Arena& ws, [[maybe_unused]] std::span<const Token> tokens, Seq<T, W> x,
                       Rest&&... rest) {
  if constexpr (reads_tokens<K>) {
    auto side = start_side_streams<K>(ws, x, tokens);
    block.forward(be, ws, side, x, rest...);
  } else {
    block.forward(be, ws, x, rest...);
  }
}
/// The backward pass with the side streams if the block uses them, without otherwise.
template <class K, class B, class T, class... Rest>
void backward_beside(const K& block, B& be, Arena& ws, [[maybe_unused]] SideStreams<T>& side, Rest&&... rest) {
  if constexpr (uses_side_streams<K>) block.backward(be, ws, side, rest...);
  else block.backward(be, ws, rest...);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
