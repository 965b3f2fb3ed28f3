#pragma once
/// The adjoint of a row cell. A block takes a head of a sequence, a thread each of its lanes. The block is a whole
/// number of warps, and threads behind the last lane only take part in sums.
///
/// 1. Forward through the sequence, keeping the state in front of every run of tokens in scratch memory.
/// 2. Backward, run after run: recompute the states inside the run into scratch memory.
/// 3. Token after token from the last: every thread steps its lane back. What the lane adds to the cotangents of the
///    shared vectors is summed over each warp at once, and over the warps behind a barrier, by a thread for each
///    component.
#include "rwkv/backend/cuda/recur/recur.cuh"
#include "rwkv/backend/cuda/recur/sequences.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/partial_sums.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Tokens of a run.
inline constexpr Index head_run = 16;

/// starts: the states in front of runs, [slot, head, component, lane]; inside: those inside a run, [sequence, head,
/// token, component, lane]; cotangents: of the state, [sequence, head, component, thread].
/// Dynamic shared memory: a number for every shared vector, component and warp.
template <class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(static_cast<int>(max_head_size), 1)
    head_back_kernel(Sequences sequences, Index length, T* starts, T* inside, T* cotangents, Mat<const T> first,
                     Mat<const T> dlast, Mat<T> dfirst, Partial<T> partial, Op... ops) {
  using R = Several<T, 1>;
  constexpr std::size_t own = input_count<C>;
  constexpr auto vectors = static_cast<Index>(detail::shared_count<C>);
  constexpr auto order = std::index_sequence_for<Op...>();
  constexpr auto all = detail::AllLanes{};
  const Index width = detail::written(ops...).width, numbers = length * length;
  const auto heads = static_cast<unsigned>(width / length);
  const Index head = blockIdx.x % heads, s = blockIdx.x / heads, begin = head * length;
  const auto thread = static_cast<Index>(threadIdx.x);
  const bool is_lane = thread < length;
  const Index lane = is_lane ? thread : 0;
  const int warps = static_cast<int>(blockDim.x) / warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  detail::SharedElement<T>* const sums = detail::dynamic_shared<T>();
  const Span span = sequences[s];
  const Index runs = (span.end - span.begin + head_run - 1) / head_run;
  const auto state_of = [&](auto* of_head) {
    using Number = std::remove_pointer_t<decltype(of_head)>;
    using Element = std::conditional_t<std::is_const_v<Number>, const R, R>;
    return StateInMemory<Element>{reinterpret_cast<Element*>(of_head) + lane, length, length};
  };
  const auto start_of = [&](Index n) { return starts + (sequences.slot({s, n}, head_run) * heads + head) * numbers; };
  const auto inside_of = [&](Index i) { return inside + ((s * heads + head) * head_run + i) * numbers; };
  const auto copy = [&](auto from, auto to) {
    for (Index n = 0; n < length && is_lane; ++n) to[n] = from[n];
  };
  const auto advance = [&](auto state, Index t) {
    R x[own];
    detail::load_inputs<C>(x, order, span.b, t, begin + lane, all, ops...);
    C::step(state, static_cast<const R(&)[own]>(x), detail::vectors_of_head<R>(begin, span.b, t, ops...));
  };

  const auto threads = static_cast<Index>(blockDim.x);
  const StateInMemory<R> dstate{reinterpret_cast<R*>(cotangents + (s * heads + head) * length * threads) + thread,
                                threads, length};
  const auto last = state_of(dlast.row(s) + head * numbers);
  for (Index n = 0; n < length; ++n) dstate[n] = last[n];
  copy(state_of(first.row(s) + head * numbers), state_of(start_of(0)));
  for (Index n = 0; n + 1 < runs; ++n) {
    copy(state_of(start_of(n)), state_of(start_of(n + 1)));
    for (Index t = span.begin + n * head_run; t < span.begin + (n + 1) * head_run && is_lane; ++t) {
      advance(state_of(start_of(n + 1)), t);
    }
  }

  Numbers<R, detail::sum_count<Op...> + 1> totals;  // of `sum` operands, over the tokens
  RWKV_UNROLL for (std::size_t n = 0; n <= detail::sum_count<Op...>; ++n) totals.v[n] = R(0);
  for (Index n = runs; n-- > 0;) {
    const Index from = span.begin + n * head_run;
    const Index count = span.end - from < head_run ? span.end - from : head_run;
    copy(state_of(start_of(n)), state_of(inside_of(0)));
    for (Index i = 0; i + 1 < count; ++i) {
      copy(state_of(inside_of(i)), state_of(inside_of(i + 1)));
      if (is_lane) advance(state_of(inside_of(i + 1)), from + i);
    }
    for (Index i = count; i-- > 0;) {
      const Index t = from + i;
      R x[own], dx[own];
      detail::load_inputs<C>(x, order, span.b, t, begin + lane, all, ops...);
      const R dy = detail::load_cotangent<R>(span.b, t, begin + lane, all, ops...);
      // Threads behind the last lane run along on lane 0, so that whole warps meet in every sum, and add nothing.
      step_back<C>(state_of(const_cast<const T*>(inside_of(i))), static_cast<const R(&)[own]>(x),
                   detail::vectors_of_head<R>(begin, span.b, t, ops...), dy, dstate, dx,
                   [&](int vector, Index component, R number) {
                     const T sum = sum_warp(is_lane ? number.v[0] : T(0));
                     if (threadIdx.x % warp_size == 0) sums[(vector * length + component) * warps + warp] = sum;
                   });
      __syncthreads();
      R gradients[own + static_cast<std::size_t>(vectors)];
      RWKV_UNROLL for (std::size_t k = 0; k < own; ++k) gradients[k] = dx[k];
      RWKV_UNROLL for (Index v = 0; v < vectors; ++v) {
        T sum(0);
        for (int w = 0; w < warps; ++w) sum += static_cast<T>(sums[(v * length + lane) * warps + w]);
        gradients[own + static_cast<std::size_t>(v)] = R(sum);
      }
      __syncthreads();  // the sums have been read
      if (is_lane) {
        std::size_t nth = 0, input = 0;
        const auto write = [&](const auto& op) {
          using Operand = std::remove_cvref_t<decltype(op)>;
          if constexpr (detail::is_sum<Operand>) {
            totals.v[nth++] += gradients[input++];
          } else if constexpr (detail::is_output<Operand>) {
            detail::Slot<R, Operand, detail::AllLanes> slot(op, span.b, t, begin + lane, all);
            slot.value = gradients[input++];
            slot.finish();
          }
        };
        (write(ops), ...);
      }
    }
  }
  copy(dstate, state_of(dfirst.row(s) + head * numbers));
  if (is_lane) partial.store(s, begin + lane, totals);
}

/// Launches head_back_kernel.
template <class C, class T, class Sequences, class... Op>
void recur_back_heads(const CudaStream& stream, bool dry, Arena scratch, Sequences sequences, Index length,
                      Mat<const T> first, Mat<const T> dlast, Mat<T> dfirst, const Op&... ops) {
  const Index width = detail::written(ops...).width, numbers = width * length;
  T* starts = scratch.take<T>((sequences.slots(head_run) + sequences.count()) * numbers);
  T* inside = scratch.take<T>(sequences.count() * head_run * numbers);
  const Index warps = (length + warp_size - 1) / warp_size;
  T* cotangents = scratch.take<T>(sequences.count() * width * warps * warp_size);
  const Partial<T> partial{scratch.take<T>(sequences.count() * Index{detail::sum_count<Op...>} * width), width};
  if (dry) return;
  const Index shared = static_cast<Index>(detail::shared_count<C>) * length * warps;
  if (width > 0 && sequences.count() > 0) {
    stream.launch({.grid = {static_cast<unsigned>(width / length * sequences.count())},
                   .block = {static_cast<unsigned>(warps * warp_size)},
                   .shared_bytes = static_cast<std::size_t>(shared) * sizeof(detail::SharedElement<T>)},
                  head_back_kernel<C, T, Sequences, Op...>, sequences, length, starts, inside, cotangents, first, dlast,
                  dfirst, partial, ops...);
  }
  add_partial(stream, partial, sequences.count(), ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
