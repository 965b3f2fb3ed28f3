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
  P program;  ///< whose adjoint this is
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

/// Applies the adjoint to the channels of one R from c on, of which `lanes` are there, of token t of sequence b.
template <class R, class P, class Lanes, class... Op>
RWKV_HD void apply_channels(const RowsBack<P>& back, Index b, Index t, Index c, Lanes lanes, const Op&... ops) {
  static_assert(detail::explain_rows_back<Op...>());
  detail::row_back<R>(back.program, std::index_sequence_for<Op...>(), b, t, c, lanes, ops...);
}
/// Applies the adjoint to all channels of token t of sequence b.
template <class R, class P, class... Op>
RWKV_HD void apply_row(const RowsBack<P>& back, Index b, Index t, const Op&... ops) {
  const Index width = detail::written(ops...).width;
  Index c = 0;
  for (; c + R::size <= width; c += R::size) apply_channels<R>(back, b, t, c, detail::AllLanes{}, ops...);
  if (const int left = static_cast<int>(width - c); left > 0) apply_channels<R>(back, b, t, c, left, ops...);
}

namespace detail {

/// The stages of the adjoint of a program with the stages S: those of the program, for its totals; one for the
/// cotangents of all totals in its map; then, from the last stage of the program to the second, one for the cotangents
/// of the totals that the stage reads. Behind the totals of all these there is room for the totals of every stage as
/// they are before its finish.
template <class S, class Nth = std::make_integer_sequence<int, S::count>>
struct BackStages;
template <int... Counts, int First, int... Nth>
struct BackStages<Stages<Counts...>, std::integer_sequence<int, First, Nth...>> {
  using S = Stages<Counts...>;
  struct type : Stages<Counts..., S::total, S::before(S::count - Nth)...> {
    using in_turn = Stages<Counts..., S::total, S::before(S::count - Nth)...>;
    /// Where the totals of a stage before its finish are kept.
    RWKV_HD static constexpr int kept(int stage) {
      int at = in_turn::total;
      for (int s = 0; s < stage; ++s) at += S::before(s + 1);
      return at;
    }
    static constexpr int total = kept(S::count);
  };
};

template <class P>
constexpr Index groups_of(const P& program) {
  if constexpr (requires { program.groups; }) return program.groups;
  else return 1;
}

}  // namespace detail

/// The adjoint of a row program with stages, as a row program with stages; operands as for RowsBack, without `prev`. With
/// x the inputs, T_s the totals of stage s before its finish, and c(...) a cotangent:
///
///     c(totals) = sum of c(y) dmap/dtotals                   over the channels
///     c(T_s) = c(totals) through finish, c(totals) += sum of c(T_s) dreduce_s/dtotals   from the last stage on
///     c(x) = c(y) dmap/dx + sum over s of c(T_s) dreduce_s/dx
///
/// Every derivative comes from dual numbers.
template <class P, std::size_t Inputs, std::size_t Outputs>
class StagedRowsBack {
  using Forward = typename P::stages;
  static constexpr int count = Forward::count, all = Forward::total;

 public:
  using stages = typename detail::BackStages<Forward>::type;
  static constexpr int most_channels = 1;  ///< of a CUDA thread at a time: a direction of every input takes registers

  P program;     ///< whose adjoint this is
  Index groups;  ///< groups of channels that it reduces over

  /// The adjoint of a program with stages.
  explicit StagedRowsBack(const P& of) : program(of), groups(detail::groups_of(of)) {}

  template <int Nth, class R, class... Operands>
  RWKV_HD void reduce(Stage<Nth>, const R* totals, R* terms, const Operands&... operands) const {
    const R* const each[] = {&operands...};
    if constexpr (Nth < count) {
      terms_of<Nth>(totals, terms, each, [](const R& x, std::size_t) { return x; });
    } else if constexpr (Nth == count) {
      using D = Dual<R, all>;
      D at[all], y[Outputs];
      RWKV_UNROLL for (int k = 0; k < all; ++k) at[k] = D::variable(totals[k], k);
      map_to<D>(at, y, each, [](const R& x, std::size_t) { return D::variable(x, -1); });
      RWKV_UNROLL for (int k = 0; k < all; ++k) terms[k] = along(y, each, k);
    } else {
      constexpr int stage = 2 * count - Nth, before = Forward::before(stage), own = Forward::before(stage + 1) - before;
      using D = Dual<R, before>;
      D at[before], term[own];
      const R* const kept = totals + stages::kept(stage);
      RWKV_UNROLL for (int k = 0; k < before; ++k) at[k] = D::variable(kept[k], k);
      terms_of<stage>(static_cast<const D*>(at), term, each,
                      [](const R& x, std::size_t) { return D::variable(x, -1); });
      const R* const cotangents = totals + all + before;
      RWKV_UNROLL for (int k = 0; k < before; ++k) {
        terms[k] = R(0);
        RWKV_UNROLL for (int j = 0; j < own; ++j) terms[k] += cotangents[j] * term[j].direction[k];
      }
    }
  }

  template <int Nth, class R>
  RWKV_HD void finish(Stage<Nth>, R* totals) const {
    if constexpr (Nth < count) {
      constexpr int reached = Forward::before(Nth + 1);
      R* const kept = totals + stages::kept(Nth);
      RWKV_UNROLL for (int k = 0; k < reached; ++k) kept[k] = totals[k];
      if constexpr (requires { program.finish(Stage<Nth>{}, totals); }) program.finish(Stage<Nth>{}, totals);
    } else {
      constexpr int next = 2 * count - Nth - 1, reached = Forward::before(next + 1);  // whose finish is undone
      R* const cotangents = totals + all;
      if constexpr (Nth > count) {
        RWKV_UNROLL for (int k = 0; k < reached; ++k) cotangents[k] += totals[stages::before(Nth) + k];
      }
      using D = Dual<R, reached>;
      D at[reached];
      if constexpr (requires { program.finish(Stage<next>{}, at); }) {
        const R* const kept = totals + stages::kept(next);
        RWKV_UNROLL for (int k = 0; k < reached; ++k) at[k] = D::variable(kept[k], k);
        program.finish(Stage<next>{}, at);
        R pulled[reached];
        RWKV_UNROLL for (int k = 0; k < reached; ++k) {
          pulled[k] = R(0);
          RWKV_UNROLL for (int m = 0; m < reached; ++m) pulled[k] += cotangents[m] * at[m].direction[k];
        }
        RWKV_UNROLL for (int k = 0; k < reached; ++k) cotangents[k] = pulled[k];
      }
    }
  }

  template <class R, class... Operands>
  RWKV_HD void map(const R* totals, Operands&... operands) const {
    using D = Dual<R, static_cast<int>(Inputs)>;
    R* const each[] = {&operands...};
    const R* const* const given = each;
    const auto variable = [](const R& x, std::size_t i) { return D::variable(x, static_cast<int>(i)); };
    D y[Outputs];
    {
      D at[all];
      RWKV_UNROLL for (int k = 0; k < all; ++k) at[k] = D::variable(totals[k], -1);
      map_to<D>(at, y, given, variable);
    }
    R dx[Inputs];
    RWKV_UNROLL for (std::size_t i = 0; i < Inputs; ++i) dx[i] = along(y, given, static_cast<int>(i));
    add_stages<D>(std::make_integer_sequence<int, count>(), totals, dx, given, variable);
    RWKV_UNROLL for (std::size_t i = 0; i < Inputs; ++i) * each[Inputs + Outputs + i] = dx[i];
  }

 private:
  /// Calls f(inputs..., outputs...) with inputs made of the first operands.
  template <class D, class R, class Make, class F, std::size_t... In, std::size_t... Out>
  RWKV_HD static void call(const R* const* each, const Make& make, D* y, const F& f, std::index_sequence<In...>,
                           std::index_sequence<Out...>) {
    D x[] = {make(*each[In], In)...};
    f(x[In]..., y[Out]...);
  }
  template <class D, class R, class Make>
  RWKV_HD void map_to(const D* totals, D* y, const R* const* each, const Make& make) const {
    call(
        each, make, y, [&](auto&... operands) { program.map(totals, operands...); }, std::make_index_sequence<Inputs>(),
        std::make_index_sequence<Outputs>());
  }
  template <int Nth, class D, class R, class Make>
  RWKV_HD void terms_of(const D* totals, D* terms, const R* const* each, const Make& make) const {
    D y[Outputs] = {};  // not read by reduce
    call(
        each, make, y, [&](auto&... operands) { program.reduce(Stage<Nth>{}, totals, terms, operands...); },
        std::make_index_sequence<Inputs>(), std::make_index_sequence<Outputs>());
  }
  /// The derivative of the outputs in direction k, paired with their cotangents.
  template <class D, class R>
  RWKV_HD static R along(const D (&y)[Outputs], const R* const* each, int k) {
    R sum = *each[Inputs] * y[0].direction[k];
    RWKV_UNROLL for (std::size_t o = 1; o < Outputs; ++o) sum += *each[Inputs + o] * y[o].direction[k];
    return sum;
  }
  template <class D, class R, class Make, int... Nth>
  RWKV_HD void add_stages(std::integer_sequence<int, Nth...>, const R* totals, R (&dx)[Inputs], const R* const* each,
                          const Make& make) const {
    (add_stage<Nth, D>(totals, dx, each, make), ...);
  }
  template <int Nth, class D, class R, class Make>
  RWKV_HD void add_stage(const R* totals, R (&dx)[Inputs], const R* const* each, const Make& make) const {
    constexpr int before = Forward::before(Nth), own = Forward::before(Nth + 1) - before;
    D at[before + 1], term[own];
    RWKV_UNROLL for (int k = 0; k < before; ++k) at[k] = D::variable(totals[stages::kept(Nth) + k], -1);
    terms_of<Nth>(static_cast<const D*>(at), term, each, make);
    RWKV_UNROLL for (std::size_t i = 0; i < Inputs; ++i) {
      RWKV_UNROLL for (int j = 0; j < own; ++j) dx[i] += totals[all + before + j] * term[j].direction[i];
    }
  }
};

/// Runs the adjoint of the row program P; see RowsBack for the operands.
template <class B, class P, class... Op>
void rows_back(B& backend, Arena scratch, const P& program, const Op&... ops) {
  if constexpr (detail::stages_of<P>::type::count == 0) {
    backend.rows(scratch, RowsBack<P>{program}, ops...);
  } else {
    static_assert(detail::explain_rows_back<Op...>());
    static_assert((!detail::is_prev<Op> && ...),
                  "rwkv: the adjoint of a row program with stages takes no prev(...), whose tokens have other totals");
    constexpr std::size_t inputs = detail::inputs_of<Op...>, outputs = detail::cotangents_of<Op...>;
    backend.rows(scratch, StagedRowsBack<P, inputs, outputs>(program), ops...);
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
