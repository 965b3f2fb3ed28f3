#pragma once
/// Runs the adjoint of a recurrence backwards over time for a few neighbouring lanes; see recur.hpp for the layout.
#include <cstddef>
#include <utility>

#include "rwkv/backend/recur.hpp"
#include "rwkv/cell/derive.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The backward pass recomputes states for this many tokens at a time, from one stored state before each such stretch.
inline constexpr Index back_stretch = 64;

namespace detail {

/// The order of operands: per-lane inputs, shared vectors, the cotangent, an output for each input and each vector.
template <class C, class... Op, std::size_t... Nth>
consteval bool back_operands_in_order(std::index_sequence<Nth...>) {
  constexpr std::size_t own = input_count<C>, inputs = own + shared_count<C>;
  return ((Nth < own       ? !is_shared<Op> && !is_output<Op> && !is_cot<Op>
           : Nth < inputs  ? is_shared<Op>
           : Nth == inputs ? is_cot<Op>
                           : is_output<Op>)&&...);
}
template <class Schedule, class C, class... Op>
consteval bool explain_recur_back() {
  static_assert(explain_recurrence<C>());
  static_assert(explain_schedule<Schedule, C>());
  constexpr bool complete = sizeof...(Op) == 2 * (input_count<C> + shared_count<C>)+1;
  static_assert(complete,
                "rwkv: recur_back takes one operand for each input of the recurrence, one shared(...) for each shared "
                "vector, then cot(...) of its output, then one output for each input and each shared vector");
  static_assert(!complete || back_operands_in_order<C, Op...>(std::index_sequence_for<Op...>()),
                "rwkv: the operands of recur_back are the recurrence's own inputs, its shared(...) vectors, cot(...), "
                "then the outputs in the order of the inputs");
  return true;
}

template <class C, class T, class U, class V, Index N, Index M, Index K, class... Op>
void check_recur_back(Index length, const Mat<T, N>& first, const Mat<U, M>& dlast, const Mat<V, K>& dfirst,
                      const Op&... ops) {
  const auto y = written(ops...);
  if constexpr (RowCell<C>) check_heads(length, y.width);
  const Index want[] = {y.batch, lane_state_size<C>(length) * y.width};
  const auto check = [&](const auto& state) {
    const Index got[] = {state.rows, state.cols};
    asserts(got[0] == want[0] && got[1] == want[1], "rwkv: the state of a recurrence has shape ", std::span(got),
            ", the sequence needs ", std::span(want));
  };
  check(first);
  check(dlast);
  check(dfirst);
  (check_operand(ops, y.batch, y.time, y.width), ...);
}

/// How many `sum` operands precede operand `nth`.
template <class... Op>
RWKV_HD constexpr std::size_t sums_before(std::size_t nth) {
  constexpr bool sums[] = {is_sum<Op>...};
  std::size_t count = 0;
  for (std::size_t i = 0; i < nth; ++i) count += sums[i];
  return count;
}
template <class... Op>
inline constexpr std::size_t sum_count = (std::size_t{is_sum<Op>} + ... + 0);

/// Loads and stores the state of R::size neighbouring channels (or of `used`) from and to [component, lane] memory.
template <class R, std::size_t States, class T, class Used>
RWKV_HD void load_lanes(R (&state)[States], const T* from, Index lanes, Used used) {
  RWKV_UNROLL for (std::size_t n = 0; n < States; ++n) {
    state[n] = load<R>(from + static_cast<Index>(n) * lanes, used);
  }
}
template <class R, std::size_t States, class T, class Used>
RWKV_HD void store_lanes(const R (&state)[States], T* to, Index lanes, Used used) {
  RWKV_UNROLL for (std::size_t n = 0; n < States; ++n) store(state[n], to + static_cast<Index>(n) * lanes, used);
}

/// The inputs of a channel cell at one token.
template <class C, class R, class Used, std::size_t... Nth, class... Op>
RWKV_HD void load_inputs(R (&x)[input_count<C>], std::index_sequence<Nth...>, Index b, Index t, Index lane, Used used,
                         const Op&... ops) {
  const auto read = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
    if constexpr (N < input_count<C>) x[N] = load<R>(op.row(b, t) + lane, used);
  };
  (read(std::integral_constant<std::size_t, Nth>{}, ops), ...);
}

/// The cotangent of the output at one token.
template <class R, class Used, class... Op>
RWKV_HD R load_cotangent(Index b, Index t, Index lane, Used used, const Op&... ops) {
  R dy(0);
  const auto read = [&](const auto& op) {
    if constexpr (is_cot<std::remove_cvref_t<decltype(op)>>) dy = load<R>(op.row(b, t) + lane, used);
  };
  (read(ops), ...);
  return dy;
}

/// Adds what a lane gives to the cotangents of the shared vectors, [vector, component].
template <class R, class Used>
struct AddToVectors {
  R* sums;
  Index size;
  Used used;
  RWKV_HD void operator()(int vector, Index n, R number) const { sums[vector * size + n] += only(number, used); }
};

/// Writes the gradients of a row cell at one token, on the host. First is 0 for those of its own inputs, at a lane, and
/// the number of own inputs for those of the shared vectors, at a component. gradient(i) is that of input i, where
/// shared vectors follow own inputs.
template <class C, std::size_t First, class Used, std::size_t... Nth, class F, class... Op>
RWKV_INLINE void write_gradients(std::index_sequence<Nth...>, Index b, Index t, Index channel, Used used,
                                 const F& gradient, const Op&... ops) {
  constexpr std::size_t own = input_count<C>, inputs = own + shared_count<C>;
  const auto write = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
    using Operand = std::remove_cvref_t<decltype(op)>;
    if constexpr (N > inputs && (N - inputs - 1 < own) == (First == 0)) {
      const auto value = gradient(N - inputs - 1);
      Slot<std::remove_const_t<decltype(value)>, Operand, Used> slot(op, b, t, channel, used);
      slot.value = value;
      slot.finish();
    }
  };
  (write(std::integral_constant<std::size_t, Nth>{}, ops), ...);
}

/// The state before each of the tokens [begin, end), at most back_stretch of them.
template <class C, class R, class Used, class... Op>
RWKV_HD void states_of_stretch(R (&states)[back_stretch][C::state_size], const R (&start)[C::state_size], Index b,
                               Index lane, Used used, Index begin, Index end, const Op&... ops) {
  R state[C::state_size];
  RWKV_UNROLL for (int n = 0; n < C::state_size; ++n) state[n] = start[n];
  for (Index t = begin; t < end; ++t) {
    RWKV_UNROLL for (int n = 0; n < C::state_size; ++n) states[t - begin][n] = state[n];
    R x[input_count<C>];
    load_inputs<C>(x, std::index_sequence_for<Op...>(), b, t, lane, used, ops...);
    advance<C>(state, x);
  }
}

template <class C, class R, class Used, std::size_t Sums, std::size_t... Nth, class... Op>
RWKV_HD void retreat(std::index_sequence<Nth...> order, Index b, Index lane, Used used, Index begin, Index end,
                     const R (&start)[C::state_size], R (&dstate)[C::state_size], R (&sums)[Sums], const Op&... ops) {
  constexpr std::size_t inputs = input_count<C>;
  R states[back_stretch][C::state_size];
  states_of_stretch<C>(states, start, b, lane, used, begin, end, ops...);
  for (Index t = end; t-- > begin;) {
    R x[inputs], dx[inputs], dy[1];
    load_inputs<C>(x, order, b, t, lane, used, ops...);
    const auto read = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
      if constexpr (N == inputs) dy[0] = load<R>(op.row(b, t) + lane, used);
    };
    (read(std::integral_constant<std::size_t, Nth>{}, ops), ...);
    step_back<C>(states[t - begin], x, dy[0], dstate, dx);
    std::size_t sum = 0;
    const auto write = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
      using Operand = std::remove_cvref_t<decltype(op)>;
      if constexpr (is_sum<Operand>) {
        sums[sum++] += dx[N - inputs - 1];
      } else if constexpr (N > inputs) {
        Slot<R, Operand, Used> slot(op, b, t, lane, used);
        slot.value = dx[N - inputs - 1];
        slot.finish();
      }
    };
    (write(std::integral_constant<std::size_t, Nth>{}, ops), ...);
  }
}

/// Adds the sums of retreat_lanes to the `sum` operands.
template <class R, std::size_t Sums, class Used, class... Op>
RWKV_HD void add_sums(const R (&sums)[Sums], Index lane, Used used, const Op&... ops) {
  std::size_t nth = 0;
  const auto write = [&](const auto& op) {
    using Operand = std::remove_cvref_t<decltype(op)>;
    if constexpr (is_sum<Operand>) {
      Slot<R, Operand, Used> slot(op, 0, 0, lane, used);
      slot.value = sums[nth++];
      slot.finish();
    }
  };
  (write(ops), ...);
}

}  // namespace detail

/// The backward pass through the tokens [begin, end), at most back_stretch of them, for R::size channels from `lane` on
/// (or `used`, when used is a number). `start` is the state before them. dstate holds the cotangent of the state after
/// them and receives the cotangent of `start`. Writes the gradients of the inputs; a `sum` operand is added to its
/// element of `sums` instead.
template <class R, class C, class Used, std::size_t Sums, class... Op>
RWKV_HD void retreat_lanes(C, Index b, Index lane, Used used, Index begin, Index end, const R (&start)[C::state_size],
                           R (&dstate)[C::state_size], R (&sums)[Sums], const Op&... ops) {
  detail::retreat<C>(std::index_sequence_for<Op...>(), b, lane, used, begin, end, start, dstate, sums, ops...);
}

/// The backward pass through a stretch of time as an affine map: from the cotangent of the state after the stretch to
/// the cotangent of the state before it. These maps compose, so the backward pass is a scan over time as well.
template <class R, int States>
struct StretchBack {
  R map[States][States];  ///< map[n]: the cotangent before the stretch for cotangent 1 of component n after it
  R added[States];        ///< what the outputs of the stretch add to the cotangents of the state

  /// The backward pass through no time at all.
  RWKV_HD static StretchBack identity() {
    StretchBack back;
    RWKV_UNROLL for (int n = 0; n < States; ++n) {
      back.added[n] = R(0);
      RWKV_UNROLL for (int m = 0; m < States; ++m) back.map[n][m] = R(n == m ? 1 : 0);
    }
    return back;
  }
  /// Turns the cotangent of the state behind the stretch into that of the state in front of it.
  RWKV_HD void operator()(R (&dstate)[States]) const {
    R front[States];
    RWKV_UNROLL for (int m = 0; m < States; ++m) {
      front[m] = added[m];
      RWKV_UNROLL for (int n = 0; n < States; ++n) front[m] += dstate[n] * map[n][m];
    }
    RWKV_UNROLL for (int m = 0; m < States; ++m) dstate[m] = front[m];
  }
};

/// The stretch of retreat_lanes as a map: prepends it to `back`, the map of the tokens after it.
template <class R, class C, class Used, class... Op>
RWKV_HD void extend_back(C, StretchBack<R, C::state_size>& back, Index b, Index lane, Used used, Index begin, Index end,
                         const R (&start)[C::state_size], const Op&... ops) {
  constexpr auto order = std::index_sequence_for<Op...>();
  R states[back_stretch][C::state_size];
  detail::states_of_stretch<C>(states, start, b, lane, used, begin, end, ops...);
  for (Index t = end; t-- > begin;) {
    R x[input_count<C>], dx[input_count<C>], dy(0);
    detail::load_inputs<C>(x, order, b, t, lane, used, ops...);
    const auto read = [&](const auto& op) {
      if constexpr (detail::is_cot<std::remove_cvref_t<decltype(op)>>) dy = detail::load<R>(op.row(b, t) + lane, used);
    };
    (read(ops), ...);
    step_back<C>(states[t - begin], x, dy, back.added, dx);
    RWKV_UNROLL for (int n = 0; n < C::state_size; ++n) step_back<C>(states[t - begin], x, R(0), back.map[n], dx);
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
