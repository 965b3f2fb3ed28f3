#pragma once
/// The verb `recur`: token after token, as a chained scan over time (scan.cuh), or in chunks of time (chunk_sweep.cuh).
///
/// serial_kernel, channel cells: a thread steps R::size channels of a sequence through time and loads
/// serial_tokens_ahead tokens ahead. Threads do not cooperate.
///
/// head_kernel, row cells: a block takes a head of a sequence, a thread each of its lanes.
/// 1. Every thread puts the next tokens of the shared vectors into shared memory.
/// 2. After a barrier it loads the tokens behind these, and steps its lane through the staged ones.
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/recur/chunk_sweep.cuh"
#include "rwkv/backend/cuda/recur/held.cuh"
#include "rwkv/backend/cuda/recur/recur_tuning.cuh"
#include "rwkv/backend/cuda/recur/scan.cuh"
#include "rwkv/backend/cuda/recur/sequences.cuh"
#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// A channel cell, token after token.
template <class R, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(serial_threads) serial_kernel(Sequences sequences, Mat<T> state, Op... ops) {
  constexpr int ahead = serial_tokens_ahead;
  constexpr std::size_t inputs = input_count<C>;
  const auto y = detail::written(ops...);
  const Index width = y.width;
  const auto columns = static_cast<unsigned>((width + serial_threads * R::size - 1) / (serial_threads * R::size));
  const Index lane = Index{blockIdx.x % columns * serial_threads + threadIdx.x} * R::size;
  if (lane >= width) return;
  const Index s = blockIdx.x / columns;
  const Span span = sequences[s];

  run_t<R, ahead, inputs, Op...> run;
  run.begin(lane, ops...);
  RWKV_UNROLL for (int i = 0; i < ahead; ++i) {
    if (span.begin + i < span.end) run.fetch(i, span.b, span.begin + i, lane, ops...);
  }
  R now[C::state_size];
  detail::load_lanes(now, state.row(s) + lane, width, detail::AllLanes{});
  for (Index t = span.begin; t < span.end; t += ahead) {
    RWKV_UNROLL for (int i = 0; i < ahead; ++i) {
      if (t + i < span.end) {
        R x[inputs];
        run.numbers(i, x);
        if (t + i + ahead < span.end) run.fetch(i, span.b, t + i + ahead, lane, ops...);
        C::step(now, static_cast<const R(&)[inputs]>(x)).store(y.row(span.b, t + i) + lane);
      }
    }
  }
  detail::store_lanes(now, state.row(s) + lane, width, detail::AllLanes{});
}

/// The state of a lane in memory: component n at data[n * stride]. R may be const.
template <class R>
struct StateInMemory {
  R* data;
  Index stride;
  Index size;
  RWKV_HD R& operator[](Index n) const { return data[n * stride]; }
};

/// The vectors that the lanes of a head share, in shared memory, at one token.
template <class R, Index N>
struct StagedHead {
  const detail::SharedElement<typename R::scalar>* vectors;
  [[no_unique_address]] Extent<N> length;
  RWKV_HD R operator()(int vector, Index n) const {
    return R(static_cast<typename R::scalar>(vectors[vector * length + n]));
  }
};

template <Index N>
inline constexpr int head_threads = N == dyn ? static_cast<int>(max_head_size) : static_cast<int>(N);

/// A row cell, token after token. With a static length the state stays in registers, otherwise it is updated in memory.
/// Dynamic shared memory: 2 * head_tokens * shared vectors * length numbers.
template <Index N, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(head_threads<N>)
    head_kernel(Sequences sequences, Extent<N> length, Mat<T> state, Op... ops) {
  using R = Several<T, 1>;
  constexpr std::size_t own = input_count<C>, shared = detail::shared_count<C>;
  const auto y = detail::written(ops...);
  const auto heads = static_cast<unsigned>(y.width / length);
  const Index head = blockIdx.x % heads, s = blockIdx.x / heads, row = threadIdx.x, lane = head * length + row;
  const Span span = sequences[s];
  detail::SharedElement<T>* const staged = detail::dynamic_shared<T>();
  const Index token = static_cast<Index>(shared) * length;  // numbers staged for a token

  T* const lane_state = state.row(s) + head * length * length + row;
  R registers[N == dyn ? 1 : N];
  if constexpr (N != dyn) {
    RWKV_UNROLL for (Index n = 0; n < N; ++n) registers[n] = R::load(lane_state + n * length);
  }
  run_t<R, head_tokens, own + shared, Op...> run;
  run.begin(lane, ops...);
  RWKV_UNROLL for (int i = 0; i < head_tokens; ++i) {
    if (span.begin + i < span.end) run.fetch(i, span.b, span.begin + i, lane, ops...);
  }
  // Two buffers, so that one barrier is enough: fast threads fill one while slow threads still read the other.
  int buffer = 0;
  for (Index t = span.begin; t < span.end; t += head_tokens, buffer ^= 1) {
    detail::SharedElement<T>* const group = staged + buffer * head_tokens * token;
    R x[head_tokens][own + shared];
    RWKV_UNROLL for (int i = 0; i < head_tokens; ++i) {
      if (t + i < span.end) {
        run.numbers(i, x[i]);
        RWKV_UNROLL for (std::size_t v = 0; v < shared; ++v) {
          group[i * token + static_cast<Index>(v) * length + row] = x[i][own + v].v[0];
        }
      }
    }
    __syncthreads();
    RWKV_UNROLL for (int i = 0; i < head_tokens; ++i) {
      const Index later = t + head_tokens + i;
      if (later < span.end) run.fetch(i, span.b, later, lane, ops...);
    }
    RWKV_UNROLL for (int i = 0; i < head_tokens; ++i) {
      if (t + i < span.end) {
        R mine[own];
        RWKV_UNROLL for (std::size_t n = 0; n < own; ++n) mine[n] = x[i][n];
        const StagedHead<R, N> vectors{group + i * token, length};
        R out;
        if constexpr (N == dyn) {
          const StateInMemory<R> in_memory{reinterpret_cast<R*>(lane_state), length, length};
          out = C::step(in_memory, static_cast<const R(&)[own]>(mine), vectors);
        } else {
          out = C::step(LaneState<R, N>{registers, {}}, static_cast<const R(&)[own]>(mine), vectors);
        }
        out.store(y.row(span.b, t + i) + lane);
      }
    }
  }
  if constexpr (N != dyn) {
    RWKV_UNROLL for (Index n = 0; n < N; ++n) registers[n].store(lane_state + n * length);
  }
}

/// Launches serial_kernel.
template <class C, class T, class Sequences, class... Op>
void recur_serial(const CudaStream& stream, Sequences sequences, Mat<T> state, const Op&... ops) {
  const Index width = detail::written(ops...).width;
  const auto launch = [&]<int N>(std::integral_constant<int, N>) {
    const Index columns = blocks_for(width, serial_threads * N);
    stream.launch({.grid = {static_cast<unsigned>(columns * sequences.count())}, .block = {serial_threads}},
                  serial_kernel<Several<T, N>, C, T, Sequences, Op...>, sequences, state, ops...);
  };
  if constexpr (most_lanes < T >> 1) {
    if (lanes_aligned<most_lanes<T>>(width, state, ops...)) return launch(std::integral_constant<int, most_lanes<T>>{});
  }
  launch(std::integral_constant<int, 1>{});
}

/// Launches head_kernel. A length of 64, as in published models, becomes static, so that the state stays in registers.
template <class C, Index N, class T, class Sequences, class... Op>
void recur_heads(const CudaStream& stream, Sequences sequences, Extent<N> length, Mat<T> state, const Op&... ops) {
  if constexpr (N == dyn) {
    if (length == 64) return recur_heads<C>(stream, sequences, Extent<64>{}, state, ops...);
  }
  constexpr Index held = N != dyn && N * static_cast<Index>(sizeof(T)) <= head_state_bytes ? N : dyn;
  const Index staged = 2 * head_tokens * static_cast<Index>(detail::shared_count<C>) * length;
  stream.launch({.grid = {static_cast<unsigned>(detail::written(ops...).width / length * sequences.count())},
                 .block = {static_cast<unsigned>(Index(length))},
                 .shared_bytes = static_cast<std::size_t>(staged) * sizeof(detail::SharedElement<T>)},
                head_kernel<held, C, T, Sequences, Op...>, sequences, Extent<held>(Index(length)), state, ops...);
}

/// Runs a cell over sequences of at most `longest` tokens: heads, a scan, or token after token. Auto takes heads token
/// after token: no GPU has measured their chunks yet.
template <class Schedule, class C, Index N, class T, class Sequences, class... Op>
void recur_sequences(const CudaStream& stream, bool dry, Arena scratch, [[maybe_unused]] Schedule schedule, C,
                     Extent<N> length, Sequences sequences, [[maybe_unused]] Index longest, Mat<T> state,
                     const Op&... ops) {
  if constexpr (RowCell<C>) {
    if constexpr (detail::in_chunks<Schedule, C>()) {
      check_chunk(schedule.chunk);
      if (longest >= schedule.chunk) {
        if (!dry) recur_chunks<C>(stream, sequences, length, state, ops...);
        return;
      }
    }
    if (!dry) recur_heads<C>(stream, sequences, length, state, ops...);
  } else {
    if constexpr (scans<C, T>() && !std::is_same_v<Schedule, Sequential>) {
      const Index chunk = chunk_of(schedule, sequences.count() * detail::written(ops...).width, longest);
      if (longest > chunk) return recur_scan<C>(stream, dry, scratch, chunk, sequences, state, ops...);
    }
    if (!dry) recur_serial<C>(stream, sequences, state, ops...);
  }
}

/// The verb `recur`.
template <class Schedule, class C, Index N, class T, Index M, class... Op>
void recur(const CudaStream& stream, bool dry, Arena scratch, Schedule schedule, C cell, Extent<N> length,
           Mat<T, M> state, const Op&... ops) {
  static_assert(detail::explain_recur<Schedule, C, Op...>());
  if (!dry) detail::check_recur<C>(length, state, ops...);
  const auto y = detail::written(ops...);
  recur_sequences(stream, dry, scratch, schedule, cell, length, Whole{y.batch, y.time}, y.time, dynamic(state), ops...);
}

/// The verb `recur` over packed sequences.
/// starts    [sequences + 1], in memory of the device, ascending from 0 to tokens: sequence s has the tokens
///           [starts[s], starts[s + 1]) and the state state[s]
/// Shapes    operands: [1, tokens, width]
template <class Schedule, class C, Index N, class T, Index M, class I, class... Op>
void recur_packed(const CudaStream& stream, bool dry, Arena scratch, Schedule schedule, C cell, Extent<N> length,
                  Mat<T, M> state, const I* starts, const Op&... ops) {
  static_assert(detail::explain_recur<Schedule, C, Op...>());
  static_assert(explain_packed<Op...>());
  const auto y = detail::written(ops...);
  if (!dry) check_packed<C>(length, state, ops...);
  recur_sequences(stream, dry, scratch, schedule, cell, length, Packed<I>{starts, state.rows, y.time}, y.time,
                  dynamic(state), ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
