#pragma once
/// Row programs: the fusion unit. A program is a small object with
///
///     template <class R> void map(R input, ..., R& output, ...) const
///
/// applied to every channel of every token. A program that first reduces over a row (a norm) declares
///
///     using stages = Stages<1, 2>;      // one total, then two more
///     template <class R> void reduce(Stage<0>, const R* totals, R* terms, R input, ...) const
///     template <class R> void reduce(Stage<1>, const R* totals, R* terms, R input, ...) const
///
/// `terms` receives the channel's contribution to the totals of the stage; `totals` holds the totals of all earlier
/// stages. The map of such a program takes `totals` as its first argument. An optional `template <class R> void
/// finish(Stage<1>, R* totals) const` transforms the totals when a stage is complete. A program with a member `groups`
/// reduces over that many equal groups of channels.
#include <utility>

#include "rwkv/backend/operand.hpp"
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How many numbers each stage of a row program reduces.
template <int... Counts>
struct Stages {
  static constexpr int count = sizeof...(Counts);   ///< how many stages
  static constexpr int total = (0 + ... + Counts);  ///< totals of all stages
  /// The number of totals in the stages before `stage`.
  RWKV_HD static constexpr int before(int stage) {
    constexpr int counts[] = {Counts..., 0};
    int sum = 0;
    for (int s = 0; s < stage; ++s) sum += counts[s];
    return sum;
  }
};

/// Names a stage.
template <int Nth>
struct Stage {};

namespace detail {

template <class P>
struct stages_of {
  using type = Stages<>;
};
template <class P>
requires requires { typename P::stages; }
struct stages_of<P> {
  using type = typename P::stages;
};

template <int Nth, int Terms, class R, class P, class Lanes, class... S>
RWKV_HD void reduce_slots(const P& program, const R* totals, R* sums, Lanes lanes, const S&... slots) {
  R terms[Terms];
  program.reduce(Stage<Nth>{}, totals, terms, slots.value...);
  RWKV_UNROLL for (int k = 0; k < Terms; ++k) sums[k] += only(terms[k], lanes);
}

template <int Nth, class R, class P, class... Op>
RWKV_HD void run_stage(const P& program, R* totals, Index b, Index t, Index begin, Index end, const Op&... ops) {
  using stages = typename P::stages;
  constexpr int terms = stages::before(Nth + 1) - stages::before(Nth);
  R sums[terms];
  RWKV_UNROLL for (int k = 0; k < terms; ++k) sums[k] = R(0);
  Index c = begin;
  for (; c + R::size <= end; c += R::size) {
    reduce_slots<Nth, terms>(program, totals, sums, AllLanes{}, Slot<R, Op, AllLanes>(ops, b, t, c, {})...);
  }
  if (c < end) {
    const int left = static_cast<int>(end - c);
    reduce_slots<Nth, terms>(program, totals, sums, left, Slot<R, Op, int>(ops, b, t, c, left)...);
  }
  RWKV_UNROLL for (int k = 0; k < terms; ++k) totals[stages::before(Nth) + k] = R(sum_lanes(sums[k]));
  if constexpr (requires { program.finish(Stage<Nth>{}, totals); }) program.finish(Stage<Nth>{}, totals);
}

template <class R, class P, class... Op, int... Nth>
RWKV_HD void run_stages(std::integer_sequence<int, Nth...>, [[maybe_unused]] const P& program,
                        [[maybe_unused]] R* totals, [[maybe_unused]] Index b, [[maybe_unused]] Index t,
                        [[maybe_unused]] Index begin, [[maybe_unused]] Index end, const Op&... ops) {
  (run_stage<Nth>(program, totals, b, t, begin, end, ops...), ...);
}

template <class R, class P, class... S>
RWKV_HD void map_slots(const P& program, [[maybe_unused]] const R* totals, S... slots) {
  if constexpr (requires { typename P::stages; }) program.map(totals, slots.value...);
  else program.map(slots.value...);
  (slots.finish(), ...);
}

}  // namespace detail

/// Applies a row program without stages to the token (b, t), from channel c on: to R::size channels, or to `lanes` when
/// lanes is a number.
template <class R, class P, class Lanes, class... Op>
RWKV_HD void apply_channels(const P& program, Index b, Index t, Index c, Lanes lanes, const Op&... ops) {
  detail::map_slots<R>(program, nullptr, detail::Slot<R, Op, Lanes>(ops, b, t, c, lanes)...);
}

/// Applies a row program to the token (b, t), R::size channels at a time. The order of every reduction depends on the
/// width and on R::size only.
template <class R, class P, class... Op>
RWKV_HD void apply_row(const P& program, Index b, Index t, const Op&... ops) {
  using stages = typename detail::stages_of<P>::type;
  const auto width = detail::written(ops...).width;
  Index groups = 1;
  if constexpr (requires { program.groups; }) groups = program.groups;
  const Index group = width / groups;
  for (Index begin = 0; begin < width; begin += group) {
    R totals[stages::total + 1];
    detail::run_stages(std::make_integer_sequence<int, stages::count>(), program, totals, b, t, begin, begin + group,
                       ops...);
    Index c = begin;
    for (; c + R::size <= begin + group; c += R::size) {
      detail::map_slots(program, totals, detail::Slot<R, Op, detail::AllLanes>(ops, b, t, c, {})...);
    }
    if (const int left = static_cast<int>(begin + group - c); left > 0) {
      detail::map_slots(program, totals, detail::Slot<R, Op, int>(ops, b, t, c, left)...);
    }
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
