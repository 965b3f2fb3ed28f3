#pragma once
#include <string>

#include "rwkv/block/concept.hpp"
#include "rwkv/block/version.hpp"
#include "rwkv/op/initial_state.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The recurrent state of a time mix for a batch of sequences. Of a channel cell: component-major with the channel last;
/// for RWKV-4 the components are numerator, denominator and exponent, the official aa, bb, pp. Of a row cell: a matrix
/// for each head, [head, key, value].
template <class V, class S, class B>
struct WKVState {
  static_assert(explain_recurrence<typename V::Cell>());
  using compute = compute_t<S>;
  /// The recurrence whose state this is.
  using Cell = typename V::Cell;

  Mat<compute> numbers;  ///< [batch, numbers of a lane * width]

  /// Numbers of state in each lane: in a row cell as many as the head has channels.
  static constexpr Index per_lane(Index head_size) { return detail::lane_state_size<Cell>(head_size); }

  /// Channels.
  Index width() const requires(!RowCell<Cell>) { return numbers.cols / Cell::state_size; }

  /// One component of every sequence, [batch, width].
  Mat<compute> component(Index n) const requires(!RowCell<Cell>) {
    return {numbers.data + n * width(), numbers.rows, width(), numbers.stride};
  }

  /// The state before the first token.
  void reset(B& be) { reset_state<Cell>(be, numbers); }
};

/// The state of a time mix: the last token, for its token shift, and the state of its recurrence.
template <class V, class S, class B>
struct TimeMixState {
  using compute = compute_t<S>;

  Mat<compute> shift;     // [batch, width], the last x
  WKVState<V, S, B> wkv;  ///< what the recurrence remembers

  void reset(B& be) {
    be.fill(shift, compute(0));
    wkv.reset(be);
  }

  /// Calls visitor(name, numbers per sequence, view) for both.
  template <class D, class Visitor>
  void visit(const D& dims, const std::string& prefix, Visitor&& visitor) {
    visitor(prefix + "shift", Index(dims.width), shift);
    visitor(prefix + "wkv", wkv.per_lane(dims.head_size()) * dims.width, wkv.numbers);
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
