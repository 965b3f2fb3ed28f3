#pragma once
#include "rwkv/block/concept.hpp"
#include "rwkv/block/version.hpp"
#include "rwkv/op/initial_state.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The recurrent state of a time mix for a batch of sequences, component-major with the channel last. For RWKV-4 the
/// components are numerator, denominator and exponent: the official aa, bb, pp.
template <class V, class S, class B>
struct WKVState {
  static_assert(explain_recurrence<typename V::Cell>() && !RowCell<typename V::Cell>,
                "rwkv: the cell of this version keeps another kind of state than numbers per channel");
  using compute = compute_t<S>;
  using Cell = typename V::Cell;
  static constexpr Index components = Cell::state_size;

  Mat<compute> numbers;  // [batch, components * width]

  Index width() const { return numbers.cols / components; }

  /// One component of every sequence, [batch, width].
  Mat<compute> component(Index n) const { return {numbers.data + n * width(), numbers.rows, width(), numbers.stride}; }

  /// The state before the first token.
  void reset(B& be) { reset_state<Cell>(be, numbers); }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
