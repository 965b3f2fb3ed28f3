#pragma once
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/mix.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Shifts a sequence by one token: y[t] = x[t-1], and y[0] is the token in the state.
template <class S, class B, class D>
class TokenShift {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  /// The last token seen, [batch, width].
  struct State {
    Mat<compute> shift;
  };

  D dims;

  explicit TokenShift(const ModelSizes& sizes, Index = 0) : dims(D::from(sizes)) {}

  /// Shapes    x, y: [batch, time, width]   state.shift: [batch, width]
  /// Aliasing  y must not overlap x; the state is read before it is replaced by x's last token
  /// Cost      one memory-bound pass, no scratch
  void forward(B& be, Arena, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    be.rows(Copy{}, arg::prev(x, state.shift), arg::out(y));
    remember_last(be, x, state.shift);
  }

  /// What backward reads.
  struct Tape {
    Seq<const compute, Width> x;
  };
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    forward(be, Arena(ws), x, state, y);
  }
  /// The adjoint, see Block; no scratch.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TokenShift&, State& dfirst) const {
    be.fill(dx.flat(), compute(0));
    rows_back(be, ws, Copy{}, arg::prev(tape.x, first.shift), arg::cot(dy), arg::back(dx, dlast.shift, dfirst.shift));
  }

  void reset(B& be, State& state) const { be.fill(state.shift, compute(0)); }

  template <class Self, class Visitor>
  static void visit(Self&, const std::string&, Visitor&&) {}

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(dims.width), state.shift);
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
