#pragma once
/// The verb `recur_back`: token after token, or as a chained scan over time (scan_back.cuh); heads in heads_back.cuh and
/// chunks_back.cuh.
///
/// serial_back_kernel: a thread takes a channel of a sequence; threads do not cooperate.
/// 1. Forward through the sequence, keeping the state in front of every run of tokens in scratch memory.
/// 2. Backward, run after run: load the run and the state in front of it, recompute the states inside, go back.
/// 3. Sums over tokens are stored for each sequence; partial_sums.cuh adds the sequences.
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/recur/chunks_back.cuh"
#include "rwkv/backend/cuda/recur/heads_back.cuh"
#include "rwkv/backend/cuda/recur/scan_back.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Tokens of a run: those whose states a thread holds in registers.
template <class C, class T>
inline constexpr int tokens_back = tokens_of_run(C::state_size* words_of<T>);

/// The adjoint of a channel cell, token after token. starts: the states in front of runs, [slot, component, channel].
template <class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(serial_threads, 1)
    serial_back_kernel(Sequences sequences, T* starts, Mat<const T> first, Mat<const T> dlast, Mat<T> dfirst,
                       Partial<T> partial, Op... ops) {
  using R = Several<T, 1>;
  constexpr int tokens = tokens_back<C, T>;
  constexpr std::size_t inputs = input_count<C>;
  constexpr auto all = detail::AllLanes{};
  const Index width = detail::written(ops...).width;
  const auto columns = static_cast<unsigned>((width + serial_threads - 1) / serial_threads);
  const Index lane = blockIdx.x % columns * serial_threads + threadIdx.x, s = blockIdx.x / columns;
  if (lane >= width) return;
  const Span span = sequences[s];
  const Index runs = (span.end - span.begin + tokens - 1) / tokens;
  const auto start_of = [&](Index n) { return starts + sequences.slot({s, n}, tokens) * C::state_size * width + lane; };
  Numbers<R, C::state_size> now, dstate;
  {
    run_t<R, tokens, inputs, Op...> ahead;
    ahead.begin(lane, ops...);
    RWKV_UNROLL for (int i = 0; i < tokens; ++i) {
      if (span.begin + i < span.end) ahead.fetch(i, span.b, span.begin + i, lane, ops...);
    }
    detail::load_lanes(now.v, first.row(s) + lane, width, all);
    for (Index n = 0; n < runs; ++n) {
      detail::store_lanes(now.v, start_of(n), width, all);
      const Index t = span.begin + n * tokens;
      RWKV_UNROLL for (int i = 0; i < tokens; ++i) {
        if (t + tokens < span.end) {
          R x[inputs];
          ahead.numbers(i, x);
          if (t + tokens + i < span.end) ahead.fetch(i, span.b, t + tokens + i, lane, ops...);
          advance<C>(now.v, x);
        }
      }
    }
  }
  Numbers<R, detail::sum_count<Op...> + 1> sums;
  RWKV_UNROLL for (std::size_t n = 0; n <= detail::sum_count<Op...>; ++n) sums.v[n] = R(0);
  detail::load_lanes(dstate.v, dlast.row(s) + lane, width, all);
  AdjointRun<C, R, tokens, Op...> run;
  run.held.begin(lane, ops...);
  for (Index n = runs; n-- > 0;) {
    const Index t = span.begin + n * tokens;
    const int count = span.end - t < tokens ? static_cast<int>(span.end - t) : tokens;
    run.fetch(count, span.b, t, lane, ops...);
    detail::load_lanes(now.v, start_of(n), width, all);
    run.recompute(count, now.v);
    run.retreat(count, span.b, t, lane, dstate.v, sums, ops...);
  }
  detail::store_lanes(dstate.v, dfirst.row(s) + lane, width, all);
  partial.store(s, lane, sums);
}

/// The adjoint of a channel cell over sequences of at most `longest` tokens.
template <class C, class Schedule, class T, class Sequences, class... Op>
void recur_back_channels(const CudaStream& stream, bool dry, Arena scratch, [[maybe_unused]] Schedule schedule,
                         Sequences sequences, [[maybe_unused]] Index longest, Mat<const T> first, Mat<const T> dlast,
                         Mat<T> dfirst, const Op&... ops) {
  const Index width = detail::written(ops...).width;
  if constexpr (scans_back<C, T, Op...>() && !std::is_same_v<Schedule, Sequential>) {
    if (longest > chunk_of(schedule, sequences.count() * width, longest)) {
      return recur_back_scan<C>(stream, dry, scratch, sequences, first, dlast, dfirst, ops...);
    }
  }
  T* starts = scratch.take<T>(sequences.slots(tokens_back<C, T>) * C::state_size * width);
  const Partial<T> partial{scratch.take<T>(sequences.count() * Index{detail::sum_count<Op...>} * width), width};
  if (dry) return;
  stream.launch({.grid = {static_cast<unsigned>(blocks_for(width, serial_threads) * sequences.count())},
                 .block = {serial_threads}},
                serial_back_kernel<C, T, Sequences, Op...>, sequences, starts, first, dlast, dfirst, partial, ops...);
  add_partial(stream, partial, sequences.count(), ops...);
}

/// The adjoint of a cell over sequences of at most `longest` tokens. Auto takes heads token after token: no GPU has
/// measured their chunks yet.
template <class Schedule, class C, Index N, class T, class Sequences, class... Op>
void recur_back_sequences(const CudaStream& stream, bool dry, Arena scratch, [[maybe_unused]] Schedule schedule, C,
                          [[maybe_unused]] Extent<N> length, Sequences sequences, [[maybe_unused]] Index longest,
                          Mat<const T> first, Mat<const T> dlast, Mat<T> dfirst, const Op&... ops) {
  if constexpr (detail::in_chunks<Schedule, C>()) {
    check_chunk(schedule.chunk);
    recur_back_chunks<C>(stream, dry, scratch, sequences, length, first, dlast, dfirst, ops...);
  } else if constexpr (RowCell<C>) {
    recur_back_heads<C>(stream, dry, scratch, sequences, length, first, dlast, dfirst, ops...);
  } else {
    recur_back_channels<C>(stream, dry, scratch, schedule, sequences, longest, first, dlast, dfirst, ops...);
  }
}

/// The verb `recur_back`.
template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class... Op>
void recur_back(const CudaStream& stream, bool dry, Arena scratch, Schedule schedule, C cell, Extent<N> length,
                Mat<const T, F> first, Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
  static_assert(detail::explain_recur_back<Schedule, C, Op...>());
  if (!dry) detail::check_recur_back<C>(length, first, dlast, dfirst, ops...);
  const auto y = detail::written(ops...);
  recur_back_sequences(stream, dry, scratch, schedule, cell, length, Whole{y.batch, y.time}, y.time, dynamic(first),
                       dynamic(dlast), dynamic(dfirst), ops...);
}

/// The verb `recur_back` over packed sequences; `starts` and shapes as in recur_packed.
template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class I, class... Op>
void recur_back_packed(const CudaStream& stream, bool dry, Arena scratch, Schedule schedule, C cell, Extent<N> length,
                       Mat<const T, F> first, Mat<const T, L> dlast, Mat<T, M> dfirst, const I* starts,
                       const Op&... ops) {
  static_assert(detail::explain_recur_back<Schedule, C, Op...>());
  static_assert(explain_packed<Op...>());
  const auto y = detail::written(ops...);
  if (!dry) {
    auto one_first = first;
    auto one_dlast = dlast;
    auto one_dfirst = dfirst;
    one_first.rows = one_dlast.rows = one_dfirst.rows = 1;
    check_one_row(y.batch);
    detail::check_recur_back<C>(length, one_first, one_dlast, one_dfirst, ops...);
  }
  recur_back_sequences(stream, dry, scratch, schedule, cell, length, Packed<I>{starts, first.rows, y.time}, y.time,
                       dynamic(first), dynamic(dlast), dynamic(dfirst), ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
