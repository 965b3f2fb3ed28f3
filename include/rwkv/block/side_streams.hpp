#pragma once
/// Sequences that cross the layers of a model beside the residual stream.
#include "rwkv/core/arena.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The value of the first layer of a model, v_first in official code, which later layers of RWKV-7 mix into theirs (the
/// value residual). The first block that uses it
/// provides it; whatever stands below that block may be of another kind.
///
/// A block that reads or writes it says `static constexpr bool uses_side_streams = true`, and has besides the forms of
/// rwkv::Block others with `SideStreams<compute>&` in front of x, or of dy. A block called without side streams starts
/// new ones, so it is the first.
template <class T>
struct SideStreams {
  Seq<T> first_value{};   ///< [batch, time, width]
  Seq<T> dfirst_value{};  ///< its cotangent on the way back: readers add to it, the provider takes it
  bool provided = false;  ///< whether a layer has written first_value
};

/// Whether a block uses side streams.
template <class K>
inline constexpr bool uses_side_streams = false;
template <class K>
requires(K::uses_side_streams) inline constexpr bool uses_side_streams<K> = true;

/// New side streams for a pass of x, in the arena; without memory if none of the blocks K uses them.
template <class... K, class T, Index W>
SideStreams<std::remove_const_t<T>> start_side_streams(Arena& ws, Seq<T, W> x) {
  using Number = std::remove_const_t<T>;
  SideStreams<Number> side;
  if constexpr ((uses_side_streams<K> || ...)) side.first_value = ws.like<Number>(x, Extent<dyn>(Index(x.width)));
  return side;
}
/// The side streams on the way back: those of the forward pass, and a cotangent that is zero.
template <class... K, class B, class T>
SideStreams<T> start_side_streams_back(B& be, Arena& ws, SideStreams<T> side) {
  if constexpr ((uses_side_streams<K> || ...)) {
    side.dfirst_value = ws.like<T>(side.first_value, side.first_value.width);
    be.fill(side.dfirst_value.flat(), T(0));
  }
  return side;
}

/// Runs a block with the side streams if it uses them, without otherwise; the other arguments as in rwkv::Block.
template <class K, class B, class Ws, class T, class... Rest>
void forward_beside(const K& block, B& be, Ws& ws, [[maybe_unused]] SideStreams<T>& side, Rest&&... rest) {
  if constexpr (uses_side_streams<K>) block.forward(be, ws, side, rest...);
  else block.forward(be, ws, rest...);
}
template <class K, class B, class T, class... Rest>
void backward_beside(const K& block, B& be, Arena& ws, [[maybe_unused]] SideStreams<T>& side, Rest&&... rest) {
  if constexpr (uses_side_streams<K>) block.backward(be, ws, side, rest...);
  else block.backward(be, ws, rest...);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
