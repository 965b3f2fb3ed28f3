#pragma once
/// What a step of a layer does between its matrix products, each in one kernel: a norm with its mixes, the recurrence
/// with its gate, and the last gate.
#include "rwkv/backend/cuda/decode_product.cuh"
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI::gpu {

/// The rows to normalise are there already.
struct RowsAsTheyAre {
  template <class R>
  __device__ void make(Index, Index) const {}
};
/// They are rows of a table.
template <class T, class W>
struct GatheredRows {
  Mat<const W> table;
  const Token* tokens;
  T* to;

  template <class R>
  __device__ void make(Index row, Index c) const {
    R::load(table.row(tokens[row]) + c).store(to + row * Index(table.cols) + c);
  }
};
/// They are sums: to = x + added.
template <class T>
struct SummedRows {
  const T *x, *added;
  T* to;
  Index width;

  template <class R>
  __device__ void make(Index row, Index c) const {
    const Index at = row * width + c;
    (R::load(x + at) + R::load(added + at)).store(to + at);
  }
};

/// Mixes of the same normalised rows.
template <class T, class W, int Count>
struct RowMixes {
  const W* mix[Count + 1];
  T* to[Count + 1];
};

/// A block makes a row, normalises it and mixes it in every way.
template <class R, class Begin, class Program, class Rule, class T, class W, int Count>
RWKV_KERNEL void __launch_bounds__(decode_threads)
    norm_rows_kernel(Begin begin, NormedRows<Program, Rule, T, W> rows, RowMixes<T, W, Count> mixes) {
  using Norm = DecodeTotals<R, 1, Program, T, detail::Shared<T>>;
  __shared__ detail::Shared<T> totals[Norm::count], partial[Norm::partial_numbers];
  detail::let_successor_begin();
  detail::wait_for_predecessor();
  const Index row = blockIdx.x;
  const int first = static_cast<int>(threadIdx.x) * R::size;
  // Each thread reads what it wrote itself.
  for (int c = first; c < rows.width; c += decode_threads * R::size) begin.template make<R>(row, c);
  rows.x += row * rows.width;
  Norm::run(rows.program, rows.x, rows.width, 1, partial, totals);
  for (int c = first; c < rows.width; c += decode_threads * R::size) {
    typename decltype(rows)::template Channels<R> channels;
    channels.scale = R::load(rows.scale + c);
    channels.bias = R::load(rows.bias + c);
    const R y = rows.normalise(channels, static_cast<const detail::Shared<T>*>(totals), 0, c);
    if constexpr (Count > 0) {
      const R before = R::load(rows.before.row(row) + c);
      RWKV_KERNEL_UNROLL for (int i = 0; i < Count; ++i) {
        Rule::mix(y, before, R::load(mixes.mix[i] + c)).store(mixes.to[i] + row * rows.width + c);
      }
    }
    y.store(rows.normed + row * rows.width + c);
  }
}

/// `early`: see CudaStream::Shape.
template <class Begin, class Program, class Rule, class T, class W, int Count>
void norm_rows(const CudaStream& stream, bool early, Index count, const Begin& begin, bool aligned,
               const NormedRows<Program, Rule, T, W>& rows, const RowMixes<T, W, Count>& mixes) {
  using R = Several<T, 16 / sizeof(T)>;
  aligned = aligned && is_aligned_source<R>(rows);
  for (int i = 0; i < Count; ++i) aligned = aligned && has_pieces<R::size>(mixes.mix[i], 0);
  const CudaStream::Shape shape{
      .grid = dim3(static_cast<unsigned>(count)), .block = dim3(decode_threads), .shared_bytes = 0, .early = early};
  if (aligned) {
    stream.launch(shape, norm_rows_kernel<R, Begin, Program, Rule, T, W, Count>, begin, rows, mixes);
  } else {
    stream.launch(shape, norm_rows_kernel<Several<T, 1>, Begin, Program, Rule, T, W, Count>, begin, rows, mixes);
  }
}

/// One step of the recurrence of a time mix and its gate, and the token becomes the one before.
template <class T, class W>
struct CellStep {
  const W *decay, *bonus;
  const T *key, *value, *receptance;  // [batch, width]
  Mat<T> state;                       // [batch, components * width]
  T* gated;                           // [batch, width]
  const T* normed;                    // [batch, width]
  Mat<T> shift;
};

inline constexpr int channel_threads = 64;

/// Threads are channels, blocks are (channels, sequences).
template <class V, class T, class W>
RWKV_KERNEL void __launch_bounds__(channel_threads) cell_kernel(CellStep<T, W> step) {
  using R = One<T>;
  using Cell = typename V::Cell;
  detail::let_successor_begin();
  const Index width = step.shift.cols, c = Index{blockIdx.x} * channel_threads + threadIdx.x;
  R log_decay(0), bonus(0);
  if (c < width) {
    typename V::Decay{}.map(R::load(step.decay + c), log_decay);
    bonus = R::load(step.bonus + c);
  }
  detail::wait_for_predecessor();
  if (c >= width) return;
  for (Index b = blockIdx.y; b < step.shift.rows; b += gridDim.y) {
    const Index at = b * width + c;
    T* const numbers = step.state.row(b) + c;
    R state[Cell::state_size], gated;
    RWKV_KERNEL_UNROLL for (int n = 0; n < Cell::state_size; ++n) state[n] = R(numbers[n * width]);
    const R x[] = {log_decay, bonus, R(step.key[at]), R(step.value[at])};
    typename V::Gate{}.map(R(step.receptance[at]), Cell::step(state, x), gated);
    RWKV_KERNEL_UNROLL for (int n = 0; n < Cell::state_size; ++n) numbers[n * width] = state[n].v;
    step.gated[at] = gated.v;
    step.shift(b, c) = step.normed[at];
  }
}

/// y += gate(r, x), and the token becomes the one before; threads and blocks as above.
template <class Gate, class T>
RWKV_KERNEL void __launch_bounds__(channel_threads)
    gate_kernel(const T* r, const T* x, T* y, const T* normed, Mat<T> shift) {
  detail::let_successor_begin();
  detail::wait_for_predecessor();
  const Index width = shift.cols, c = Index{blockIdx.x} * channel_threads + threadIdx.x;
  if (c >= width) return;
  for (Index b = blockIdx.y; b < shift.rows; b += gridDim.y) {
    const Index at = b * width + c;
    One<T> gated;
    Gate{}.map(One<T>(r[at]), One<T>(x[at]), gated);
    y[at] += gated.v;
    shift(b, c) = normed[at];
  }
}

inline CudaStream::Shape channel_shape(Index batch, Index width) {
  constexpr Index most = 65535;
  return {.grid = dim3(blocks_for(width, channel_threads), static_cast<unsigned>(batch < most ? batch : most)),
          .block = dim3(channel_threads),
          .shared_bytes = 0,
          .early = true};
}

}  // namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI::gpu
