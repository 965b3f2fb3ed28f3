#pragma once
/// The adjoint of a row program, derived from the program. It is a row program, so backends need no code for it.
#include <cstddef>
#include <utility>

#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/dual.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The adjoint of a row program without stages, as a row program. Operands: the inputs of P, a `cot` for each of its
/// outputs, then one output for each input: `out` or `add` for an `in`, `sum` for a `chan`, `back` for a `prev`. A
/// `back` shares dx with the output of an `in` and must come after it.
///
/// P is evaluated once on dual numbers with one direction for each input, unless it has a hand-written
///
///     template <class R> void map_back(const R (&x)[inputs], const R (&dy)[outputs], R (&dx)[inputs]) const
template <class P>
struct RowsBack {
  P program;
};

namespace detail {

template <class... Op>
inline constexpr std::size_t cotangents_of = (std::size_t{is_cot<Op>} + ... + 0);
template <class... Op>
inline constexpr std::size_t inputs_of = (std::size_t{!is_cot<Op> && !is_output<Op>} + ... + 0);

/// Whether the operands are in order and every output has the kind that matches its input.
template <class... Op>
consteval bool back_operands_match() {
  constexpr std::size_t inputs = inputs_of<Op...>, before_outputs = inputs + cotangents_of<Op...>;
  constexpr bool cot[] = {is_cot<Op>...}, out[] = {is_output<Op>...}, prev[] = {is_prev<Op>...},
                 back[] = {is_back<Op>...}, chan[] = {is_chan<Op>...}, sum[] = {is_sum<Op>...};
  for (std::size_t n = 0; n < sizeof...(Op); ++n) {
    if (cot[n] != (n >= inputs && n < before_outputs) || out[n] != (n >= before_outputs)) return false;
  }
  for (std::size_t n = 0; n < inputs; ++n) {
    if (prev[n] != back[before_outputs + n] || chan[n] != sum[before_outputs + n]) return false;
  }
  return true;
}
template <class... Op>
consteval bool explain_rows_back() {
  constexpr bool complete = sizeof...(Op) == 2 * inputs_of<Op...> + cotangents_of<Op...>;
  static_assert(complete,
                "rwkv: the adjoint of a row program takes its inputs, a cot(...) for each output, then one output for "
                "each input");
  if constexpr (complete) {
    static_assert(back_operands_match<Op...>(),
                  "rwkv: the operands of the adjoint of a row program are its inputs, then cot(...), then the outputs "
                  "in the order of the inputs: back(...) for a prev(...), sum(...) for a chan(...)");
  }
  return true;
}

template <class P, class R, std::size_t... In, std::size_t... Out>
RWKV_HD void map_back(const P& program, std::index_sequence<In...>, std::index_sequence<Out...>,
                      const R (&x)[sizeof...(In)], const R (&dy)[sizeof...(Out)], R (&dx)[sizeof...(In)]) {
  if constexpr (requires { program.map_back(x, dy, dx); }) {
    program.map_back(x, dy, dx);
  } else {
    using D = Dual<R, static_cast<int>(sizeof...(In))>;
    D in[] = {D::variable(x[In], static_cast<int>(In))...}, y[sizeof...(Out)];
    program.map(in[In]..., y[Out]...);
    RWKV_UNROLL for (std::size_t i = 0; i < sizeof...(In); ++i) {
      dx[i] = dy[0] * y[0].direction[i];
      RWKV_UNROLL for (std::size_t o = 1; o < sizeof...(Out); ++o) dx[i] += dy[o] * y[o].direction[i];
    }
  }
}

/// The gradients of the inputs at one token.
template <class R, class P, class Lanes, std::size_t Inputs, std::size_t... Nth, class... Op>
RWKV_HD void row_back_at(const P& program, std::index_sequence<Nth...>, Index b, Index t, Index c, Lanes lanes,
                         R (&dx)[Inputs], const Op&... ops) {
  constexpr std::size_t cotangents = cotangents_of<Op...>;
  R x[Inputs], dy[cotangents];
  const auto read = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
    if constexpr (N < Inputs) x[N] = load<R>(op.row(b, t) + c, lanes);
    else if constexpr (N < Inputs + cotangents) dy[N - Inputs] = load<R>(op.row(b, t) + c, lanes);
  };
  (read(std::integral_constant<std::size_t, Nth>{}, ops), ...);
  map_back<P, R>(program, std::make_index_sequence<Inputs>(), std::make_index_sequence<cotangents>(), x, dy, dx);
}

template <class R, class P, class Lanes, std::size_t... Nth, class... Op>
RWKV_HD void row_back(const P& program, std::index_sequence<Nth...> order, Index b, Index t, Index c, Lanes lanes,
                      const Op&... ops) {
  constexpr std::size_t inputs = inputs_of<Op...>, cotangents = cotangents_of<Op...>;
  R dx[inputs], later[inputs];
  row_back_at<R>(program, order, b, t, c, lanes, dx, ops...);
  const bool last = t + 1 == written(ops...).time;
  if constexpr ((is_prev<Op> || ...)) {
    if (!last) row_back_at<R>(program, order, b, t + 1, c, lanes, later, ops...);
  }
  const auto write = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, const auto& op) {
    if constexpr (N >= inputs + cotangents) {
      constexpr std::size_t input = N - inputs - cotangents;
      using Operand = std::remove_cvref_t<decltype(op)>;
      Slot<R, Operand, Lanes> slot(op, b, t, c, lanes);
      slot.value = dx[input];
      if constexpr (requires { op.dlast; }) {
        if (t == 0) store(dx[input], op.dfirst.row(b) + c, lanes);
        slot.value = last ? load<R>(op.dlast.row(b) + c, lanes) : later[input];
      }
      slot.finish();
    }
  };
  (write(std::integral_constant<std::size_t, Nth>{}, ops), ...);
}

}  // namespace detail

template <class R, class P, class Lanes, class... Op>
RWKV_HD void apply_channels(const RowsBack<P>& back, Index b, Index t, Index c, Lanes lanes, const Op&... ops) {
  static_assert(detail::explain_rows_back<Op...>());
  detail::row_back<R>(back.program, std::index_sequence_for<Op...>(), b, t, c, lanes, ops...);
}
template <class R, class P, class... Op>
RWKV_HD void apply_row(const RowsBack<P>& back, Index b, Index t, const Op&... ops) {
  const Index width = detail::written(ops...).width;
  Index c = 0;
  for (; c + R::size <= width; c += R::size) apply_channels<R>(back, b, t, c, detail::AllLanes{}, ops...);
  if (const int left = static_cast<int>(width - c); left > 0) apply_channels<R>(back, b, t, c, left, ops...);
}

/// Runs the adjoint of the row program P; see RowsBack for the operands.
template <class B, class P, class... Op>
void rows_back(B& backend, Arena scratch, const P& program, const Op&... ops) {
  static_assert(detail::stages_of<P>::type::count == 0,
                "rwkv: rows_back derives the adjoint of a row program without stages; one with stages needs an adjoint "
                "of its own, a row program such as NormaliseBack");
  backend.rows(scratch, RowsBack<P>{program}, ops...);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
