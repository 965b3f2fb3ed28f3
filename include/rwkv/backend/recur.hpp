#pragma once
/// Runs a recurrence over time for a few neighbouring lanes. State is component-major with the lane last, [batch, head,
/// component, lane], so that neighbouring lanes load as one vector on every backend; a channel cell counts as one head
/// that holds all lanes.
#include <type_traits>
#include <utility>

#include "rwkv/backend/operand.hpp"
#include "rwkv/cell/concept.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a recurrence runs over time. `Auto` lets the backend choose; the choice may change between versions. Forwards it
/// never takes Chunked, whose sums have another order: with Auto, a prompt on the CPU has the bits of its single steps.
/// Backwards, the CPU takes Chunked for heads of 16 or more. CUDA takes row cells token after token both ways, since no
/// GPU has measured their chunks yet.
struct Auto {};
/// Token after token.
struct Sequential {};
/// For scannable cells: parallel chunks of `chunk` tokens. Each chunk but the last is summarised; the summaries carry
/// the state from chunk to chunk; then every chunk runs from its initial state. Backends without parallelism may run it
/// sequentially.
struct Scan {
  Index chunk = 128;  ///< tokens of a chunk
};
/// For row cells that declare their transition: chunks of `chunk` tokens, rounded up to whole blocks of four, in
/// products of small matrices. The same as Sequential up to rounding, in fewer operations and with less traffic to the
/// state. On the CPU, the forward pass gains for heads of 128 or more, and in double; with heads of 64 floats, token
/// after token is as fast or faster. The backward pass gains for heads of 16 or more: with heads of 64, it is about three
/// times as fast. On CUDA, a chunk has 16 tokens whatever `chunk` says, or 8 or 4 where a head has more than 512 bytes a
/// row; its speed has not been measured. Backends without this form run it sequentially; so does the forward pass of
/// every backend with sequences shorter than `chunk`. A model takes it when its version says `using Schedule = Chunked`.
/// The bits of a token then depend on its place in its chunk, so a prompt no longer has the bits of its single steps.
/// Cost    the backward pass keeps the state of every head in front of every chunk, and (2 chunk)^2 numbers a head; on
///         CUDA also the cotangent behind every chunk
struct Chunked {
  Index chunk = 16;  ///< tokens of a chunk
};

namespace detail {

template <class Op>
inline constexpr bool is_shared = false;
template <class Op>
inline constexpr bool is_shared<arg::Shared<Op>> = true;

/// The vectors shared by the lanes of a head, at one token; each has a number type of its own.
template <class R, class... T>
struct SharedVectors {
  RWKV_HD R operator()(int, Index) const { return R(0); }
};
template <class R, class T, class... Rest>
struct SharedVectors<R, T, Rest...> {
  const T* first;
  SharedVectors<R, Rest...> rest;
  RWKV_HD R operator()(int vector, Index n) const {
    return vector == 0 ? R(widen<typename R::scalar>(first[n])) : rest(vector - 1, n);
  }
};
template <class R, class T, class... Rest>
RWKV_HD SharedVectors<R, T, Rest...> in_front(const T* first, const SharedVectors<R, Rest...>& rest) {
  return {first, rest};
}
/// The vectors of the `shared` operands at the token (b, t); `begin` is the first channel of the head.
template <class R>
RWKV_HD SharedVectors<R> vectors_of_head(Index, Index, Index) {
  return {};
}
template <class R, class Op, class... Rest>
RWKV_HD auto vectors_of_head(Index begin, Index b, Index t, const Op& op, const Rest&... rest) {
  const auto behind = vectors_of_head<R>(begin, b, t, rest...);
  if constexpr (is_shared<Op>) return in_front(op.row(b, t) + begin, behind);
  else return behind;
}

/// How many numbers of state a lane of `C` has; in a row cell, the head size.
template <class C>
RWKV_HD constexpr Index lane_state_size(Index length) {
  if constexpr (RowCell<C>) return length;
  else return C::state_size;
}

/// The order of operands: per-lane inputs, then shared vectors, then the output.
template <class C, class... Op, std::size_t... Nth>
consteval bool operands_in_order(std::index_sequence<Nth...>) {
  constexpr std::size_t own = input_count<C>;
  constexpr std::size_t inputs = own + shared_count<C>;
  return ((Nth < own ? !is_shared<Op> && !is_output<Op> : Nth < inputs ? is_shared<Op> : is_output<Op>)&&...);
}
/// Whether C runs in chunks of time: the schedule says so and the cell can.
template <class Schedule, class C>
consteval bool in_chunks() {
  if constexpr (std::is_same_v<Schedule, Chunked> && HasTransition<C>) {
    return input_count<C> == 1 && names_each_vector<C>();
  } else {
    return false;
  }
}
template <class Schedule, class C>
consteval bool explain_schedule() {
  static_assert(!std::is_same_v<Schedule, Scan> || Scannable<C>,
                "rwkv: Scan needs a recurrence with lift, compose and enter");
  if constexpr (std::is_same_v<Schedule, Chunked>) {
    static_assert(HasTransition<C>,
                  "rwkv: Chunked needs a row cell that declares its transition, such as static constexpr Diagonal "
                  "transition{.read = receptance, .decay = decay, .write = key};");
    if constexpr (HasTransition<C>) {
      static_assert(input_count<C> == 1, "rwkv: a row cell with a transition has one input, the value");
      static_assert(names_each_vector<C>(),
                    "rwkv: a transition names every shared vector once, and a bonus only where it reads before the "
                    "update");
    }
  }
  return true;
}
template <class Schedule, class C, class... Op>
consteval bool explain_recur() {
  static_assert(explain_recurrence<C>());
  static_assert(explain_schedule<Schedule, C>());
  static_assert(sizeof...(Op) == input_count<C> + shared_count<C> + 1,
                "rwkv: recur takes one operand for each input of the recurrence, then one shared(...) for each shared "
                "vector, then out(...)");
  static_assert(
      operands_in_order<C, Op...>(std::index_sequence_for<Op...>()),
      "rwkv: the operands of recur are the recurrence's own inputs, then its shared(...) vectors, then out(...)");
  static_assert((!is_add<Op> && ...), "rwkv: recur writes its output, it cannot add to it");
  return true;
}

/// Checks that heads of `length` make up the width.
inline void check_heads(Index length, Index width) {
  expects(length > 0 && length <= max_head_size, "rwkv: a head size must be in [1, ", max_head_size, "], not ", length);
  expects(width % length == 0, "rwkv: a width of ", width, " does not divide into heads of ", length);
}

/// Checks the arguments of recur: the head size divides the width, the state fits, the operands cover the output.
template <class C, class T, Index M, class... Op>
void check_recur(Index length, const Mat<T, M>& state, const Op&... ops) {
  const auto y = written(ops...);
  if constexpr (RowCell<C>) check_heads(length, y.width);
  const Index got[] = {state.rows, state.cols};
  const Index want[] = {y.batch, y.width * lane_state_size<C>(length)};
  asserts(got[0] == want[0] && got[1] == want[1], "rwkv: the state of a recurrence has shape ", std::span(got),
          ", the sequence needs ", std::span(want));
  (check_operand(ops, y.batch, y.time, y.width), ...);
}

/// The state and the inputs of R::size neighbouring lanes (`Used` = AllLanes) or of the last few (`Used` = int).
template <class R, class C, Index N, class Used>
struct Lanes {
  static constexpr std::size_t own = input_count<C>;
  static constexpr Index capacity = RowCell<C> && N == dyn ? max_head_size : lane_state_size<C>(N);

  Index first;  ///< channel of the first lane
  Used used;
  R state[capacity];

  template <class T>
  RWKV_HD void load_state(const T* head_state, Extent<N> length, Index head_lanes) {
    const Index numbers = lane_state_size<C>(length);
    RWKV_UNROLL_HEAD for (Index n = 0; n < numbers; ++n) state[n] = load<R>(head_state + n * head_lanes, used);
  }
  template <class T>
  RWKV_HD void store_state(T* head_state, Extent<N> length, Index head_lanes) const {
    const Index numbers = lane_state_size<C>(length);
    RWKV_UNROLL_HEAD for (Index n = 0; n < numbers; ++n) store(state[n], head_state + n * head_lanes, used);
  }

  /// The per-lane inputs of the token (b, t).
  template <std::size_t... Nth, class... Op>
  RWKV_HD void load_inputs(R (&x)[own], std::index_sequence<Nth...>, Index b, Index t, const Op&... ops) const {
    (load_input<Nth>(x, b, t, ops), ...);
  }

  /// Runs one token: updates the state and writes the output.
  template <std::size_t... Nth, class... Op>
  RWKV_HD void step(std::index_sequence<Nth...> order, Extent<N> length, Index head, Index b, Index t,
                    const Op&... ops) {
    R x[own];
    load_inputs(x, order, b, t, ops...);
    if constexpr (RowCell<C>) {
      const R y = C::step(LaneState<R, N>{state, length}, x, vectors_of_head<R>(head * length, b, t, ops...));
      (store_output(y, b, t, ops), ...);
    } else {
      const R y = C::step(state, x);
      (store_output(y, b, t, ops), ...);
    }
  }

 private:
  template <std::size_t Nth, class Op>
  RWKV_HD void load_input(R (&x)[own], Index b, Index t, const Op& op) const {
    if constexpr (Nth < own) x[Nth] = load<R>(op.row(b, t) + first, used);
  }
  template <class Op>
  RWKV_HD void store_output(R y, Index b, Index t, const Op& op) const {
    if constexpr (is_output<Op>) store(y, op.row(b, t) + first, used);
  }
};

}  // namespace detail

/// The place of a group of lanes: sequence b, head `head` with `head_lanes` lanes, first lane `lane`.
struct LanePlace {
  Index b, head, head_lanes, lane;  ///< sequence, head, lanes of a head, lane within it
};

/// Advances Groups * R::size lanes (or `used` lanes, when used is a number) through the tokens [begin, end) and writes
/// the outputs. `head_state` points at the head's [component, lane] state, which is read first and replaced at the end.
/// Several groups in one loop hide the latency of dependent operations.
template <class R, int Groups, class Used, class C, Index N, class T, class... Op>
RWKV_HD void advance_lanes(C, Extent<N> length, T* head_state, LanePlace at, Used used, Index begin, Index end,
                           const Op&... ops) {
  detail::Lanes<R, C, N, Used> groups[Groups];
  RWKV_UNROLL for (int g = 0; g < Groups; ++g) {
    groups[g].first = at.head * at.head_lanes + at.lane + g * R::size;
    groups[g].used = used;
    groups[g].load_state(head_state + at.lane + g * R::size, length, at.head_lanes);
  }
  for (Index t = begin; t < end; ++t) {
    RWKV_UNROLL for (int g = 0; g < Groups; ++g) {
      groups[g].step(std::index_sequence_for<Op...>(), length, at.head, at.b, t, ops...);
    }
  }
  RWKV_UNROLL for (int g = 0; g < Groups; ++g) {
    groups[g].store_state(head_state + at.lane + g * R::size, length, at.head_lanes);
  }
}

/// The composition of the tokens [begin, end), at least one, of R::size channels (or `used`, when used is a number).
template <class R, Scannable C, class Used, class... Op>
RWKV_HD auto summarise_lanes(C, Index b, Index lane, Used used, Index begin, Index end, const Op&... ops) {
  detail::Lanes<R, C, dyn, Used> lanes;
  lanes.first = lane;
  lanes.used = used;
  R x[input_count<C>];
  lanes.load_inputs(x, std::index_sequence_for<Op...>(), b, begin, ops...);
  auto stretch = C::lift(x);
  for (Index t = begin + 1; t < end; ++t) {
    lanes.load_inputs(x, std::index_sequence_for<Op...>(), b, t, ops...);
    stretch = C::compose(stretch, C::lift(x));
  }
  return stretch;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
