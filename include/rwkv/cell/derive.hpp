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

namespace detail {
/// A stand-in for what adds to the cotangents of shared vectors in concept checks.
template <class R>
struct AddArchetype {
  void operator()(int vector, Index n, R number) const;
};
}  // namespace detail

/// A row cell with a hand-written adjoint of its step:
///
///     template <class R, class Before, class Head, class State, class Add>
///     static void step_back(Before before, const R (&x)[inputs], const Head& head, R dy, State dstate,
///                           R (&dx)[inputs], const Add& dhead)
///
/// as above, for one lane. dhead(vector, n, number) adds the lane's part to the cotangent of component n of a shared
/// vector; the lanes of the head are summed by the caller.
template <class C, class R = One<double>>
concept HasRowAdjoint = RowCell<C> &&
    requires(LaneState<const R> before, const R (&x)[input_count<C>], detail::HeadArchetype<R> head, R dy,
             LaneState<R> dstate, R (&dx)[input_count<C>]) {
  C::step_back(before, x, head, dy, dstate, dx, detail::AddArchetype<R>{});
};

namespace detail {
/// Room for the state of a lane: its size where that is static.
template <class State>
inline constexpr Index lane_capacity = max_head_size;
template <class R, Index N>
inline constexpr Index lane_capacity<LaneState<R, N>> = N == dyn ? max_head_size : N;
}  // namespace detail

/// The adjoint of a step of a row cell, derived: an evaluation on dual numbers for every number of state, input and
/// component of a shared vector. So it costs as many steps; a cell that is trained for long deserves a step_back, or a
/// declared transition (concept.hpp), from which the CPU backend has its adjoint.
template <RowCell C, class R, class Before, class Head, class State, std::size_t Inputs, class Add>
RWKV_HD void derived_step_back(Before before, const R (&x)[Inputs], const Head& head, R dy, State dstate,
                               R (&dx)[Inputs], const Add& dhead) {
  using D = Dual<R, 1>;
  const Index size = before.size;
  D state[detail::lane_capacity<State>];
  R front[detail::lane_capacity<State>];
  // The derivative of the step in the direction of one number, paired with the cotangents.
  const auto along = [&](Index of_state, int of_input, int of_vector, Index component) {
    D inputs[Inputs];
    for (Index n = 0; n < size; ++n) state[n] = D::variable(before[n], n == of_state ? 0 : 1);
    for (int i = 0; i < static_cast<int>(Inputs); ++i) inputs[i] = D::variable(x[i], i == of_input ? 0 : 1);
    const auto dual_head = [&](int vector, Index n) {
      return D::variable(head(vector, n), vector == of_vector && n == component ? 0 : 1);
    };
    const D y = C::step(LaneState<D>{state, size}, static_cast<const D(&)[Inputs]>(inputs), dual_head);
    R sum = dy * y.direction[0];
    for (Index n = 0; n < size; ++n) sum += dstate[n] * state[n].direction[0];
    return sum;
  };
  for (Index n = 0; n < size; ++n) front[n] = along(n, -1, -1, 0);
  for (int i = 0; i < static_cast<int>(Inputs); ++i) dx[i] = along(-1, i, -1, 0);
  for (int vector = 0; vector < static_cast<int>(detail::shared_count<C>); ++vector) {
    for (Index n = 0; n < size; ++n) dhead(vector, n, along(-1, -1, vector, n));
  }
  for (Index n = 0; n < size; ++n) dstate[n] = front[n];
}

/// The adjoint of a step of a row cell: hand-written if the cell has it, otherwise derived.
template <RowCell C, class R, class Before, class Head, class State, std::size_t Inputs, class Add>
RWKV_HD void step_back(Before before, const R (&x)[Inputs], const Head& head, R dy, State dstate, R (&dx)[Inputs],
                       const Add& dhead) {
  if constexpr (HasRowAdjoint<C, R>) C::step_back(before, x, head, dy, dstate, dx, dhead);
  else derived_step_back<C>(before, x, head, dy, dstate, dx, dhead);
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
