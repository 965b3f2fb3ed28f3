#pragma once
/// What a step of a layer does between its matrix products, as works of work.cuh:
///
/// NormWork   a block for each sequence: 1. makes the row (FirstRows, GatheredRows, SummedRows), 2. computes its totals
///            together, 3. normalises and mixes it
/// CellWork   a thread for each channel: one step of the recurrence and its gate
/// GateWork   a thread for each channel: the gate of the channel mix
#include "rwkv/backend/cuda/step/decode_operand.cuh"
#include "rwkv/backend/cuda/step/work.cuh"
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Makes no rows: the rows to normalise exist already. Instead it sets the turn counters of the launches that follow in
/// this step to zero, which spares the step a launch.
struct FirstRows {
  Turn* turns_to_clear;
  int count;

  template <class R>
  __device__ void make(Index row, Index c) const {
    if (row > 0 || c > 0) return;
    for (int i = 0; i < count; ++i) turns_to_clear[i] = {};
  }
};
/// Makes the rows by gathering them from a table.
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
/// Makes the rows by an addition: to = x + added.
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

/// Count mixes of the same normalised rows: the mix parameters and where the rows go.
template <class T, class W, int Count>
struct RowMixes {
  const W* mix[Count + 1];
  T* to[Count + 1];
};

/// `aligned`: all memory is aligned for vectors of 16 bytes.
template <class Begin, class Program, class Rule, class T, class W, int Count>
struct NormWork {
  Begin begin;
  NormedRows<Program, Rule, T, W> rows;
  RowMixes<T, W, Count> mixes;
  unsigned blocks;
  bool aligned;

  template <class Wait>
  __device__ void run_block(unsigned row, const Wait& wait) const {
    using Norm = DecodeTotals<One<T>, 1, Program, T, detail::SharedElement<T>>;
    __shared__ detail::SharedElement<T> totals[Norm::count], partial[Norm::partial_numbers];
    wait();
    if (aligned) run_block_in<Several<T, 16 / sizeof(T)>>(row, totals, partial);
    else run_block_in<Several<T, 1>>(row, totals, partial);
  }

 private:
  template <class R>
  __device__ void run_block_in(Index row, detail::SharedElement<T>* totals, detail::SharedElement<T>* partial) const {
    using Norm = DecodeTotals<R, 1, Program, T, detail::SharedElement<T>>;
    const int first = static_cast<int>(threadIdx.x) * R::size;
    // No barrier: below, a thread reads only what it wrote here.
    for (int c = first; c < rows.width; c += work_threads * R::size) begin.template make<R>(row, c);
    auto own = rows;
    own.x += row * rows.width;
    Norm::run_block(own.program, own.x, own.width, 1, partial, totals);
    for (int c = first; c < own.width; c += work_threads * R::size) {
      typename NormedRows<Program, Rule, T, W>::template Channels<R> channels;
      channels.scale = R::load(own.scale + c);
      channels.bias = R::load(own.bias + c);
      const R y = own.normalise(channels, static_cast<const detail::SharedElement<T>*>(totals), 0, c);
      if constexpr (Count > 0) {
        const R before = R::load(own.before.row(row) + c);
        RWKV_KERNEL_UNROLL for (int i = 0; i < Count; ++i) {
          Rule::mix(y, before, R::load(mixes.mix[i] + c)).store(mixes.to[i] + row * own.width + c);
        }
      }
      y.store(own.normed + row * own.width + c);
    }
  }
};

/// aligned    whether the memory that `begin` reads and writes is aligned for 16 bytes
template <class Begin, class Program, class Rule, class T, class W, int Count>
NormWork<Begin, Program, Rule, T, W, Count> norm_work(Index count, const Begin& begin, bool aligned,
                                                      const NormedRows<Program, Rule, T, W>& rows,
                                                      const RowMixes<T, W, Count>& mixes) {
  using R = Several<T, 16 / sizeof(T)>;
  aligned = aligned && source_aligned<R>(rows);
  for (int i = 0; i < Count; ++i) aligned = aligned && is_aligned<R::size>(mixes.mix[i]);
  return {begin, rows, mixes, static_cast<unsigned>(count), aligned};
}

/// The number of blocks when each takes work_threads channels of a sequence.
inline unsigned channel_blocks(Index batch, Index width) {
  return static_cast<unsigned>(Index{blocks_for(width, work_threads)} * batch);
}
/// The sequence and the channel of a thread; the channel may be beyond the last.
struct ChannelPlace {
  Index b, c;

  __device__ ChannelPlace(unsigned block, Index width) {
    const auto across = static_cast<unsigned>((width + work_threads - 1) / work_threads);
    b = block / across;
    c = Index{block % across} * work_threads + threadIdx.x;
  }
};

/// gated = gate(r, one step of the recurrence); then the token-shift state becomes the token.
template <class V, class T, class W>
struct CellWork {
  const W *decay, *bonus;
  const T *key, *value, *receptance;  // [batch, width]
  Mat<T> state;                       // [batch, components * width]
  T* gated;                           // [batch, width]
  const T* normed;                    // [batch, width]
  Mat<T> shift;
  unsigned blocks;

  template <class Wait>
  __device__ void run_block(unsigned block, const Wait& wait) const {
    using R = One<T>;
    using Cell = typename V::Cell;
    const Index width = shift.cols;
    const auto [b, c] = ChannelPlace(block, width);
    R log_decay(0), own_bonus(0);
    if (c < width) {
      typename V::Decay{}.map(R::load(decay + c), log_decay);
      own_bonus = R::load(bonus + c);
    }
    wait();
    if (c >= width) return;
    const Index at = b * width + c;
    T* const numbers = state.row(b) + c;
    R now[Cell::state_size], y;
    RWKV_KERNEL_UNROLL for (int n = 0; n < Cell::state_size; ++n) now[n] = R(numbers[n * width]);
    const R x[] = {log_decay, own_bonus, R(key[at]), R(value[at])};
    typename V::Gate{}.map(R(receptance[at]), Cell::step(now, x), y);
    RWKV_KERNEL_UNROLL for (int n = 0; n < Cell::state_size; ++n) numbers[n * width] = now[n].v;
    gated[at] = y.v;
    shift(b, c) = normed[at];
  }
};

/// y += gate(r, x); then the token-shift state becomes the token.
template <class Gate, class T>
struct GateWork {
  const T *r, *x;  // [batch, width]
  T* y;            // [batch, width]
  const T* normed;
  Mat<T> shift;
  unsigned blocks;

  template <class Wait>
  __device__ void run_block(unsigned block, const Wait& wait) const {
    wait();
    const Index width = shift.cols;
    const auto [b, c] = ChannelPlace(block, width);
    if (c >= width) return;
    const Index at = b * width + c;
    One<T> gated;
    Gate{}.map(One<T>(r[at]), One<T>(x[at]), gated);
    y[at] += gated.v;
    shift(b, c) = normed[at];
  }
};

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
