#pragma once
/// What the library derives from a recurrence: the adjoint of a step, from dual numbers.
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/dual.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A channel cell with a hand-written adjoint of its step:
///
///     template <class R> static void step_back(const R (&before)[state_size], const R (&x)[inputs], R dy,
///                                              R (&dstate)[state_size], R (&dx)[inputs])
///
/// `before` is the state before the step and dy the cotangent of its output. dstate holds the cotangent of the state
/// after the step and receives the cotangent of the state before it; dx receives the cotangents of the inputs.
template <class C, class R = One<double>>
concept HasAdjoint = !RowCell<C> && requires(const R (&before)[C::state_size], const R (&x)[C::inputs.size()], R dy,
                                             R (&dstate)[C::state_size], R (&dx)[C::inputs.size()]) {
  C::step_back(before, x, dy, dstate, dx);
};

/// The adjoint of a step, derived: one evaluation on dual numbers with one direction per number of state and per input.
template <class C, class R, int States, int Inputs>
RWKV_HD void derived_step_back(const R (&before)[States], const R (&x)[Inputs], R dy, R (&dstate)[States],
                               R (&dx)[Inputs]) {
  using D = Dual<R, States + Inputs>;
  D state[States], inputs[Inputs];
  RWKV_UNROLL for (int n = 0; n < States; ++n) state[n] = D::variable(before[n], n);
  RWKV_UNROLL for (int i = 0; i < Inputs; ++i) inputs[i] = D::variable(x[i], States + i);
  const D y = C::step(state, static_cast<const D(&)[Inputs]>(inputs));
  R along[States + Inputs];
  RWKV_UNROLL for (int k = 0; k < States + Inputs; ++k) {
    along[k] = dy * y.direction[k];
    RWKV_UNROLL for (int n = 0; n < States; ++n) along[k] += dstate[n] * state[n].direction[k];
  }
  RWKV_UNROLL for (int n = 0; n < States; ++n) dstate[n] = along[n];
  RWKV_UNROLL for (int i = 0; i < Inputs; ++i) dx[i] = along[States + i];
}

/// The adjoint of a step: hand-written if the cell has it, otherwise derived.
template <class C, class R, int States, int Inputs>
RWKV_HD void step_back(const R (&before)[States], const R (&x)[Inputs], R dy, R (&dstate)[States], R (&dx)[Inputs]) {
  if constexpr (HasAdjoint<C, R>) C::step_back(before, x, dy, dstate, dx);
  else derived_step_back<C>(before, x, dy, dstate, dx);
}

/// A channel cell that has the adjoint of a whole stretch of time, in fewer numbers than a full matrix (StretchBack):
///
///     template <class R> struct Back {
///       static Back identity();
///       void extend(const R (&before)[state_size], const R (&x)[inputs], R dy);  // by a token in front
///       void extend(const Back& front);                                          // by a stretch in front
///       void operator()(R (&dstate)[state_size]) const;  // cotangent of the state after -> of the state before
///     };
template <class C, class R = One<double>>
concept HasBack = Scannable<C> && requires(typename C::template Back<R> back, R (&dstate)[C::state_size]) {
  back.extend(back);
  back(dstate);
};

/// Advances the state by one token; a scannable cell skips the output.
template <class C, class R, int States, int Inputs>
RWKV_HD void advance(R (&state)[States], const R (&x)[Inputs]) {
  if constexpr (Scannable<C>) C::enter(state, C::lift(x));
  else static_cast<void>(C::step(state, x));
}

}  // namespace RWKV_ABI
}  // namespace rwkv
